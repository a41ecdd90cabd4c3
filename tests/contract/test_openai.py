"""Contract, section 5: OpenAI's paths. Shapes are those of OpenAI's published API reference."""

import json
import re
import time

import pytest

from worker import EventStream, request_bytes

PROMPT = "Once upon a time"
UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def completion(**fields):
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 8, "temperature": 0,
            "ignore_eos": True, **fields}
    return {k: v for k, v in body.items() if v != "absent"}


def ask(worker, body, path="/v1/completions"):
    return worker.request("POST", path, body)


def answered(worker, **fields):
    answer = ask(worker, completion(**fields))
    assert answer.status == 200, answer.body
    return answer.json()


def refused(answer, status, code, param=None, kind="invalid_request_error"):
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert UUID.match(answer.headers["x-correlation-id"])
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["param"], error["code"]) == (kind, param, code)
    assert error["message"]
    return error["message"]


def chunks(worker, body, path="/v1/completions"):
    """The parsed chunks of a stream, and its head."""
    with worker.connect() as connection:
        connection.send(request_bytes("POST", path, body))
        stream = EventStream(connection)
        assert stream.status == 200, stream.body()
        blocks = []
        while (block := stream.next_block()) is not None:
            assert block.startswith(b"data: ") and b"\n" not in block
            blocks.append(block[6:])
        # The connection can be used again.
        assert connection.request("GET", "/livez").status == 200
    assert blocks[-1] == b"[DONE]"
    return [json.loads(b) for b in blocks[:-1]], stream.headers


# Models


def test_the_model_is_listed(worker):
    before = worker.request("GET", "/v1/models").json()
    assert list(before) == ["object", "data"] and before["object"] == "list"
    (model,) = before["data"]
    assert list(model) == ["id", "object", "created", "owned_by"]
    assert (model["id"], model["object"]) == ("tiny", "model")
    assert abs(model["created"] - time.time()) < 3600
    for path in ("/v1/models/tiny", "/v1/models/t%69ny"):
        assert worker.request("GET", path).json() == model
    for path in ("/v1/models/other", "/v1/models/", "/v1/models/tiny/x", "/v1/models/tiny%"):
        refused(worker.request("GET", path), 404, "model_not_found", "model")
    assert worker.request("HEAD", "/v1/models").status == 200


# Completions


def test_a_completion_in_one_piece(worker):
    with worker.connect() as connection:
        for _ in range(2):  # keep-alive
            answer = connection.request("POST", "/v1/completions", completion())
            assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["id", "object", "created", "model", "system_fingerprint", "choices",
                          "usage"]
    assert re.match(r"^cmpl-[0-9a-f]{32}$", body["id"])
    assert (body["object"], body["model"]) == ("text_completion", "tiny")
    assert abs(body["created"] - time.time()) < 60
    assert body["system_fingerprint"].startswith("fp_")
    (choice,) = body["choices"]
    assert list(choice) == ["index", "text", "logprobs", "finish_reason"]
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    prompt_tokens = worker.request("POST", "/tokenize", {"prompt": PROMPT}).json()["count"]
    assert body["usage"] == {
        "prompt_tokens": prompt_tokens, "completion_tokens": 8, "total_tokens": prompt_tokens + 8,
        "prompt_tokens_details": {"cached_tokens": 0}}
    # The same tokens as /execute.
    events = [e for _, e in worker.execute({"job_id": body["id"], "prompt": PROMPT,
                                            "max_tokens": 8, "ignore_eos": True,
                                            "temperature": 0})]
    assert choice["text"] == "".join(e["t"] for e in events if e["type"] == "token")


