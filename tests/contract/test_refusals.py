"""Contract, section 5: refusals and their codes, and the correlation id on every answer."""

import json
import re

import pytest

UUID4 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")


def check(answer, status, code, retriable=False):
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["code", "message", "retriable"]
    assert (body["code"], body["retriable"]) == (code, retriable)
    assert body["message"]
    assert UUID4.match(answer.headers["x-correlation-id"])


@pytest.mark.parametrize("body", [
    b"", b" ", b"{", b"nul", b"{'a':1}", b'{"job_id":"a",}', b'{"a":NaN}', b'{"a":"\xff"}',
    b'{"a":"\\ud800"}', b'{"a":1}\0', b'{"a":1}{', b"[" * 100_000, b'{"a":' * 10_000,
], ids=lambda x: repr(x[:20]))
def test_a_body_that_is_no_json(worker, body):
    check(worker.request("POST", "/execute", body), 400, "INVALID_JSON")


@pytest.mark.parametrize("body", [b"[]", b"1", b'"a"', b"null"])
def test_a_body_that_is_no_object(worker, body):
    check(worker.request("POST", "/execute", body), 422, "INVALID_FIELD")


@pytest.mark.parametrize("media_type", [
    "text/plain", "", "application/x-www-form-urlencoded", "application/jsonx",
    "multipart/form-data; boundary=x"])
def test_only_json_is_taken(worker, job, media_type):
    for path in ("/execute", "/cancel"):
        answer = worker.request("POST", path, job(), {"Content-Type": media_type})
        check(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_compressed_body_is_not_taken(worker, job):
    check(worker.request("POST", "/execute", job(), {"Content-Encoding": "gzip"}), 415,
          "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("media_type", [
    "application/json", "Application/JSON", "application/json; charset=utf-8",
    "application/json;charset=\"utf-8\""])
def test_media_type_parameters_and_case_do_not_matter(worker, job, media_type):
    with worker.open_execute(job(), {"Content-Type": media_type}) as stream:
        assert stream.status == 200
        assert stream.rest()[-1]["type"] == "end"


def padded(job, size):
    body = json.dumps(job).encode()
    return body[:-1] + b" " * (size - len(body)) + b"}"


def test_a_body_of_exactly_the_limit_is_taken(worker, job):
    with worker.open_execute(padded(job(), 2_097_152)) as stream:
        assert stream.status == 200
        assert stream.rest()[-1]["type"] == "end"


def test_a_body_over_the_limit_is_refused(worker, job):
    check(worker.request("POST", "/execute", padded(job(), 2_097_153)), 413, "PAYLOAD_TOO_LARGE")


def test_a_declared_length_over_the_limit_is_refused_before_the_body(worker):
    with worker.connect() as connection:
        connection.send(b"POST /execute HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\n"
                        b"Content-Length: 99999999999\r\n\r\n")
        check(connection.response(), 413, "PAYLOAD_TOO_LARGE")
        assert connection.closed_by_peer()


def test_chunks_over_the_limit_are_refused(worker):
    with worker.connect() as connection:
        connection.send(b"POST /execute HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            for _ in range(64):
                connection.send(chunk)
        except ConnectionError:
            pass  # refused while the rest was still on its way
        check(connection.response(), 413, "PAYLOAD_TOO_LARGE")
        assert connection.closed_by_peer()


def test_a_chunked_body_is_taken(worker, job):
    body = json.dumps(job()).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7])
                      for i in range(0, len(body), 7)) + b"0\r\n\r\n"
    with worker.open_execute(chunks, {"Transfer-Encoding": "chunked"}) as stream:
        assert stream.status == 200
        assert stream.rest()[-1]["type"] == "end"


@pytest.mark.parametrize("path", ["/", "/nope", "/execute/", "/Execute", "/v2", "/health/x"])
def test_unknown_paths(worker, path):
    for method in ("GET", "POST"):
        check(worker.request(method, path), 404, "NOT_FOUND")


@pytest.mark.parametrize("path,method,allow", [
    ("/execute", "GET", "OPTIONS, POST"), ("/execute", "PUT", "OPTIONS, POST"),
    ("/cancel", "DELETE", "OPTIONS, POST"), ("/shutdown", "GET", "OPTIONS, POST"),
    ("/health", "POST", "GET, HEAD, OPTIONS"), ("/livez", "PUT", "GET, HEAD, OPTIONS"),
    ("/readyz", "PATCH", "GET, HEAD, OPTIONS"), ("/health", "BREW", "GET, HEAD, OPTIONS")])
def test_a_wrong_method_is_told_the_right_ones(worker, path, method, allow):
    answer = worker.request(method, path)
    check(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allow


def test_head_answers_as_get_without_a_body(worker):
    for path in ("/health", "/livez", "/readyz"):
        head = worker.request("HEAD", path)
        assert head.status == 200 and head.body == b""
        assert int(head.headers["content-length"]) > 0
    assert worker.request("HEAD", "/execute").status == 405


def test_options_names_the_methods(worker):
    answer = worker.request("OPTIONS", "/execute")
    assert (answer.status, answer.headers["allow"], answer.body) == (204, "OPTIONS, POST", b"")
    assert worker.request("OPTIONS", "*").status == 204


def test_a_job_id_that_runs_something_else_is_a_conflict(gated, job):
    with gated() as (worker, gate):
        body = job()
        with worker.open_execute(body) as first:
            assert first.status == 200
            check(worker.request("POST", "/execute", {**body, "max_tokens": 5}), 409,
                  "JOB_CONFLICT")
            gate.open()
            assert first.rest()[-1]["type"] == "end"
        with worker.open_execute(job()) as other:
            assert other.rest()[-1]["type"] == "end"


def test_a_full_queue_says_when_to_come_back(gated, job):
    with gated("--max-batch", "1", "--max-queue", "2") as (worker, gate):
        streams, answer = [], None
        for _ in range(8):
            stream = worker.open_execute(job())
            if stream.status != 200:
                answer = stream
                break
            streams.append(stream)
        assert len(streams) == 3 and answer is not None  # one in the batch, two that wait
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) >= 1
        body = json.loads(answer.body())
        assert (body["code"], body["retriable"]) == ("OVERLOADED", True)
        gate.open()
        for stream in streams:
            assert stream.rest()[-1]["type"] == "end"
            stream.close()


def test_every_answer_carries_a_correlation_id(worker, job):
    own = "123E4567-e89b-12d3-a456-426614174000"
    for method, path, body in [("GET", "/health", None), ("GET", "/nope", None),
                               ("PUT", "/execute", None), ("POST", "/execute", b"{"),
                               ("POST", "/execute", {"job_id": 1}), ("HEAD", "/livez", None),
                               ("POST", "/cancel", {"job_id": "nobody"})]:
        assert worker.request(method, path, body, {"X-Correlation-ID": own}).headers[
            "x-correlation-id"] == own
        fresh = {worker.request(method, path, body).headers["x-correlation-id"] for _ in range(3)}
        assert len(fresh) == 3 and all(UUID4.match(x) for x in fresh)
    for bad in ("1", own + "0", own[:-1], "{%s}" % own, own.replace("-", ""), own.replace("1", "g")):
        got = worker.request("GET", "/livez", None, {"X-Correlation-ID": bad})
        assert UUID4.match(got.headers["x-correlation-id"])
    with worker.open_execute(job(), {"x-correlation-id": own}) as stream:
        assert stream.headers["x-correlation-id"] == own
        stream.rest()
    assert worker.wait_event("execute_end", correlation_id=own)
