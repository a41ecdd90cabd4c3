"""Contract, section 5: /v1/chat/completions. Shapes are those of OpenAI's published API reference."""

import contextlib
import json
import pathlib
import re
import shutil
import time

import pytest

from test_openai import chunks, refused
from worker import Worker

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Where does Anna live?"}]
PROMPT = "<|begin|><|user|>Where does Anna live?<|end|><|assistant|>"


def chat(**fields):
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 8, "temperature": 0,
            "ignore_eos": True, **fields}
    return {k: v for k, v in body.items() if v != "absent"}


def answered(worker, **fields):
    answer = worker.request("POST", PATH, chat(**fields))
    assert answer.status == 200, answer.body
    return answer.json()


def text_of(worker, **fields):
    return answered(worker, **fields)["choices"][0]["message"]["content"]


def test_a_chat_in_one_piece(worker):
    body = answered(worker)
    assert list(body) == ["id", "object", "created", "model", "service_tier", "system_fingerprint",
                          "choices", "usage"]
    assert re.match(r"^chatcmpl-[0-9a-f]{32}$", body["id"])
    assert (body["object"], body["model"]) == ("chat.completion", "tiny")
    (choice,) = body["choices"]
    assert list(choice) == ["index", "message", "logprobs", "finish_reason"]
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    message = choice["message"]
    assert list(message) == ["role", "content", "refusal", "annotations"]
    assert (message["role"], message["refusal"], message["annotations"]) == ("assistant", None, [])
    # The template's text, special tokens parsed and none added: what /tokenize makes of it.
    ids = worker.request("POST", "/tokenize", {"prompt": PROMPT, "add_special": False}).json()
    assert body["usage"] == {
        "prompt_tokens": ids["count"], "completion_tokens": 8, "total_tokens": ids["count"] + 8,
        "prompt_tokens_details": {"cached_tokens": 0}}
    raw = worker.request("POST", "/v1/completions", {
        "model": "tiny", "prompt": ids["tokens"], "max_tokens": 8, "temperature": 0,
        "ignore_eos": True}).json()
    assert message["content"] == raw["choices"][0]["text"]


def test_a_chat_as_a_stream(worker):
    parts, headers = chunks(worker, chat(stream=True), PATH)
    assert headers["content-type"] == "text/event-stream"
    assert len({(p["id"], p["created"]) for p in parts}) == 1
    for part in parts:
        assert list(part) == ["id", "object", "created", "model", "service_tier",
                              "system_fingerprint", "choices"]
        assert part["object"] == "chat.completion.chunk"
        (choice,) = part["choices"]
        assert list(choice) == ["index", "delta", "logprobs", "finish_reason"]
    deltas = [p["choices"][0]["delta"] for p in parts]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert all(list(d) == ["content"] for d in deltas[1:-1]) and deltas[-1] == {}
    reasons = [p["choices"][0]["finish_reason"] for p in parts]
    assert reasons == [None] * (len(parts) - 1) + ["length"]
    assert "".join(d["content"] for d in deltas[1:-1]) == text_of(worker)


def test_a_stream_with_usage(worker):
    parts, _ = chunks(worker, chat(stream=True, stream_options={"include_usage": True}), PATH)
    assert all(p["usage"] is None for p in parts[:-1])
    assert (parts[-1]["choices"], parts[-1]["usage"]) == ([], answered(worker)["usage"])


def test_logprobs_of_a_chat(worker):
    for top in ("absent", 0, 3):
        choice = answered(worker, logprobs=True, top_logprobs=top)["choices"][0]
        assert list(choice["logprobs"]) == ["content", "refusal"]
        tokens = choice["logprobs"]["content"]
        assert len(tokens) == 8
        for token in tokens:
            assert list(token) == ["token", "logprob", "bytes", "top_logprobs"]
            assert len(token["top_logprobs"]) == (0 if top == "absent" else top)
            for one in token["top_logprobs"]:
                assert list(one) == ["token", "logprob", "bytes"]
                assert one["logprob"] <= 0
        parts, _ = chunks(worker, chat(logprobs=True, top_logprobs=top, stream=True), PATH)
        streamed = [t for p in parts for t in (p["choices"][0]["logprobs"] or {"content": []})["content"]]
        assert streamed == tokens
    refused(worker.request("POST", PATH, chat(top_logprobs=1)), 400,
            "invalid_parameter_combination", "top_logprobs")
    refused(worker.request("POST", PATH, chat(logprobs=True, top_logprobs=21)), 400,
            "integer_above_max_value", "top_logprobs")


