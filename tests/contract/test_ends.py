"""Contract, section 5: how a request ends before its time: /cancel, closed sockets, slow readers."""

import socket

import pytest

from worker import Worker

ENDLESS = {"max_tokens": 1500}


@pytest.fixture
def slow(binary, model):
    """A worker that takes 20 ms a step, with room for one request only."""
    with Worker(binary, ["--model", model, "--max-batch", "1"],
                {"LLORCH_FAKE_STEP_MS": "20"}) as worker:
        yield worker


def check_free(worker, job):
    """Nothing runs, no block is held, and the next request is served."""
    health = worker.wait_health(running=0, waiting=0)
    assert worker.wait_health(kv_usage=0)["status"] == "healthy", health
    assert worker.execute(job(max_tokens=2))[-1][1]["type"] == "end"


def check_cancelled(event):
    assert list(event) == ["type", "code", "message", "retriable"]
    assert (event["type"], event["code"], event["retriable"]) == ("error", "CANCELLED", False)


def test_cancel_ends_a_running_job(slow, job):
    body = job(**ENDLESS)
    with slow.open_execute(body) as stream:
        stream.until("token")
        answer = slow.request("POST", "/cancel", {"job_id": body["job_id"]})
        assert answer.status == 202
        events = stream.rest()
        check_cancelled(events[-1])
        assert [e["type"] for e in events].count("error") == 1
    assert slow.request("POST", "/cancel", {"job_id": body["job_id"]}).status == 202  # again
    check_free(slow, job)
    line = slow.wait_event("execute_end", job_id=body["job_id"])
    assert line["outcome"] == "CANCELLED"


def test_cancel_ends_a_waiting_job(slow, job):
    waiting = job(**ENDLESS)
    with slow.open_execute(job(**ENDLESS)) as first, slow.open_execute(waiting) as second:
        first.until("token")
        assert second.status == 200
        assert slow.request("POST", "/cancel", {"job_id": waiting["job_id"]}).status == 202
        check_cancelled(second.rest()[-1])
        first.until("token")  # undisturbed


def test_cancel_of_an_unknown_job(worker):
    answer = worker.request("POST", "/cancel", {"job_id": "never seen"})
    assert answer.status == 404 and answer.json()["code"] == "NOT_FOUND"
    assert worker.request("POST", "/cancel", {}).json()["code"] == "INVALID_FIELD"
    assert worker.request("POST", "/cancel", {"job_id": 1}).status == 422
    assert worker.request("POST", "/cancel", b"{").json()["code"] == "INVALID_JSON"


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_closed_socket_cancels(slow, job, how):
    body = job(**ENDLESS)
    stream = slow.open_execute(body)
    stream.until("token")
    getattr(stream.connection, how)()
    line = slow.wait_event("execute_end", job_id=body["job_id"])
    assert line["outcome"] == "CANCELLED"
    assert line["tokens_out"] < 1500
    check_free(slow, job)


def test_a_closed_socket_cancels_a_waiting_job(slow, job):
    with slow.open_execute(job(**ENDLESS)) as first:
        first.until("token")
        waiting = slow.open_execute(job(**ENDLESS))
        slow.wait_health(waiting=1)
        waiting.close()
        slow.wait_health(waiting=0)
        first.until("token")


def test_a_closed_sending_side_cancels_and_is_told(slow, job):
    with slow.open_execute(job(**ENDLESS)) as stream:
        stream.until("token")
        stream.connection.sock.shutdown(socket.SHUT_WR)
        check_cancelled(stream.rest()[-1])
        assert stream.connection.closed_by_peer()
    check_free(slow, job)


def test_a_slow_reader_ends_alone(binary, model, job):
    with Worker(binary, ["--model", model]) as worker:
        # Some 1.8 MB of events, which fit neither the queue nor the sockets of a reader that waits.
        sleeper = worker.open_execute(job(max_tokens=2000, logprobs=20), receive_buffer=4096)
        with worker.open_execute(job(max_tokens=1000, logprobs=20)) as other:
            assert other.rest()[-1]["type"] == "end"
        worker.wait_health(running=0, waiting=0)
        end = sleeper.rest()[-1]
        assert list(end) == ["type", "code", "message", "retriable"]
        assert (end["type"], end["code"], end["retriable"]) == ("error", "INFERENCE_FAILED", True)
        sleeper.close()
        check_free(worker, job)


def test_request_timeout_ends_with_timeout(binary, model, job):
    with Worker(binary, ["--model", model, "--request-timeout", "0.2"],
                {"LLORCH_FAKE_STEP_MS": "20"}) as worker:
        end = worker.execute(job(**ENDLESS))[-1][1]
        assert (end["type"], end["code"], end["retriable"]) == ("error", "TIMEOUT", True)
        worker.wait_health(running=0, kv_usage=0)
