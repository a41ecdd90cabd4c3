"""Contract, section 5: POST /tokenize and /detokenize. Expected ids are the tokenizers library's."""

import json
import threading
import time

import pytest

from worker import Worker, request_bytes

TEXT = "<|user|>Where does Anna live?<|end|>"
IDS = [0, 4, 865, 367, 625, 575, 36, 2]  # Tokenizer.from_file("models/tiny/tokenizer.json")


def refused(answer, status, code):
    assert answer.status == status, answer.body
    body = answer.json()
    assert list(body) == ["code", "message", "retriable"]
    assert (body["code"], body["retriable"]) == (code, False)
    return body["message"]


@pytest.mark.parametrize("body,ids", [
    ({"prompt": TEXT}, IDS),
    ({"content": TEXT}, IDS),
    ({"prompt": TEXT, "add_special": False}, IDS[1:]),
    ({"prompt": "<|user|>Hi", "add_special": False, "parse_special": False},
     [33, 97, 322, 275, 97, 35, 1375]),
    ({"prompt": "Hi \u00e9 \U0001f600\n", "unknown": {"keys": "are ignored"}},
     [0, 1375, 226, 133, 108, 226, 178, 259, 252, 228, 204]),
    ({"prompt": ""}, [0]),
    ({"prompt": "", "add_special": False}, []),
])
def test_tokenize_gives_the_ids_and_their_count(worker, body, ids):
    answer = worker.request("POST", "/tokenize", body)
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["tokens", "count"]
    assert answer.json() == {"tokens": ids, "count": len(ids)}


@pytest.mark.parametrize("ids,content", [
    ([], ""),
    ([0, 4, 1375, 226, 133, 108, 2, 7, 2047], "<|begin|><|user|>Hi \u00e9<|end|>\"Nine"),
    ([133], "\ufffd"),
    ([2147483647, 1375], "Hi"),  # an id that no token has gives no text
])
def test_detokenize_gives_the_text_special_tokens_included(worker, ids, content):
    answer = worker.request("POST", "/detokenize", {"tokens": ids})
    assert (answer.status, answer.json()) == (200, {"content": content})


@pytest.mark.parametrize("path,body,field", [
    ("/tokenize", {}, "prompt"), ("/tokenize", {"prompt": None}, "prompt"),
    ("/tokenize", {"content": 1}, "content"), ("/tokenize", {"prompt": "a", "content": "a"}, "content"),
    ("/tokenize", {"prompt": "a", "add_special": 1}, "add_special"),
    ("/tokenize", {"prompt": "a", "parse_special": "no"}, "parse_special"),
    ("/detokenize", {}, "tokens"), ("/detokenize", {"tokens": "1"}, "tokens"),
    ("/detokenize", {"tokens": [1, -1]}, "tokens[1]"),
    ("/detokenize", {"tokens": [1.5]}, "tokens[0]"),
    ("/detokenize", {"tokens": [2147483648]}, "tokens[0]"),
])
def test_wrong_fields_are_named(worker, path, body, field):
    assert "`%s`" % field in refused(worker.request("POST", path, body), 422, "INVALID_FIELD")


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_what_every_json_path_refuses(worker, path):
    refused(worker.request("POST", path, b"{"), 400, "INVALID_JSON")
    refused(worker.request("POST", path, b"[]"), 422, "INVALID_FIELD")
    refused(worker.request("POST", path, b"{}", {"Content-Type": "text/plain"}), 415,
            "UNSUPPORTED_MEDIA_TYPE")
    refused(worker.request("GET", path), 405, "METHOD_NOT_ALLOWED")


def test_bodies_of_sixteen_mebibytes(worker):
    size = 16 * 1024 * 1024
    body = b'{"prompt":""}'
    answer = worker.request("POST", "/tokenize", body + b" " * (size - len(body)))
    assert (answer.status, answer.json()["count"]) == (200, 1)
    too_large = worker.request("POST", "/tokenize", body + b" " * (size + 1 - len(body)))
    refused(too_large, 413, "PAYLOAD_TOO_LARGE")