@pytest.mark.parametrize("content", [
    [{"type": "text", "text": "Where does Anna live?"}],
    [{"type": "text", "text": "Where does Anna live?", "prompt_cache_breakpoint": None}]])
def test_text_parts_are_text(worker, content):
    assert text_of(worker, messages=[{"role": "user", "content": content}]) == text_of(worker)


def test_parts_are_lines(worker):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert text_of(worker, messages=[{"role": "user", "content": parts}]) == text_of(
        worker, messages=[{"role": "user", "content": "a\nb"}])


def test_an_answer_can_be_sent_back(worker):
    answer = answered(worker)["choices"][0]["message"]
    more = MESSAGES + [{**answer, "tool_calls": None, "function_call": None, "audio": None},
                       {"role": "user", "content": "And Tom?", "name": None}]
    plain = MESSAGES + [{"role": "assistant", "content": answer["content"]},
                        {"role": "user", "content": "And Tom?"}]
    assert text_of(worker, messages=more) == text_of(worker, messages=plain)


def test_both_names_of_the_limit(worker):
    assert answered(worker, max_tokens="absent", max_completion_tokens=3)["usage"][
        "completion_tokens"] == 3
    refused(worker.request("POST", PATH, chat(max_completion_tokens=3)), 400,
            "invalid_parameter_combination", "max_tokens")
    rest = answered(worker, max_tokens="absent")
    assert rest["usage"]["total_tokens"] == worker.health()["context_length"]
    context = worker.health()["context_length"]
    refused(worker.request("POST", PATH, chat(max_tokens=context)), 400, "context_length_exceeded",
            "messages")


@pytest.mark.parametrize("field,value,neutral", [
    ("audio", {"voice": "alloy", "format": "mp3"}, None), ("frequency_penalty", 1, 0),
    ("function_call", {"name": "f"}, "none"), ("functions", [{"name": "f"}], []),
    ("logit_bias", {"1": 1}, {}), ("modalities", ["text", "audio"], ["text"]),
    ("moderation", {"model": "m"}, None), ("n", 2, 1),
    ("prediction", {"type": "content", "content": "x"}, None), ("presence_penalty", 0.1, 0),
    ("prompt_cache_options", {"mode": "explicit"}, None),
    ("prompt_cache_retention", "24h", "in_memory"), ("reasoning_effort", "low", None),
    ("response_format", {"type": "json_object"}, {"type": "text"}),
    ("service_tier", "flex", "auto"), ("store", True, False),
    ("tool_choice", "required", "none"),
    ("tools", [{"type": "function", "function": {"name": "f"}}], []),
    ("verbosity", "low", "medium"), ("web_search_options", {}, None)])
def test_fields_that_are_not_there_yet(worker, field, value, neutral):
    message = refused(worker.request("POST", PATH, chat(**{field: value})), 400,
                      "unsupported_parameter", field)
    assert "'%s'" % field in message
    assert worker.request("POST", PATH, chat(**{field: neutral})).status == 200


def test_what_changes_no_answer_is_taken(worker):
    plain = text_of(worker)
    for fields in ({"user": "u"}, {"safety_identifier": "s"}, {"prompt_cache_key": "k"},
                   {"metadata": {"a": "b"}}, {"parallel_tool_calls": True}, {"seed": -1},
                   {"chat_template_kwargs": {"enable_thinking": False}}):
        assert text_of(worker, **fields) == plain
    for fields, param in (({"user": 1}, "user"), ({"metadata": 1}, "metadata"),
                          ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
                          ({"chat_template_kwargs": 1}, "chat_template_kwargs")):
        refused(worker.request("POST", PATH, chat(**fields)), 400, "invalid_type", param)
    refused(worker.request("POST", PATH, chat(prompt="x")), 400, "unknown_parameter", "prompt")


