"""Contract, section 5, "Repeats and resume": one generation for each job, and no event lost."""

import contextlib
import json
import threading
import time

import pytest

from worker import EventStream, Worker, request_bytes


def data_lines(raw):
    """The `data:` lines of a stream's body."""
    return [line for line in raw.split(b"\n") if line.startswith(b"data: ")]


def read_all(stream):
    """The `data:` lines of the whole stream; it must have been accepted."""
    assert stream.status == 200, (stream.status, stream.body())
    with stream:
        stream.rest()
        return data_lines(stream.raw)


def one_generation(worker, body, readers=None):
    """The log has one execution of this job, which ended well."""
    end = worker.wait_event("execute_end", job_id=body["job_id"], outcome="MAX_TOKENS")
    starts = worker.events("execute_start", job_id=body["job_id"])
    ends = [e for e in worker.events("execute_end", job_id=body["job_id"]) if "attached" not in e]
    assert len(starts) == len(ends) == 1, (starts, ends)
    assert readers is None or ends[0]["readers"] == readers
    return end


@pytest.fixture(scope="module")
def resuming(binary, model):
    """A worker with 10 ms a step and short times."""
    with Worker(binary, ["--model", model, "--result-retention", "2", "--resume-grace", "1"],
                {"LLORCH_FAKE_STEP_MS": "10"}) as worker:
        yield worker
        assert worker.stop() == 0, worker.stderr


def test_a_repeat_attaches_and_reads_the_same_bytes(gated, job):
    with gated() as (worker, gate):
        body = job(max_tokens=8, logprobs=3)
        first = worker.open_execute(body)
        gate.let(3)
        first.until("token")
        first.until("token")
        second = worker.open_execute(body)
        assert second.status == 200
        assert [e["type"] for e in second.until("token")] == ["started", "token"]
        gate.open()
        lines = read_all(first)
        assert read_all(second) == lines
        assert read_all(worker.open_execute(body)) == lines
        assert len(lines) == 10
        one_generation(worker, body, readers=2)
        # Each of the others has a line of its own.
        other = worker.wait_event("execute_end", attached=True,
                                  correlation_id=second.headers["x-correlation-id"])
        assert (other["outcome"], other["events"], other["from_event"]) == ("MAX_TOKENS", 10, 0)


def test_bodies_are_compared_as_what_they_ask(gated, job):
    with gated() as (worker, gate):
        body = job()
        reordered = {"unknown": [1], "seed": None, **dict(reversed(list(body.items()))),
                     "temperature": 1.0, "stop": []}
        first = worker.open_execute(body)
        second = worker.open_execute(json.dumps(reordered, indent=3).encode())
        for other in ({"seed": 1}, {"prompt": "Once"}, {"max_tokens": 3}, {"stop": ["x"]},
                      {"temperature": 0.5}, {"stream_resume": True}, {"logprobs": 0}):
            answer = worker.request("POST", "/execute", {**body, **other})
            assert (answer.status, answer.json()["code"]) == (409, "JOB_CONFLICT"), other
        gate.open()
        assert read_all(first) == read_all(second)
        # Once it has ended, another body is another job.
        lines = read_all(worker.open_execute({**body, "max_tokens": 3}))
        assert json.loads(lines[-1][6:])["tokens_out"] == 3


