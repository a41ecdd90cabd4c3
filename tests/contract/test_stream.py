"""Contract, section 5: the event stream of POST /execute, and that it leaves as it is made."""

import json
import re

RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")


def compact(event):
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False)


def test_headers_and_bytes(worker, job):
    body = job(max_tokens=3)
    with worker.open_execute(body) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-cache"
        blocks = []
        while (block := stream.next_block()) is not None:
            blocks.append(block)
    # Nothing but events, each one line of JSON after `data: `, each ended by one blank line.
    assert stream.raw == b"".join(b + b"\n\n" for b in blocks)
    assert all(b.startswith(b"data: {") and b"\n" not in b for b in blocks)
    events = [json.loads(b[6:]) for b in blocks]
    assert [b[6:].decode() for b in blocks if b"." not in b] == [
        compact(e) for e, b in zip(events, blocks) if b"." not in b]
    events = [e for e in events if e["type"] != "metrics"]
    started, tokens, end = events[0], events[1:-1], events[-1]
    assert list(started) == ["type", "job_id", "model", "started_at", "seed", "prompt_tokens",
                             "cached_tokens"]
    assert started["type"] == "started"
    assert started["job_id"] == body["job_id"]
    assert started["model"] == "tiny"
    assert RFC3339.match(started["started_at"])
    assert started["prompt_tokens"] > 0 and started["cached_tokens"] == 0
    for i, token in enumerate(tokens):
        assert list(token) == ["type", "t", "i"]
        assert (token["type"], token["i"]) == ("token", i)
    assert list(end) == ["type", "tokens_out", "decode_time_ms", "stop_reason"]
    assert (end["type"], end["tokens_out"], end["stop_reason"]) == ("end", 3, "MAX_TOKENS")
    assert isinstance(end["decode_time_ms"], int) and end["decode_time_ms"] >= 0


def test_metrics_come_at_most_once_a_second(binary, model, job):
    from worker import Worker
    with Worker(binary, ["--model", model], {"LLORCH_FAKE_STEP_MS": "20"}) as worker:
        timed = worker.execute(job(max_tokens=150))
        vram = worker.health()["vram_bytes"]
    metrics = [(t, e) for t, e in timed if e["type"] == "metrics"]
    assert 1 <= len(metrics) <= timed[-1][0] + 1
    for _, event in metrics:
        assert list(event) == ["type", "tokens_per_sec", "vram_bytes"]
        assert event["tokens_per_sec"] > 0
        assert event["vram_bytes"] == vram
    kinds = [e["type"] for _, e in timed]
    assert kinds[0] == "started" and kinds[-1] == "end"
    assert set(kinds[1:-1]) == {"token", "metrics"}


def test_every_model_token_has_its_event_with_logprobs(worker, job):
    for wanted in (0, 1, 20):
        events = [e for _, e in worker.execute(job(max_tokens=6, logprobs=wanted))]
        tokens = [e for e in events if e["type"] == "token"]
        scored = [e for e in tokens if "logprob" in e]
        assert len(scored) == 6 == events[-1]["tokens_out"]
        assert [e["i"] for e in tokens] == list(range(len(tokens)))
        for token in scored:
            keys = ["type", "t", "i", "id", "logprob"] + (["top_logprobs"] if wanted else [])
            assert list(token) == keys
            assert token["logprob"] <= 0
            if wanted:
                top = token["top_logprobs"]
                assert len(top) == wanted and all(list(x) == ["id", "logprob"] for x in top)
                assert [x["logprob"] for x in top] == sorted((x["logprob"] for x in top),
                                                             reverse=True)
    assert "id" not in worker.execute(job(max_tokens=1))[1][1]


def test_the_first_token_leaves_before_the_second_is_computed(gated, job):
    with gated() as (worker, gate):
        with worker.open_execute(job(max_tokens=3, logprobs=0)) as stream:
            assert stream.status == 200  # on admission: no step has been let through yet
            for i in range(3):
                gate.let(1)  # exactly one step; the next one waits for its byte
                assert stream.until("token")[-1]["i"] == i
            assert stream.rest()[-1]["type"] == "end"


def test_sixteen_requests_interleave_and_health_answers(gated, job):
    with gated() as (worker, gate):
        streams = [worker.open_execute(job(max_tokens=8, logprobs=0)) for _ in range(16)]
        # The engine stands inside a step, waiting for the gate; health does not wait for it.
        health = worker.health()
        assert health["status"] == "healthy"
        assert health["running"] + health["waiting"] == 16
        gate.let(2)  # the first step may have begun with the first request alone
        for stream in streams:
            assert stream.until("token")[0]["type"] == "started"
        # At most two of eight tokens exist for anyone, and everyone has one.
        assert worker.health()["running"] == 16
        gate.open()
        for stream in streams:
            events = stream.rest()
            assert (events[-1]["type"], events[-1]["tokens_out"]) == ("end", 8)
            stream.close()
        worker.wait_health(running=0, waiting=0)


def test_stop_sequences_end_the_stream_and_are_named(worker, job):
    free = [e for _, e in worker.execute(job(max_tokens=30, temperature=0))]
    text = "".join(e["t"] for e in free if e["type"] == "token")
    stop = text[len(text) // 2:len(text) // 2 + 2]
    assert "\ufffd" not in stop and stop
    events = [e for _, e in worker.execute(job(max_tokens=30, temperature=0,
                                                stop=["never there", stop]))]
    end = events[-1]
    assert list(end) == ["type", "tokens_out", "decode_time_ms", "stop_reason",
                         "stop_sequence_matched"]
    assert (end["stop_reason"], end["stop_sequence_matched"]) == ("STOP_SEQUENCE", stop)
    got = "".join(e["t"] for e in events if e["type"] == "token")
    assert got == text[:text.index(stop)]


def test_keepalive_comments_come_only_if_asked(gated, job):
    with gated() as (worker, gate):
        with worker.open_execute(job(keepalive_s=0.02)) as stream:
            assert stream.next()["type"] == "started"
            assert [stream.next_block() for _ in range(3)] == [b": keepalive"] * 3
            gate.open()
            assert stream.rest()[-1]["type"] == "end"


def test_a_connection_serves_on_after_a_stream(worker, job):
    from worker import EventStream, request_bytes
    with worker.connect() as connection:
        for _ in range(3):
            connection.send(request_bytes("POST", "/execute", job()))
            assert EventStream(connection).rest()[-1]["type"] == "end"
            assert connection.request("GET", "/livez").status == 200


def test_requests_sent_ahead_are_answered_in_order(worker, job):
    from worker import EventStream, request_bytes
    with worker.connect() as connection:
        connection.send(request_bytes("POST", "/execute", job()) +
                        request_bytes("GET", "/health") +
                        request_bytes("POST", "/execute", job(max_tokens=2)) +
                        request_bytes("GET", "/nope") + request_bytes("GET", "/livez"))
        assert EventStream(connection).rest()[-1]["tokens_out"] == 4
        assert connection.response().json()["status"] == "healthy"
        assert EventStream(connection).rest()[-1]["tokens_out"] == 2
        assert connection.response().status == 404
        assert connection.response().status == 200


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(worker, job):
    body = json.dumps(job()).encode()
    with worker.connect() as connection:
        connection.send(b"POST /execute HTTP/1.0\r\nContent-Type: application/json\r\n"
                        b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        status, headers = connection.head()
        assert status == 200 and "transfer-encoding" not in headers
        data = b""
        while piece := connection.piece():
            data += piece
    events = [json.loads(block[6:]) for block in data.decode().split("\n\n")[:-1]]
    assert events[0]["type"] == "started" and events[-1]["type"] == "end"
