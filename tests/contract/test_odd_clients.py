"""Bad input on the socket: each gets a typed refusal or a closed connection, others go on."""

import json
import os
import resource
import socket

import pytest

from worker import EventStream, Worker, request_bytes


@pytest.fixture(scope="module")
def busy(binary, model):
    """A worker with a stream under way; at the end that stream must have gone on throughout."""
    with Worker(binary, ["--model", model], {"LLORCH_FAKE_STEP_MS": "20"}) as worker:
        body = {"job_id": "bystander", "prompt": "Once", "max_tokens": 2000, "ignore_eos": True,
                "logprobs": 0}
        with worker.open_execute(body) as stream:
            stream.until("token")
            yield worker
            indices = [stream.until("token")[-1]["i"] for _ in range(20)]
            assert indices == list(range(indices[0], indices[0] + 20))
        assert worker.stop() == 0, worker.stderr


def refused(worker, data, status, code="MALFORMED_REQUEST", end=False):
    with worker.connect() as connection:
        connection.send(data)
        if end:
            connection.sock.shutdown(socket.SHUT_WR)
        answer = connection.response()
        assert (answer.status, answer.json()["code"]) == (status, code), answer.body
        assert answer.headers["x-correlation-id"]
        assert connection.closed_by_peer()


@pytest.mark.parametrize("data", [
    b"\r\n\r\nhello\r\n\r\n", b"GET\r\n\r\n", b"GET /livez\r\n\r\n", b"GET /livez HTTP/9.9\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n", b"GET /livez HTTP/1.1\r\n: empty\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: w\r\na\x00b: c\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b"GET /livez HTTP/1.1\r\n\r\n", b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /execute HTTP/1.1\r\nHost: w\r\nContent-Length: x\r\n\r\n",
    b"POST /execute HTTP/1.1\r\nHost: w\r\nContent-Length: -1\r\n\r\n",
    b"POST /execute HTTP/1.1\r\nHost: w\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /execute HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /execute HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /execute HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /execute HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"fffffffffffffffffff\r\n",
], ids=lambda x: repr(x[:48]))
def test_malformed_requests(busy, data):
    refused(busy, data, 400)


@pytest.mark.parametrize("data", [
    b"GET /li", b"GET /livez HTTP/1.1\r\nHo", b"POST /execute HTTP/1.1\r\nHost: w\r\n"
    b"Content-Length: 100\r\n\r\n{", b"POST /execute HTTP/1.1\r\nHost: w\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"], ids=lambda x: repr(x[-20:]))
def test_half_closed_in_the_middle_of_a_request(busy, data):
    refused(busy, data, 400, end=True)


def test_a_whole_request_from_a_half_closed_client_is_answered(busy):
    with busy.connect() as connection:
        connection.send(request_bytes("GET", "/livez"))
        connection.sock.shutdown(socket.SHUT_WR)
        assert connection.response().status == 200
        assert connection.closed_by_peer()


@pytest.mark.parametrize("head", [
    b"GET /livez HTTP/1.1\r\nHost: w\r\n" + b"".join(b"a%d: b\r\n" % i for i in range(200)),
    b"GET /livez HTTP/1.1\r\nHost: w\r\nx: " + b"y" * 20_000 + b"\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: w\r\n",
    b"GET /livez HTTP/1.1\r\nHost: w\r\n" + b"a: b\r\n" * 10_000,
], ids=["many", "long value", "long target", "flood"])
def test_header_floods(busy, head):
    refused(busy, head + b"\r\n", 431, "HEADERS_TOO_LARGE")


def test_an_endless_header_is_cut_off(busy):
    with busy.connect() as connection:
        connection.send(b"GET /livez HTTP/1.1\r\n")
        try:
            for _ in range(10_000):
                connection.send(b"x" * 4096)
        except ConnectionError:
            pass
        assert connection.closed_by_peer()


def test_a_hundred_headers_are_fine(busy):
    pairs = [("x-%d" % i, "y") for i in range(99)]
    assert busy.request("GET", "/livez", headers=pairs).status == 200