@pytest.mark.parametrize("messages,code,param", [
    ("absent", "missing_required_parameter", "messages"), ({}, "invalid_type", "messages"),
    ([], "empty_array", "messages"), (["x"], "invalid_type", "messages[0]"),
    ([{"content": "x"}], "missing_required_parameter", "messages[0].role"),
    ([{"role": "user"}], "missing_required_parameter", "messages[0].content"),
    ([{"role": "user", "content": None}], "missing_required_parameter", "messages[0].content"),
    ([{"role": "user", "content": 1}], "invalid_type", "messages[0].content"),
    ([{"role": "user", "content": []}], "empty_array", "messages[0].content"),
    ([{"role": "user", "content": ["x"]}], "invalid_type", "messages[0].content[0]"),
    ([{"role": "user", "content": [{"type": "text"}]}], "missing_required_parameter",
     "messages[0].content[0].text"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
     "unsupported_parameter", "messages[0].content[0].type"),
    (MESSAGES + [{"role": "tool", "content": "x", "tool_call_id": "y"}], "unsupported_parameter",
     "messages[1].role"),
    ([{"role": "wizard", "content": "x"}], "invalid_value", "messages[0].role"),
    ([{"role": "user", "content": "x", "mood": "good"}], "unknown_parameter", "messages[0].mood"),
    (MESSAGES + [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}],
     "unsupported_parameter", "messages[1].tool_calls"),
    (MESSAGES + [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
     "unsupported_parameter", "messages[1].tool_calls"),
    ([{"role": "developer", "content": "x"}], "chat_template_error", "messages"),
])
def test_messages_that_are_refused(worker, messages, code, param):
    refused(worker.request("POST", PATH, chat(messages=messages)), 400, code, param)


@contextlib.contextmanager
def with_template(binary, model, folder, template):
    """A worker on a copy of the model whose tokenizer_config.json has this chat template."""
    copy = pathlib.Path(folder) / "tiny"
    shutil.copytree(model, copy)
    path = copy / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("chat_template")
    if template is not None:
        config["chat_template"] = template
    path.write_text(json.dumps(config))
    with Worker(binary, ["--model", str(copy)]) as worker:
        yield worker


@pytest.mark.parametrize("template", [
    "{% for i in range(10 ** 9) %}{% for j in range(10 ** 9) %}x{% endfor %}{% endfor %}",
    "{{ range(10 ** 12) | list }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ 'x' * 10 ** 10 }}", "{{ raise_exception('not today') }}"])
def test_a_template_that_does_not_end_well(binary, model, tmp_path, job, template):
    with with_template(binary, model, tmp_path, template) as worker:
        for _ in range(2):
            begin = time.monotonic()
            refused(worker.request("POST", PATH, chat()), 400, "chat_template_error", "messages")
            answer = worker.request("POST", "/apply-template", {"messages": MESSAGES})
            assert time.monotonic() - begin < 2  # 100 ms each, where nothing else runs
            (error,) = answer.json()["errors"]
            assert (answer.status, error["constraint"]) == (400, "chat_template")
        assert worker.execute(job())[-1][1]["type"] == "end"


def test_a_template_of_a_list_and_of_a_file(binary, model, tmp_path):
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    with with_template(binary, model, tmp_path, named) as worker:
        for tools, prompt in ((None, "plain"), ([{"type": "function"}], "tools")):
            answer = worker.request("POST", "/apply-template",
                                    {"messages": MESSAGES, "tools": tools})
            assert answer.json() == {"prompt": prompt}
        folder = tmp_path / "tiny"
    (folder / "chat_template.jinja").write_text("of a file")
    with Worker(binary, ["--model", str(folder)]) as worker:
        answer = worker.request("POST", "/apply-template", {"messages": MESSAGES})
        assert answer.json() == {"prompt": "of a file"}


@pytest.mark.parametrize("template", [None, "{% if %}"])
def test_without_a_template_that_can_be_used(binary, model, tmp_path, job, template):
    with with_template(binary, model, tmp_path, template) as worker:
        reason = refused(worker.request("POST", PATH, chat()), 400, "chat_template_unusable")
        answer = worker.request("POST", "/apply-template", {"messages": MESSAGES})
        assert answer.status == 409
        assert answer.json() == {"code": "NO_CHAT_TEMPLATE", "message": reason, "retriable": False}
        assert worker.execute(job())[-1][1]["type"] == "end"
