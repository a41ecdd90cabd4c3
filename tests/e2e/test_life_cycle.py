"""Contract, section 3: from the first log line to the exit status, against the real binary."""

import datetime
import re
import signal

import pytest

from worker import Gate, Worker

SLOW = {"LLORCH_FAKE_STEP_MS": "20"}
RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")


def job(job_id="job-1", max_tokens=20, **fields):
    return {"job_id": job_id, "prompt": "Once upon a time", "max_tokens": max_tokens,
            "ignore_eos": True, **fields}


def test_events_come_in_order_with_their_fields(binary, model):
    with Worker(binary, ["--model", model, "--worker-id", "w-7"]) as worker:
        worker.execute(job())
        worker.wait_event("execute_end")
        assert worker.stop() == 0
        lines = worker.lines
    names = [x["event"] for x in lines if x["event"] not in
             ("model_load_progress", "listening", "open_to_the_network")]
    assert names == ["startup", "device_ready", "model_load_start", "model_load_complete",
                     "warmup_complete", "ready", "execute_start", "execute_end", "shutdown"]
    for line in lines:
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert RFC3339.match(line["timestamp"]), line
        assert line["worker_id"] == "w-7"
        assert not any(isinstance(v, (dict, list)) for v in line.values()), "not flat: %r" % line
    by_name = {x["event"]: x for x in lines}
    assert by_name["startup"]["model"] == "tiny"
    assert by_name["startup"]["backend"] == "fake"
    assert "port" in by_name["startup"]
    assert by_name["device_ready"].keys() >= {"name", "total_bytes", "free_bytes", "verified"}
    assert by_name["device_ready"]["verified"] is True
    assert by_name["model_load_complete"].keys() >= {"architecture", "dtype", "weight_bytes",
                                                     "kv_bytes", "ms"}
    assert by_name["model_load_complete"]["architecture"] == "llama"
    assert "percent" in by_name["model_load_progress"]
    assert "ms" in by_name["warmup_complete"]
    port = by_name["listening"]["port"]
    assert by_name["ready"]["port"] == port
    assert by_name["ready"]["uri"] == f"http://localhost:{port}"
    for name in ("execute_start", "execute_end"):
        assert by_name[name]["job_id"] == "job-1"
        assert by_name[name]["correlation_id"]


@pytest.mark.parametrize("dtype, kv_dtype, meant", [
    ("f32", "auto", "f32"), ("bf16", "auto", "bf16"), ("f16", "auto", "bf16"),
    ("bf16", "f32", "f32"), ("f32", "f16", "f16"), ("bf16", "q8_0", "q8_0"),
])
def test_kv_cache_is_bf16_unless_told_otherwise(binary, model, dtype, kv_dtype, meant):
    with Worker(binary, ["--model", model, "--dtype", dtype, "--kv-dtype", kv_dtype]) as worker:
        loaded = worker.wait_event("model_load_complete")
        assert (loaded["dtype"], loaded["kv_dtype"]) == (dtype, meant)


def test_log_holds_no_text_of_prompt_or_completion(binary, model):
    with Worker(binary, ["--model", model, "--log-level", "debug"]) as worker:
        events = worker.execute(job(prompt="Zanzibar zebras"))
        worker.stop()
        text = "".join(e["t"] for _, e in events if e["type"] == "token").strip()
        assert len(text) > 5
        assert "Zanzibar" not in worker.stdout
        assert text[:12] not in worker.stdout


def test_a_worker_without_an_id_has_a_fresh_uuid(binary, model):
    ids = set()
    for _ in range(2):
        with Worker(binary, ["--model", model]) as worker:
            ids |= {x["worker_id"] for x in worker.lines}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", x) for x in ids)


def test_it_listens_while_it_loads(binary, model, tmp_path):
    gate = Gate(tmp_path)  # the warm-up waits for it
    with Worker(binary, ["--model", model], gate.env, wait_ready=False) as worker:
        worker.wait_event("listening")
        assert worker.request("GET", "/livez").status == 200
        assert worker.request("GET", "/readyz").status == 503
        health = worker.request("GET", "/health")
        assert health.status == 503
        assert health.json()["status"] == "unhealthy"
        assert health.json()["reason"] == "loading"
        refused = worker.request("POST", "/execute", job())
        assert refused.status == 503
        assert refused.json()["code"] == "LOADING"
        assert refused.json()["retriable"] is True
        assert not worker.events("ready")
        gate.open()
        worker.wait_event("ready")
        assert worker.request("GET", "/readyz").status == 200
        assert worker.health()["status"] == "healthy"
    gate.close()


