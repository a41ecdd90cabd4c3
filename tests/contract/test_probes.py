"""Contract, sections 3 and 5: /health, /livez, /readyz and /shutdown in every state of a worker."""

import json
import socket

import pytest

KEYS = ["status", "vram_bytes", "model", "architecture", "backend", "context_length",
        "uptime_seconds", "running", "waiting", "kv_usage"]


def check_unhealthy(worker, reason):
    answer = worker.request("GET", "/health")
    assert answer.status == 503
    health = answer.json()
    assert list(health) == KEYS + ["reason"]
    assert (health["status"], health["reason"]) == ("unhealthy", reason)


def check_refused(answer, code):
    assert answer.status == 503
    body = answer.json()
    assert list(body) == ["code", "message", "retriable"]
    assert (body["code"], body["retriable"]) == (code, True)
    assert int(answer.headers["retry-after"]) >= 1


def test_health_when_all_is_well(worker):
    status, headers, body = worker.request("GET", "/health")
    assert status == 200 and headers["content-type"] == "application/json"
    health = json.loads(body)
    assert list(health) == KEYS
    assert body.startswith(b'{"status":"healthy","vram_bytes":%d,"model":"tiny",'
                           b'"architecture":"llama","backend":"fake",' % health["vram_bytes"])
    assert health["vram_bytes"] > 0 and health["context_length"] == 2048
    assert isinstance(health["uptime_seconds"], int)
    assert 0 <= health["kv_usage"] <= 1
    assert worker.request("GET", "/livez").status == 200
    assert worker.request("GET", "/readyz").status == 200
    assert worker.request("GET", "/health?verbose=1").status == 200


def test_health_counts_what_runs_and_waits(gated, job):
    with gated("--max-batch", "2") as (worker, gate):
        streams = [worker.open_execute(job(max_tokens=50, logprobs=0)) for _ in range(3)]
        gate.let(3)
        for stream in streams[:2]:
            stream.until("token")
        health = worker.wait_health(running=2, waiting=1)
        assert 0 < health["kv_usage"] <= 1
        gate.open()
        for stream in streams:
            stream.rest()
            stream.close()
        worker.wait_health(running=0, waiting=0, kv_usage=0)


def test_only_livez_answers_while_loading(gated, job):
    with gated(wait_ready=False) as (worker, gate):
        worker.wait_event("listening")  # the warm-up waits at the gate
        assert worker.request("GET", "/livez").status == 200
        check_unhealthy(worker, "loading")
        for method, path, body in [("POST", "/execute", job()), ("GET", "/readyz", None),
                                   ("GET", "/metrics", None), ("POST", "/cancel", {"job_id": "a"}),
                                   ("GET", "/nope", None),
                                   ("POST", "/shutdown", None), ("PUT", "/execute", None)]:
            check_refused(worker.request(method, path, body), "LOADING")
        gate.open()
        worker.wait_event("ready")
        assert worker.request("GET", "/readyz").status == 200
        assert worker.health()["status"] == "healthy"


def test_shutdown_drains(gated, job):
    with gated() as (worker, gate):
        with worker.open_execute(job(max_tokens=5, logprobs=0)) as running:
            gate.let(1)
            running.until("token")
            assert worker.request("POST", "/shutdown").status == 202
            worker.wait_health(status="unhealthy")
            check_unhealthy(worker, "draining")
            check_refused(worker.request("GET", "/readyz"), "UNAVAILABLE")
            check_refused(worker.request("POST", "/execute", job()), "UNAVAILABLE")
            assert worker.request("GET", "/livez").status == 200
            assert worker.request("POST", "/shutdown").status == 202  # again changes nothing
            gate.open()
            assert running.rest()[-1]["type"] == "end"
        assert worker.wait() == 0


def own_address():
    """An address of this machine that is not loopback; None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        return probe.getsockname()[0]


def test_shutdown_is_for_loopback_peers_only(binary, model):
    from worker import Connection, Worker
    address = own_address()
    if not address or address.startswith("127."):
        pytest.skip("no address beyond loopback here")
    with Worker(binary, ["--model", model, "--host", "0.0.0.0"]) as worker:
        with Connection(worker.port, host=address) as stranger:
            answer = stranger.request("POST", "/shutdown")
            assert answer.status == 403 and answer.json()["code"] == "FORBIDDEN"
            assert stranger.request("GET", "/health").status == 200


def test_a_stalled_engine_is_not_alive(gated, job):
    with gated("--stall-timeout", "1") as (worker, gate):
        with worker.open_execute(job()) as stream:
            worker.wait_health(status="unhealthy")
            check_unhealthy(worker, "stalled")
            check_refused(worker.request("GET", "/livez"), "UNAVAILABLE")
            check_refused(worker.request("GET", "/readyz"), "UNAVAILABLE")
            check_refused(worker.request("POST", "/execute", job()), "UNAVAILABLE")
            end = stream.rest()[-1]
            assert (end["type"], end["code"], end["retriable"]) == (
                "error", "INFERENCE_FAILED", True)
        assert worker.wait() == 15
