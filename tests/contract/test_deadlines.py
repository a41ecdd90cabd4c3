"""X-Deadline and X-Deadline-Ms: refused at once when the finish is predicted to be later, else
ended with TIMEOUT when they pass."""

import datetime
import time

import pytest

from worker import Worker


@pytest.fixture(scope="module")
def slow(binary, model):
    """Steps of 10 ms; one sequence at a time, and a place for one more."""
    with Worker(binary, ["--model", model, "--max-batch", "1", "--max-queue", "1"],
                {"LLORCH_FAKE_STEP_MS": "10"}) as worker:
        yield worker
        assert worker.stop() == 0, worker.stderr


def in_seconds(seconds, zone=datetime.timezone.utc):
    then = datetime.datetime.now(zone) + datetime.timedelta(seconds=seconds)
    return then.isoformat()


@pytest.mark.parametrize("name,value", [
    ("X-Deadline", "soon"), ("X-Deadline", "2026-11-25"), ("X-Deadline", ""),
    ("X-Deadline-Ms", "1.5"), ("X-Deadline-Ms", "-1"), ("X-Deadline-Ms", "")])
def test_a_malformed_header_is_named(worker, job, name, value):
    answer = worker.request("POST", "/execute", job(), {name: value})
    assert (answer.status, answer.json()["code"]) == (422, "INVALID_FIELD")
    assert "`%s`" % name in answer.json()["message"]


def test_a_header_that_comes_twice_is_refused(worker, job):
    twice = [("X-Deadline-Ms", "60000"), ("X-Deadline-Ms", "60000")]
    assert worker.request("POST", "/execute", job(), twice).status == 422


@pytest.mark.parametrize("headers", [
    {"X-Deadline-Ms": "60000"}, {"X-Deadline": in_seconds(60)},
    {"X-Deadline": in_seconds(60, datetime.timezone(datetime.timedelta(hours=-7)))},
    {"X-Deadline": "2999-01-01T00:00:00Z", "X-Deadline-Ms": "60000"}])
def test_one_that_can_be_met(slow, job, headers):
    assert slow.execute(job(max_tokens=3), headers)[-1][1]["type"] == "end"


@pytest.mark.parametrize("headers", [
    {"X-Deadline-Ms": "0"}, {"X-Deadline-Ms": "500"}, {"X-Deadline": in_seconds(-1)},
    {"X-Deadline": "2999-01-01T00:00:00Z", "X-Deadline-Ms": "500"},
    {"X-Deadline": "2020-01-01T00:00:00Z", "X-Deadline-Ms": "60000"}])
def test_one_that_cannot_be_met_is_refused_at_once(slow, job, headers):
    for path, body in (("/execute", job(max_tokens=1000)),
                       ("/v1/completions", {"model": "tiny", "prompt": "Once",
                                            "max_tokens": 1000})):
        answer = slow.request("POST", path, body, headers)
        assert answer.status == 429, answer.body
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        refusal = answer.json().get("error", answer.json())
        assert "deadline" in refusal["message"]
    assert slow.health()["running"] == 0


def test_who_waits_behind_another_is_told_so(slow, job):
    with slow.open_execute(job(max_tokens=1500)) as first:
        first.until("token")
        answer = slow.request("POST", "/execute", job(max_tokens=1), {"X-Deadline-Ms": "2000"})
        assert (answer.status, answer.json()["code"]) == (429, "OVERLOADED")
        assert answer.json()["retriable"] is True
        assert 5 <= int(answer.headers["retry-after"]) <= 60  # 1,500 steps of 10 ms
        with slow.open_execute(job(max_tokens=1)) as second:
            assert second.status == 200
            full = slow.request("POST", "/execute", job())
            assert full.status == 429 and int(full.headers["retry-after"]) >= 5


def test_a_lower_priority_is_nothing_to_wait_for(slow, job):
    slow.wait_health(running=0, waiting=0)
    with slow.open_execute(job(max_tokens=1500, priority=-1)) as first:
        first.until("token")
        events = slow.execute(job(max_tokens=5), {"X-Deadline-Ms": "2000"})
        assert events[-1][1]["type"] == "end"
    slow.wait_health(running=0)


@pytest.mark.parametrize("place", ["queue", "decode"])
def test_one_that_passes_ends_its_request(gated, job, place):
    with gated("--max-batch", "1" if place == "queue" else "4") as (worker, gate):
        with worker.open_execute(job(max_tokens=50)) as other:
            gate.let(1)
            other.until("token")
            # Nothing moves: the prediction knows steps that took next to no time.
            with worker.open_execute(job(max_tokens=20), {"X-Deadline-Ms": "3000"}) as late:
                assert late.status == 200
                if place == "decode":
                    gate.let(2)
                    late.until("token")
                worker.wait_health(waiting=1 if place == "queue" else 0)
                time.sleep(3.1)
                gate.open()
                last = late.rest()[-1]
                assert (last["type"], last["code"], last["retriable"]) == ("error", "TIMEOUT", True)
            assert other.rest()[-1]["tokens_out"] == 50
        worker.wait_health(running=0, waiting=0, kv_usage=0)