def test_sigterm_before_ready_is_a_graceful_exit(binary, model, tmp_path):
    gate = Gate(tmp_path)
    with Worker(binary, ["--model", model], gate.env, wait_ready=False) as worker:
        worker.wait_event("model_load_complete")
        assert worker.stop() == 0
        assert worker.events("shutdown") and not worker.events("ready")
    gate.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(binary, model, number):
    with Worker(binary, ["--model", model], SLOW) as worker:
        stream = worker.open_execute(job(max_tokens=40))
        stream.until("token")
        worker.signal(number)
        worker.wait_event("shutdown")
        refused = worker.request("POST", "/execute", job("late"))
        assert refused.status == 503
        assert refused.json()["code"] == "UNAVAILABLE"
        assert "retry-after" in refused.headers
        assert worker.request("GET", "/readyz").status == 503
        assert worker.request("GET", "/livez").status == 200
        assert worker.request("GET", "/health").json()["reason"] == "draining"
        events = stream.rest()
        assert events[-1]["type"] == "end"
        assert events[-1]["tokens_out"] == 40
        assert worker.wait() == 0


def test_a_second_signal_ends_the_streams(binary, model):
    with Worker(binary, ["--model", model], SLOW) as worker:
        stream = worker.open_execute(job(max_tokens=2000))
        stream.until("token")
        worker.signal()
        worker.wait_event("shutdown")
        worker.signal()
        last = stream.rest()[-1]
        assert (last["type"], last["code"], last["retriable"]) == ("error", "CANCELLED", True)
        assert worker.wait() == 0


def test_the_shutdown_timeout_ends_the_streams(binary, model):
    with Worker(binary, ["--model", model, "--shutdown-timeout", "0.2"], SLOW) as worker:
        stream = worker.open_execute(job(max_tokens=2000))
        stream.until("token")
        worker.signal()
        last = stream.rest()[-1]
        assert (last["type"], last["code"], last["retriable"]) == ("error", "CANCELLED", True)
        assert worker.wait() == 0


def test_post_shutdown_drains_like_sigterm(binary, model):
    with Worker(binary, ["--model", model], SLOW) as worker:
        stream = worker.open_execute(job(max_tokens=40))
        stream.until("token")
        assert worker.request("POST", "/shutdown").status == 202
        assert worker.request("POST", "/execute", job("late")).status == 503
        assert stream.rest()[-1]["type"] == "end"
        assert worker.wait() == 0


def test_an_engine_failure_ends_streams_and_process(binary, model):
    with Worker(binary, ["--model", model], {"LLORCH_FAKE_FAIL_AT_STEP": "40"}) as worker:
        events = worker.execute(job(max_tokens=2000))
        kinds = [e["type"] for _, e in events]
        assert kinds[0] == "started" and "token" in kinds
        last = events[-1][1]
        assert (last["type"], last["code"], last["retriable"]) == ("error", "INFERENCE_FAILED", True)
        assert worker.wait() == 15
        assert worker.events("error", exit_code=15)


def test_a_request_timeout_ends_with_timeout(binary, model):
    with Worker(binary, ["--model", model, "--request-timeout", "0.3"], SLOW) as worker:
        last = worker.execute(job(max_tokens=2000))[-1][1]
        assert (last["type"], last["code"], last["retriable"]) == ("error", "TIMEOUT", True)


def test_pretty_log_is_not_json(binary, model):
    with Worker(binary, ["--model", model, "--log-format", "pretty", "--port", "0"],
                wait_ready=False) as worker:
        while " ready " not in worker.stdout:
            assert worker.process.poll() is None, worker.stderr
        assert worker.stop() == 0
        assert not worker.stdout.startswith("{")


def test_timestamps_are_utc(binary, model):
    with Worker(binary, ["--model", model], {"TZ": "Asia/Tokyo"}) as worker:
        at = datetime.datetime.fromisoformat(worker.lines[0]["timestamp"].replace("Z", "+00:00"))
        now = datetime.datetime.now(datetime.timezone.utc)
        assert abs((now - at).total_seconds()) < 600