def test_a_request_in_single_bytes(busy, job):
    with busy.connect() as connection:
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request_bytes("POST", "/execute", job(max_tokens=2)):
            connection.send(bytes([byte]))
        assert EventStream(connection).rest()[-1]["type"] == "end"


def test_expect_continue(busy, job):
    body = json.dumps(job(max_tokens=2)).encode()
    head = (b"POST /execute HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n")
    with busy.connect() as connection:
        connection.send(head % len(body))
        assert connection._line() == "HTTP/1.1 100 Continue" and connection._line() == ""
        connection.send(body)
        assert EventStream(connection).rest()[-1]["type"] == "end"
    refused(busy, (head % len(body)).replace(b"/execute", b"/nope"), 404, "NOT_FOUND")
    refused(busy, head % 3_000_000, 413, "PAYLOAD_TOO_LARGE")


def test_connections_that_come_and_go(busy):
    for _ in range(200):
        busy.connect().reset()
        busy.connect().close()
    for _ in range(50):
        connection = busy.connect()
        connection.send(b"POST /execute HTTP/1.1\r\nHost: w\r\nContent-Length: 1000\r\n\r\n{")
        connection.reset()
    assert busy.request("GET", "/livez").status == 200


def test_hundreds_of_open_connections(busy):
    many = [busy.connect() for _ in range(500)]
    assert busy.request("GET", "/livez").status == 200
    for connection in many:
        connection.send(b"GET /livez HTTP/1.1\r\n")
    assert busy.request("GET", "/livez").status == 200
    for connection in many:
        connection.close()


def test_bodies_that_are_read_at_once_share_a_limit(busy, job):
    head = (b"POST /execute HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2097152\r\n\r\n{")
    many = [busy.connect() for _ in range(128)]  # 256 MiB
    for connection in many:
        connection.send(head)
    # A request is refused as soon as all of the others have been seen.
    while True:
        with busy.connect() as connection:
            connection.send(head)
            connection.sock.settimeout(0.2)
            try:
                answer = connection.response()
                break
            except socket.timeout:
                pass
    assert (answer.status, answer.json()["code"]) == (429, "OVERLOADED")
    assert int(answer.headers["retry-after"]) >= 1
    assert busy.request("GET", "/livez").status == 200
    for connection in many:
        connection.close()
    while (stream := busy.open_execute(job(max_tokens=2))).status == 429:
        stream.close()  # not all of the closed ones have been seen yet
    assert stream.rest()[-1]["type"] == "end"
    stream.close()


def test_input_flood_while_streaming_ends_that_stream_alone(busy, job):
    with busy.open_execute(job(max_tokens=1000)) as stream:
        stream.until("token")
        try:
            for _ in range(64):
                stream.connection.send(b"x" * 65536)
        except (ConnectionError, socket.timeout):
            pass
        busy.wait_event("execute_end", outcome="CANCELLED")


@pytest.mark.skipif("undefined" in os.environ.get("LLORCH_SANITIZE", ""),
                    reason="the sanitizer itself needs a descriptor to look at an object's type")
def test_running_out_of_descriptors_hurts_nobody_who_is_there(binary, model, job, tmp_path):
    # The limit is inherited, and soft and hard are the same: the worker cannot raise it.
    script = tmp_path / "few"
    script.write_text("#!/bin/sh\nulimit -n 40\nexec %s \"$@\"\n" % binary)
    script.chmod(0o755)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 200
    with Worker(script, ["--model", model], {"LLORCH_FAKE_STEP_MS": "20"}) as worker:
        with worker.open_execute(job(max_tokens=2000, logprobs=0)) as stream:
            stream.until("token")
            many = [worker.connect() for _ in range(60)]
            worker.wait_event("accept_failed")
            first = stream.until("token")[-1]["i"]
            assert stream.until("token")[-1]["i"] == first + 1
            for connection in many:
                connection.close()
            assert worker.request("GET", "/livez").status == 200
            assert stream.until("token")[-1]["type"] == "token"