def test_a_long_text_keeps_nobody_waiting(worker):
    text = "Once upon a time there was a girl. " * 200_000  # 7 MB
    done = []

    def tokenize():
        answer = worker.request("POST", "/tokenize", {"prompt": text})
        done.append((time.monotonic(), answer.json()["count"]))

    with worker.connect() as connection:
        thread = threading.Thread(target=tokenize)
        thread.start()
        asked = []
        while not done:
            begin = time.monotonic()
            assert connection.request("GET", "/health").status == 200
            asked.append((begin, time.monotonic()))
        thread.join()
    end, count = done[0]
    assert count > 1_000_000
    # While it ran, health was asked over and over, and nobody waited for the text as a whole.
    assert len(asked) > 10
    assert max(after - before for before, after in asked) < 0.5 * (end - asked[0][0])


def test_a_stop_does_not_wait_for_all_long_texts(binary, model):
    with Worker(binary, ["--model", model]) as worker:
        body = json.dumps({"prompt": "Once upon a time " * 300_000})
        connections = [worker.connect() for _ in range(8)]
        for connection in connections:
            connection.send(request_bytes("POST", "/tokenize", body.encode()))
        begin = time.monotonic()
        assert worker.stop() == 0, worker.stderr
        assert time.monotonic() - begin < 30
        for connection in connections:
            connection.close()


def test_too_many_values_are_refused_not_stored(worker):
    body = b'{"tokens":[' + b"1," * (1 << 20) + b"1]}"
    assert "too many values" in refused(worker.request("POST", "/detokenize", body), 400,
                                        "INVALID_JSON")
    many = json.dumps({"tokens": [1375] * 100_000}).encode()
    assert worker.request("POST", "/detokenize", many).json()["content"] == "Hi" * 100_000


# /apply-template, as transformers' apply_chat_template(tokenize=False) does it for models/tiny

MESSAGES = [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": " Where does Anna live? "}]
TURNS = "<|begin|><|system|>Be brief.<|end|><|user|>Where does Anna live?<|end|>"


@pytest.mark.parametrize("fields,prompt", [
    ({}, TURNS + "<|assistant|>"),
    ({"add_generation_prompt": True}, TURNS + "<|assistant|>"),
    ({"add_generation_prompt": False}, TURNS),
    ({"tools": None, "documents": None, "chat_template_kwargs": None}, TURNS + "<|assistant|>"),
    ({"tools": [], "documents": [], "chat_template_kwargs": {"x": 1}}, TURNS + "<|assistant|>"),
    ({"unknown": 1}, TURNS + "<|assistant|>"),
])
def test_apply_template_gives_the_prompt(worker, fields, prompt):
    answer = worker.request("POST", "/apply-template", {"messages": MESSAGES, **fields})
    assert (answer.status, answer.json()) == (200, {"prompt": prompt})


@pytest.mark.parametrize("body,field", [
    ({}, "messages"), ({"messages": None}, "messages"), ({"messages": {}}, "messages"),
    ({"messages": ["a"]}, "messages"), ({"messages": MESSAGES, "tools": {}}, "tools"),
    ({"messages": MESSAGES, "documents": "x"}, "documents"),
    ({"messages": MESSAGES, "add_generation_prompt": None}, "add_generation_prompt"),
    ({"messages": MESSAGES, "chat_template_kwargs": []}, "chat_template_kwargs"),
])
def test_wrong_fields_of_apply_template_are_named(worker, body, field):
    assert "`%s`" % field in refused(worker.request("POST", "/apply-template", body), 422,
                                     "INVALID_FIELD")


def test_what_a_template_refuses_is_a_broken_rule(worker):
    answer = worker.request("POST", "/apply-template",
                            {"messages": [{"role": "wizard", "content": "a"}]})
    assert answer.status == 400
    (error,) = answer.json()["errors"]
    assert list(error) == ["field", "constraint", "message"]
    assert (error["field"], error["constraint"]) == ("messages", "chat_template")
    assert "unknown role: wizard" in error["message"]
