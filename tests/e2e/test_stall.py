"""Contract, sections 2, 3 and 5: a device that hangs ends streams and process, and says so."""

import contextlib
import time

import pytest

from test_failed_start import failed_start
from test_life_cycle import job
from worker import Gate, Worker

# A warm-up has fewer steps.
HANGS = {"LLORCH_FAKE_HANG_AT_STEP": "40"}
STALLED = ("error", "INFERENCE_FAILED", True)


def end_of(stream):
    last = stream.rest()[-1]
    return last["type"], last["code"], last["retriable"]


@contextlib.contextmanager
def at_its_last_step(binary, model, folder, *args, **env):
    """A worker that will hang or fail in a step that the test lets come by opening the gate."""
    gate = Gate(folder)
    gate.open()
    with Worker(binary, ["--model", model, *args], {**gate.env, **env}) as worker:
        gate.shut()
        yield worker, gate
    gate.close()


def test_streams_end_the_state_is_logged_and_the_process_exits_15(binary, model, tmp_path):
    with at_its_last_step(binary, model, tmp_path, "--stall-timeout", "3", "--max-batch", "2",
                          **HANGS) as (worker, gate):
        streams = [worker.open_execute(job("job-%d" % i, max_tokens=2000, prompt="Zanzibar"))
                   for i in range(3)]
        gate.open()
        assert [end_of(stream) for stream in streams] == [STALLED] * 3
        assert worker.wait() == 15
        [line] = worker.events("error")
        assert (line["level"], line["code"], line["exit_code"]) == ("error", "engine_stalled", 15)
        assert 0 < line["step"] <= 40 and line["step_age_ms"] >= 3000
        assert (line["running"], line["waiting"]) == (2, 1)
        assert 0 < line["kv_usage"] <= 1 and 0 < line["blocks_used"] <= line["blocks_total"]
        sequences = line["sequences"].split("; ")
        assert len(sequences) == 2
        for sequence, job_id in zip(sequences, ("job-0", "job-1")):
            name, phase, tokens, _, blocks, _ = sequence.split(" ")
            assert (name, phase) == (job_id, "decode")
            computed, known = map(int, tokens.split("/"))
            assert known == computed + 1 and int(blocks) * 16 >= known
        assert "Zanzibar" not in worker.stdout


def test_probes_see_a_stall_before_the_process_goes(binary, model):
    with Worker(binary, ["--model", model, "--stall-timeout", "0.2"], HANGS) as worker:
        end_of(worker.open_execute(job(max_tokens=2000)))
        seen = []
        while worker.process.poll() is None:
            try:
                seen.append([worker.request("GET", path).status
                             for path in ("/livez", "/readyz", "/health")])
            except (ConnectionError, EOFError):
                pass
            time.sleep(0.05)
        assert seen and all(statuses == [503] * 3 for statuses in seen)
        assert worker.wait() == 15


@pytest.mark.parametrize("signals", [0, 1, 2])
def test_a_stall_while_draining_is_15_too(binary, model, signals):
    env = {**HANGS, "LLORCH_FAKE_STEP_MS": "20"}
    with Worker(binary, ["--model", model, "--stall-timeout", "1"], env) as worker:
        stream = worker.open_execute(job(max_tokens=2000))
        stream.until("token")
        if signals == 1:
            worker.signal()  # it drains when the step hangs
        assert end_of(stream) == STALLED
        if signals == 2:
            worker.signal()  # within the last second
            worker.signal()
        assert worker.wait() == 15
        assert worker.events("error", code="engine_stalled")


def test_a_second_signal_ends_streams_though_a_step_hangs(binary, model):
    with Worker(binary, ["--model", model], HANGS) as worker:  # no stall yet: that takes 60 s
        stream = worker.open_execute(job(max_tokens=2000))
        stream.until("token")
        worker.signal()
        worker.wait_event("shutdown")
        worker.signal()
        assert end_of(stream) == ("error", "CANCELLED", True)
        assert worker.wait() == 0


def test_the_shutdown_timeout_ends_streams_though_a_step_hangs(binary, model):
    with Worker(binary, ["--model", model, "--shutdown-timeout", "0.2"], HANGS) as worker:
        stream = worker.open_execute(job(max_tokens=2000))
        stream.until("token")
        worker.signal()
        assert end_of(stream) == ("error", "CANCELLED", True)
        assert worker.wait() == 0


def test_a_warm_up_that_hangs_is_a_failed_start(binary, model):
    env = {"LLORCH_FAKE_HANG_AT_STEP": "2"}
    status, line = failed_start(binary, "--model", model, "--port", "0", "--stall-timeout", "0.2",
                                env=env)
    assert (status, line["code"]) == (11, "device")
    assert "step 2 has not finished" in line["message"]


def test_sigterm_while_the_warm_up_hangs_is_a_graceful_exit(binary, model):
    with Worker(binary, ["--model", model], {"LLORCH_FAKE_HANG_AT_STEP": "2"},
                wait_ready=False) as worker:
        worker.wait_event("model_load_complete")
        assert worker.stop() == 0


def test_a_device_that_fails_ends_every_stream(binary, model, tmp_path):
    with at_its_last_step(binary, model, tmp_path, "--max-batch", "2",
                          LLORCH_FAKE_FAIL_AT_STEP="40") as (worker, gate):
        streams = [worker.open_execute(job("job-%d" % i, max_tokens=2000)) for i in range(4)]
        gate.open()
        assert [end_of(stream) for stream in streams] == [STALLED] * 4
        assert worker.wait() == 15
        assert worker.events("error", code="engine_failed", exit_code=15)