def test_a_hundred_repeats_at_once_are_one_generation(binary, model, job):
    with Worker(binary, ["--model", model, "--max-batch", "1", "--max-queue", "0"],
                {"LLORCH_FAKE_STEP_MS": "2"}) as worker:
        body = job(max_tokens=30)
        answers, errors = [], []

        def repeat():
            try:
                answers.append(read_all(worker.open_execute(body)))
            except BaseException as error:  # noqa: B902 - told by the test's own thread
                errors.append(error)

        threads = [threading.Thread(target=repeat) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(answers) == 100 and all(a == answers[0] for a in answers)
        one_generation(worker, body)


def test_cancelled_jobs_run_anew(gated, job):
    with gated() as (worker, gate):
        body = job(max_tokens=8)
        with worker.open_execute(body) as first:
            gate.let(2)
            first.until("token")
            assert worker.request("POST", "/cancel", {"job_id": body["job_id"]}).status == 202
            gate.open()
            assert first.rest()[-1]["code"] == "CANCELLED"
        assert json.loads(read_all(worker.open_execute(body))[-1][6:])["tokens_out"] == 8
        worker.wait_event("execute_end", job_id=body["job_id"], outcome="MAX_TOKENS")
        assert len(worker.events("execute_start", job_id=body["job_id"])) == 2


def test_a_client_that_asks_again_at_once_has_a_job_of_its_own(gated, job):
    with gated() as (worker, gate):
        body = job(max_tokens=8)
        first = worker.open_execute(body)
        gate.let(2)
        first.until("token")
        first.connection.reset()  # the engine stands inside a step: it has not seen that
        worker.request("GET", "/health")
        second = worker.open_execute(body)
        gate.open()
        assert json.loads(read_all(second)[-1][6:])["type"] == "end"


def test_cancel_ends_a_job_for_all_its_readers(gated, job):
    with gated() as (worker, gate):
        body = job(max_tokens=100)
        streams = [worker.open_execute(body) for _ in range(3)]
        gate.let(2)
        for stream in streams:
            stream.until("token")
        assert worker.request("POST", "/cancel", {"job_id": body["job_id"]}).status == 202
        gate.open()
        for stream in streams:
            assert stream.rest()[-1]["code"] == "CANCELLED"
            stream.close()
        assert worker.request("POST", "/cancel", {"job_id": body["job_id"]}).status == 202


def test_the_last_reader_that_leaves_ends_the_job(gated, job):
    with gated() as (worker, gate):
        body = job(max_tokens=1000)
        streams = [worker.open_execute(body) for _ in range(3)]
        gate.let(2)
        for stream in streams:
            stream.until("token")
        streams[0].close()
        streams[2].connection.reset()
        gate.let(2)
        streams[1].until("token")
        streams[1].close()
        gate.open()
        line = worker.wait_event("execute_end", job_id=body["job_id"], readers=3)
        assert line["outcome"] == "CANCELLED" and line["tokens_out"] < 1000
        worker.wait_health(running=0, kv_usage=0)


def test_ids_come_only_if_asked_and_count_all_events(worker, job):
    body = job(max_tokens=3, logprobs=0, stream_resume=True)
    with worker.open_execute(body) as stream:
        blocks = []
        while (block := stream.next_block()) is not None:
            blocks.append(block)
    assert len(blocks) == 5
    for i, block in enumerate(blocks):
        assert block.startswith(b"id: %d\ndata: {" % i) and block.count(b"\n") == 1
    with worker.open_execute(job(max_tokens=3)) as stream:
        stream.rest()
        assert stream.ids == [] and b"id:" not in stream.raw


def test_resume_at_every_cut_gives_every_event_once(worker, job):
    body = job(max_tokens=12, logprobs=0, stream_resume=True)
    lines = read_all(worker.open_execute(body))
    assert len(lines) == 14
    for cut in range(1, len(lines) + 1):
        with worker.open_execute(body, {"Last-Event-ID": str(cut - 1)}) as stream:
            assert stream.status == 200
            stream.rest()
            assert lines[:cut] + data_lines(stream.raw) == lines
            assert stream.ids == list(range(cut, len(lines)))
    one_generation(worker, body)


def test_a_connection_serves_on_after_a_resume_with_nothing_left(worker, job):
    body = job(stream_resume=True, max_tokens=2, logprobs=0)
    read_all(worker.open_execute(body))
    with worker.connect() as connection:
        connection.send(request_bytes("POST", "/execute", body, {"Last-Event-ID": "3"}))
        stream = EventStream(connection)
        assert (stream.status, stream.rest()) == (200, [])
        assert connection.request("GET", "/livez").status == 200


def test_a_stream_cut_again_and_again_loses_nothing(resuming, job):
    body = job(max_tokens=60, logprobs=0, stream_resume=True)
    lines, headers = [], {}
    for _ in range(100):
        stream = resuming.open_execute(body, headers)
        assert stream.status == 200, stream.body()
        while (event := stream.next()) is not None:
            lines.append(b"data: " + stream.raw.split(b"data: ")[len(stream.ids)].split(b"\n")[0])
            if event["type"] == "end" or len(stream.ids) == 7:
                break
        headers = {"Last-Event-ID": str(stream.ids[-1])}
        getattr(stream.connection, "reset" if len(lines) % 2 else "close")()
        if event["type"] == "end":
            break
    events = [json.loads(line[6:]) for line in lines]
    assert [e["i"] for e in events if e["type"] == "token"] == list(range(60))
    assert lines == read_all(resuming.open_execute(body))
    one_generation(resuming, body)


def test_the_grace_passes(resuming, job):
    body = job(max_tokens=2000, stream_resume=True)
    with resuming.open_execute(body) as stream:
        stream.until("token")
    begin = time.monotonic()
    line = resuming.wait_event("execute_end", job_id=body["job_id"])
    assert line["outcome"] == "CANCELLED"
    assert time.monotonic() - begin >= 0.9
    resuming.wait_health(running=0, kv_usage=0)
    answer = resuming.request("POST", "/execute", body, {"Last-Event-ID": "1"})
    assert (answer.status, answer.json()["code"]) == (404, "NOT_FOUND")


def test_an_answer_is_kept_for_the_retention(resuming, job):
    body = job(max_tokens=2)
    lines = read_all(resuming.open_execute(body))
    assert read_all(resuming.open_execute(body)) == lines
    cancel = {"job_id": body["job_id"]}
    assert resuming.request("POST", "/cancel", cancel).status == 202
    end = time.monotonic() + 30
    while resuming.request("POST", "/cancel", cancel).status == 202:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert resuming.request("POST", "/execute", body, {"Last-Event-ID": "0"}).status == 404
    assert read_all(resuming.open_execute(body)) != lines  # another seed, another time


def test_nothing_is_kept_if_that_is_off(binary, model, job):
    with Worker(binary, ["--model", model, "--result-retention", "0"]) as worker:
        body = job()
        assert read_all(worker.open_execute(body)) != read_all(worker.open_execute(body))
        assert worker.stop() == 0
        assert len(worker.events("execute_start", job_id=body["job_id"])) == 2


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "0x1", "1 2", "18446744073709551616"])
def test_a_malformed_event_id(worker, job, value):
    body = job(stream_resume=True)
    read_all(worker.open_execute(body))
    answer = worker.request("POST", "/execute", body, {"Last-Event-ID": value})
    assert (answer.status, answer.json()["code"]) == (422, "INVALID_FIELD")
    assert "Last-Event-ID" in answer.json()["message"]