def test_a_completion_as_a_stream(worker):
    whole = answered(worker)
    parts, headers = chunks(worker, completion(stream=True))
    assert headers["content-type"] == "text/event-stream"
    assert UUID.match(headers["x-correlation-id"])
    assert len({p["id"] for p in parts}) == 1
    for part in parts:
        assert list(part) == ["id", "object", "created", "model", "system_fingerprint", "choices"]
        assert part["object"] == "text_completion"
        assert part["system_fingerprint"] == whole["system_fingerprint"]
        (choice,) = part["choices"]
        assert list(choice) == ["index", "text", "logprobs", "finish_reason"]
    reasons = [p["choices"][0]["finish_reason"] for p in parts]
    assert reasons[:-1] == [None] * (len(parts) - 1) and reasons[-1] == "length"
    assert "".join(p["choices"][0]["text"] for p in parts) == whole["choices"][0]["text"]


def test_a_stream_with_usage(worker):
    parts, _ = chunks(worker, completion(stream=True, stream_options={"include_usage": True}))
    assert all(p["usage"] is None and len(p["choices"]) == 1 for p in parts[:-1])
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"] == answered(worker)["usage"]


def test_stop_sequences_end_the_text_and_are_not_in_it(worker):
    text = answered(worker)["choices"][0]["text"]
    stop = text[len(text) // 2:len(text) // 2 + 2]
    for value in (stop, [stop], ["not there", stop]):
        for stream in (False, True):
            if stream:
                parts, _ = chunks(worker, completion(stop=value, stream=True))
                got = "".join(p["choices"][0]["text"] for p in parts)
                reason = parts[-1]["choices"][0]["finish_reason"]
            else:
                choice = answered(worker, stop=value)["choices"][0]
                got, reason = choice["text"], choice["finish_reason"]
            assert (got, reason) == (text[:text.index(stop)], "stop")


def test_prompts_as_tokens(worker):
    ids = worker.request("POST", "/tokenize", {"prompt": PROMPT}).json()["tokens"]
    text = answered(worker)["choices"][0]["text"]
    for prompt in (ids, [ids], [PROMPT]):
        body = answered(worker, prompt=prompt)
        assert body["choices"][0]["text"] == text
        assert body["usage"]["prompt_tokens"] == len(ids)
    echoed = answered(worker, prompt=ids, echo=True)["choices"][0]["text"]
    assert echoed == "<|begin|>" + PROMPT + text


def test_echo_repeats_the_prompt(worker):
    text = answered(worker)["choices"][0]["text"]
    assert answered(worker, echo=True)["choices"][0]["text"] == PROMPT + text
    parts, _ = chunks(worker, completion(echo=True, stream=True))
    assert "".join(p["choices"][0]["text"] for p in parts) == PROMPT + text


def test_no_limit_is_the_rest_of_the_context(worker):
    body = answered(worker, max_tokens="absent")
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["total_tokens"] == worker.health()["context_length"]


# What is refused


def test_another_model_is_not_found(worker):
    message = refused(ask(worker, completion(model="gpt-4o")), 404, "model_not_found", "model")
    assert "`gpt-4o`" in message
    refused(ask(worker, completion(model="absent")), 400, "missing_required_parameter", "model")


@pytest.mark.parametrize("field,value,neutral", [
    ("n", 2, 1), ("best_of", 3, 1), ("suffix", "x", ""), ("logit_bias", {"5": 1}, {}),
    ("frequency_penalty", 0.5, 0), ("presence_penalty", -1, 0.0)])
def test_fields_that_are_not_there_yet(worker, field, value, neutral):
    message = refused(ask(worker, completion(**{field: value})), 400, "unsupported_parameter", field)
    assert "'%s'" % field in message
    for harmless in (neutral, None):
        assert ask(worker, completion(**{field: harmless})).status == 200


def test_fields_that_do_not_exist_are_named(worker):
    message = refused(ask(worker, completion(max_token=1)), 400, "unknown_parameter", "max_token")
    assert message == "Unknown parameter: 'max_token'."
    assert ask(worker, completion(user="me", seed=None, stop=None, stream=None)).status == 200


@pytest.mark.parametrize("field,value,code", [
    ("temperature", 2.1, "decimal_above_max_value"), ("temperature", -0.1, "decimal_below_min_value"),
    ("temperature", "1", "invalid_type"), ("top_p", 1.5, "decimal_above_max_value"),
    ("min_p", -1, "decimal_below_min_value"), ("repetition_penalty", 3, "decimal_above_max_value"),
    ("max_tokens", 0, "integer_below_min_value"), ("max_tokens", 1.5, "invalid_type"),
    ("logprobs", 6, "integer_above_max_value"), ("logprobs", True, "invalid_type"),
    ("top_k", -1, "integer_below_min_value"), ("priority", -101, "integer_below_min_value"),
    ("priority", 101, "integer_above_max_value"), ("priority", 0.5, "invalid_type"), ("seed", "x", "invalid_type"),
    ("stop", ["a"] * 5, "array_above_max_length"), ("stop", "", "empty_string"),
    ("stop", 1, "invalid_type"), ("stream", 1, "invalid_type"), ("echo", 1, "invalid_type"),
    ("prompt", [], "empty_array"), ("prompt", {}, "invalid_type"),
    ("prompt", "absent", "missing_required_parameter"),
    ("prompt", ["a", "b"], "unsupported_parameter"), ("prompt", [[1], [2]], "unsupported_parameter"),
    ("stream_options", {"include_usage": True}, "invalid_parameter_combination")])
def test_values_out_of_range_are_named(worker, field, value, code):
    refused(ask(worker, completion(**{field: value})), 400, code, field)


def test_elements_are_named(worker):
    refused(ask(worker, completion(prompt=[1, "a"])), 400, "invalid_type", "prompt[1]")
    refused(ask(worker, completion(prompt=[["a"]])), 400, "invalid_type", "prompt[0]")
    refused(ask(worker, completion(stop=["a", 1])), 400, "invalid_type", "stop[1]")
    refused(ask(worker, completion(stream=True, stream_options={"x": 1})), 400,
            "unknown_parameter", "stream_options.x")
    refused(ask(worker, completion(echo=True, logprobs=1)), 400, "unsupported_parameter", "echo")
    message = refused(ask(worker, completion(prompt=[1, 1 << 20])), 400, "invalid_value", "prompt")
    assert str(1 << 20) in message


def test_beyond_the_context(worker):
    context = worker.health()["context_length"]
    tokens = worker.request("POST", "/tokenize", {"prompt": PROMPT}).json()["count"]
    message = refused(ask(worker, completion(max_tokens=context - tokens + 1)), 400,
                      "context_length_exceeded", "prompt")
    for number in (context, context + 1, tokens, context - tokens + 1):
        assert str(number) in message
    long = refused(ask(worker, completion(prompt="a " * 2 * context, max_tokens="absent")), 400,
                   "context_length_exceeded", "prompt")
    assert str(context) in long
    assert ask(worker, completion(max_tokens=context - tokens)).status == 200


def test_what_every_path_refuses_comes_in_the_envelope(worker):
    path = "/v1/completions"
    refused(ask(worker, b"{"), 400, None)
    refused(ask(worker, b"[]"), 400, "invalid_type")
    refused(worker.request("POST", path, b"{}", {"Content-Type": "text/plain"}), 415,
            "unsupported_content_type")
    refused(worker.request("POST", path, completion(), {"X-Deadline-Ms": "soon"}), 400, None)
    answer = worker.request("GET", path)
    refused(answer, 405, "method_not_supported")
    assert answer.headers["allow"] == "OPTIONS, POST"
    for other in ("/v1", "/v1/", "/v1/embeddings", "/v1/completions/x"):
        refused(worker.request("POST", other, b"{}"), 404, "unknown_url")


def test_a_body_over_sixteen_mebibytes(worker):
    size = 16 * 1024 * 1024
    body = json.dumps(completion()).encode()
    assert ask(worker, body + b" " * (size - len(body))).status == 200
    refused(ask(worker, body + b" " * (size + 1 - len(body))), 413, "request_too_large")


def test_a_declared_length_over_the_limit_is_refused_before_the_body(worker):
    with worker.connect() as connection:
        connection.send(b"POST /v1/completions HTTP/1.1\r\nHost: w\r\nExpect: 100-continue\r\n"
                        b"Content-Type: application/json\r\nContent-Length: 16777217\r\n\r\n")
        # Nothing before it: no 100 Continue.
        while b"\r\n" not in connection.buffer:
            connection.buffer += connection.sock.recv(100)
        assert connection.buffer.startswith(b"HTTP/1.1 413 ")
        refused(connection.response(), 413, "request_too_large")


# Life


def test_a_full_queue(gated):
    with gated("--max-batch", "1", "--max-queue", "0") as (worker, gate):
        with worker.connect() as first:
            first.send(request_bytes("POST", "/v1/completions", completion()))
            worker.wait_health(waiting=0, running=1)
            answer = ask(worker, completion())
            refused(answer, 429, "rate_limit_exceeded", kind="requests")
            assert int(answer.headers["retry-after"]) >= 1
            gate.open()
            assert first.response().status == 200


def test_loading_and_draining(gated):
    with gated(wait_ready=False) as (worker, gate):
        worker.wait_event("listening")
        answer = ask(worker, completion())
        refused(answer, 503, "model_loading", kind="server_error")
        assert int(answer.headers["retry-after"]) >= 1
        refused(worker.request("GET", "/v1/models"), 503, "model_loading", kind="server_error")
        gate.open()
        worker.wait_event("ready")
        gate.shut()
        with worker.connect() as running:
            running.send(request_bytes("POST", "/v1/completions", completion()))
            worker.wait_health(running=1)
            worker.request("POST", "/shutdown")
            refused(ask(worker, completion()), 503, "service_unavailable", kind="server_error")
            gate.open()
            assert running.response().status == 200
        assert worker.wait() == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_closed_socket_cancels(gated, stream, leave):
    with gated() as (worker, gate):
        connection = worker.connect()
        connection.send(request_bytes("POST", "/v1/completions",
                                      completion(max_tokens=1000, stream=stream)))
        worker.wait_health(running=1)
        gate.let(3)
        getattr(connection, leave)()
        while not worker.events("execute_end"):  # some steps before the worker sees it
            gate.let(1)
            time.sleep(0.01)
        assert worker.events("execute_end")[0]["outcome"] == "CANCELLED"
        gate.open()
        worker.wait_health(running=0, waiting=0, kv_usage=0)


def test_a_job_can_be_cancelled_by_the_id_of_its_chunks(gated):
    with gated() as (worker, gate):
        with worker.connect() as connection:
            body = completion(max_tokens=1000, stream=True)
            connection.send(request_bytes("POST", "/v1/completions", body))
            gate.let(3)
            stream = EventStream(connection)
            job_id = stream.next()["id"]
            assert worker.request("POST", "/cancel", {"job_id": job_id}).status == 202
            gate.open()
            rest = []
            while (block := stream.next_block()) is not None:
                rest.append(block)
        error = json.loads(rest[-1][6:])["error"]
        assert (error["code"], error["type"]) == ("cancelled", "server_error")


def test_a_failure_in_one_piece_has_a_status(binary, model):
    from worker import Worker
    with Worker(binary, ["--model", model, "--request-timeout", "1"],
                {"LLORCH_FAKE_STEP_MS": "50"}) as worker:
        answer = ask(worker, completion(max_tokens=1000))
        refused(answer, 503, "timeout", kind="server_error")


def test_nothing_of_a_text_is_logged(worker):
    ask(worker, completion(prompt="xyzzy-prompt"))
    assert "xyzzy" not in worker.stdout
    assert worker.events("execute_end")[-1]["tokens_out"] == 8