def test_what_cannot_be_resumed(gated, job):
    with gated() as (worker, gate):
        body = job(stream_resume=True, logprobs=0)
        answer = worker.request("POST", "/execute", body, {"Last-Event-ID": "0"})
        assert (answer.status, answer.json()["code"]) == (404, "NOT_FOUND")
        with worker.open_execute(body) as first:
            gate.let(2)
            first.until("token")
            for number in (3, 50, 2**64 - 1):
                answer = worker.request("POST", "/execute", body, {"Last-Event-ID": str(number)})
                assert (answer.status, answer.json()["code"]) == (422, "INVALID_FIELD"), number
            gate.open()
            first.rest()
        for number in (6, 2**64 - 1):
            answer = worker.request("POST", "/execute", body, {"Last-Event-ID": str(number)})
            assert (answer.status, answer.json()["code"]) == (422, "INVALID_FIELD"), number


def test_openai_paths_have_no_repeats(gated, worker):
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 3, "stream": True}
    answer = worker.request("POST", "/v1/completions", body, {"Last-Event-ID": "0"})
    assert answer.status == 400 and "Last-Event-ID" in answer.json()["error"]["message"]
    with gated() as (own, gate), own.connect() as connection:
        connection.send(request_bytes("POST", "/v1/completions", body))
        connection.head()
        gate.let(2)
        piece = connection.piece()
        job_id = json.loads(piece[len(b"data: "):].split(b"\n")[0])["id"]
        answer = own.request("POST", "/execute",
                             {"job_id": job_id, "prompt": "Once", "max_tokens": 3})
        assert (answer.status, answer.json()["code"]) == (409, "JOB_CONFLICT")
        gate.open()


@contextlib.contextmanager
def asked_to_stop(worker):
    assert worker.request("POST", "/shutdown").status == 202
    yield
    assert worker.wait() == 0, worker.stderr


def test_a_running_job_can_be_attached_to_while_draining(gated, job):
    with gated() as (worker, gate):
        body = job(max_tokens=8, stream_resume=True)
        first = worker.open_execute(body)
        gate.let(2)
        first.until("token")
        with asked_to_stop(worker):
            answer = worker.request("POST", "/execute", job())
            assert (answer.status, answer.json()["code"]) == (503, "UNAVAILABLE")
            first.close()
            second = worker.open_execute(body, {"Last-Event-ID": "0"})
            assert second.status == 200
            gate.open()
            assert second.rest()[-1]["type"] == "end"
            second.close()


def test_a_drain_waits_for_a_job_without_readers_but_not_for_its_grace(binary, model, job):
    with Worker(binary, ["--model", model], {"LLORCH_FAKE_STEP_MS": "10"}) as worker:
        body = job(max_tokens=40, stream_resume=True)
        with worker.open_execute(body) as stream:
            stream.until("token")
        begin = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - begin < 30  # the grace is 60 s
        one_generation(worker, body)


def test_a_slow_reader_is_cut_off_alone(binary, model, job):
    # Steps take a while, so that this process keeps up where it wants to.
    with Worker(binary, ["--model", model], {"LLORCH_FAKE_STEP_MS": "1"}) as worker:
        body = job(max_tokens=2000, logprobs=20, stream_resume=True)
        sleeper = worker.open_execute(body, receive_buffer=4096)
        with worker.open_execute(body) as quick:
            lines = read_all(quick)
        assert json.loads(lines[-1][6:])["type"] == "end"
        events = sleeper.rest()
        sleeper.close()
        assert (events[-1]["type"], events[-1]["code"]) == ("error", "INFERENCE_FAILED")
        # That event is no event of the job: it has no id, and the client can go on behind it.
        assert len(sleeper.ids) == len(events) - 1
        with worker.open_execute(body, {"Last-Event-ID": str(sleeper.ids[-1])}) as rest:
            rest.rest()
            assert data_lines(sleeper.raw)[:-1] + data_lines(rest.raw) == lines
