"""Contract, section 5: the field table of POST /execute, row by row, to the byte."""

import json

import pytest

LONG = "x" * 101


def error(field, constraint, message, value=None):
    row = {"field": field, "constraint": constraint, "message": message}
    return row if value is None else {**row, "value": value}


def number(field, constraint, bound, got):
    return error(field, constraint, "%s must be %s (got %s)" % (field, bound, got), got)


FAULTS = [
    ({"job_id": ""}, error("job_id", "non_empty", "job_id must not be empty", "")),
    ({"prompt": ""}, error("prompt", "length(1..=32768)", "prompt must not be empty")),
    ({"prompt": "é" * 32769}, error("prompt", "length(1..=32768)",
                                    "prompt must be at most 32768 characters (got 32769)")),
    ({"max_tokens": 0}, error("max_tokens", "range(1..=2048)", "max_tokens must be at least 1",
                              "0")),
    ({"max_tokens": 2049}, number("max_tokens", "range(1..=2048)", "at most 2048", "2049")),
    ({"max_tokens": 4294967295},
     number("max_tokens", "range(1..=2048)", "at most 2048", "4294967295")),
    ({"temperature": -0.1}, number("temperature", "range(0.0..=2.0)", "at least 0.0", "-0.1")),
    ({"temperature": 2.1}, number("temperature", "range(0.0..=2.0)", "at most 2.0", "2.1")),
    ({"temperature": 3}, number("temperature", "range(0.0..=2.0)", "at most 2.0", "3")),
    ({"temperature": 3.0}, number("temperature", "range(0.0..=2.0)", "at most 2.0", "3")),
    ({"top_p": -1}, number("top_p", "range(0.0..=1.0)", "at least 0.0", "-1")),
    ({"top_p": 1.01}, number("top_p", "range(0.0..=1.0)", "at most 1.0", "1.01")),
    ({"repetition_penalty": -0.5},
     number("repetition_penalty", "range(0.0..=2.0)", "at least 0.0", "-0.5")),
    ({"repetition_penalty": 2.5},
     number("repetition_penalty", "range(0.0..=2.0)", "at most 2.0", "2.5")),
    ({"stop": ["a", "b", "c", "d", "e"]},
     error("stop", "max_count(4)", "stop must have at most 4 sequences (got 5)", "5")),
    ({"stop": ["a", ""]}, error("stop[1]", "non_empty", "stop sequence 1 must not be empty")),
    ({"stop": [LONG]}, error("stop[0]", "max_length(100)",
                             "stop sequence 0 must be at most 100 characters (got 101)")),
    ({"stop": ["é" * 51]}, error("stop[0]", "max_length(100)",
                                 "stop sequence 0 must be at most 100 characters (got 102)")),
    ({"min_p": -0.25}, number("min_p", "range(0.0..=1.0)", "at least 0.0", "-0.25")),
    ({"min_p": 1.5}, number("min_p", "range(0.0..=1.0)", "at most 1.0", "1.5")),
    ({"logprobs": 21}, number("logprobs", "range(0..=20)", "at most 20", "21")),
    ({"priority": 101}, number("priority", "range(-100..=100)", "at most 100", "101")),
    ({"priority": -101}, number("priority", "range(-100..=100)", "at least -100", "-101")),
]


@pytest.mark.parametrize("fields,fault", FAULTS, ids=lambda x: json.dumps(x)[:50])
def test_a_broken_rule_is_named_to_the_byte(worker, job, fields, fault):
    status, headers, body = worker.request("POST", "/execute", job(**fields))
    assert status == 400
    assert headers["content-type"] == "application/json"
    assert body.decode() == json.dumps({"errors": [fault]}, separators=(",", ":"))


def test_all_faults_come_together_in_the_tables_order(worker):
    body = {"priority": 900, "min_p": 9, "stop": ["", LONG, "a", "b", ""],
            "repetition_penalty": 9, "top_p": 9, "temperature": 9, "max_tokens": 0, "prompt": "", "job_id": ""}
    answer = worker.request("POST", "/execute", body)
    assert answer.status == 400
    assert [e["field"] for e in answer.json()["errors"]] == [
        "job_id", "prompt", "max_tokens", "temperature", "top_p", "repetition_penalty", "stop",
        "stop[0]", "stop[1]", "stop[4]", "min_p", "priority"]


@pytest.mark.parametrize("fields", [
    {"max_tokens": 1}, {"temperature": 0}, {"temperature": 0.0}, {"temperature": 2.0},
    {"seed": 0}, {"seed": 2**64 - 1}, {"top_p": 0.0}, {"top_p": 1}, {"top_k": 0},
    {"top_k": 2**32 - 1}, {"repetition_penalty": 0.0}, {"repetition_penalty": 2}, {"stop": []},
    {"stop": ["\u0001" * 100, "a" * 100, "é" * 50, "z"]}, {"min_p": 0}, {"min_p": 1.0},
    {"logprobs": 0}, {"logprobs": 20}, {"ignore_eos": False}, {"keepalive_s": 3600},
    {"stream_resume": False}, {"stream_resume": True}, {"priority": -100},
    {"priority": 100}, {"unknown": {"deep": [1, {"max_tokens": 0}]}},
], ids=lambda x: json.dumps(x)[:50])
def test_both_ends_of_every_range_are_accepted(worker, job, fields):
    events = [e for _, e in worker.execute(job(**fields))]
    assert events[0]["type"] == "started" and events[-1]["type"] == "end"


@pytest.mark.parametrize("field", ["seed", "logprobs", "keepalive_s"])
def test_null_is_as_good_as_absent(worker, job, field):
    body = json.dumps(job()).encode()[:-1] + b',"%s":null}' % field.encode()
    with worker.open_execute(body) as stream:
        assert stream.status == 200
        assert stream.rest()[-1]["type"] == "end"


def test_a_seed_is_reported_as_given_or_drawn_below_2_to_the_53(worker, job):
    given = worker.execute(job(seed=2**64 - 1))[0][1]
    assert given["seed"] == 2**64 - 1
    drawn = {worker.execute(job(max_tokens=1))[0][1]["seed"] for _ in range(4)}
    assert len(drawn) > 1 and all(0 <= s < 2**53 for s in drawn)


WRONG_TYPES = [
    *[(field, "`%s` is missing" % field, None) for field in ("job_id", "prompt", "max_tokens")],
    *[(field, "`%s` must be a string" % field, value)
      for field in ("job_id", "prompt") for value in (1, ["a"], {}, True)],
    *[(field, "`%s` must be an integer from 0 to 4294967295" % field, value)
      for field in ("max_tokens", "top_k") for value in (-1, 2**32, 1.5, "5", True, [])],
    *[(field, "`%s` must be a number" % field, value)
      for field in ("temperature", "top_p", "repetition_penalty", "min_p")
      for value in ("1", True, [1])],
    *[("seed", "`seed` must be an integer from 0 to 18446744073709551615, or null", value)
      for value in (-1, 2**64, 1.5, "1")],
    ("stop", "`stop` must be an array of strings", "a"),
    ("stop", "`stop[1]` must be a string", ["a", 1]),
    ("ignore_eos", "`ignore_eos` must be true or false", 1),
    ("stream_resume", "`stream_resume` must be true or false", 1),
    *[("priority", "`priority` must be an integer", value) for value in (1.5, "1", True)],
]


@pytest.mark.parametrize("field,message,value", WRONG_TYPES, ids=lambda x: str(x)[:40])
def test_a_wrong_type_is_an_invalid_field(worker, job, field, message, value):
    status, _, body = worker.request("POST", "/execute", job(**{field: value}))
    assert status == 422
    assert body.decode() == json.dumps(
        {"code": "INVALID_FIELD", "message": message, "retriable": False}, separators=(",", ":"))


@pytest.mark.parametrize("prompt", ["x", "\U0001F600" * 300, "\u0000", "a\nb\"\\", "\ud7ff\ue000"])
def test_prompts_of_any_unicode_are_accepted(worker, job, prompt):
    events = [e for _, e in worker.execute(job(prompt=prompt))]
    assert events[0]["prompt_tokens"] >= 1
    assert events[-1]["type"] == "end"


def test_prompt_and_output_must_fit_the_context(worker, job):
    context = worker.health()["context_length"]
    prompt = "Once upon a time. " * 20
    tokens = worker.execute(job(prompt=prompt, max_tokens=1))[0][1]["prompt_tokens"]
    with worker.open_execute(job(prompt=prompt, max_tokens=context - tokens)) as stream:
        assert stream.status == 200
    too_many = context - tokens + 1
    status, _, body = worker.request("POST", "/execute", job(prompt=prompt, max_tokens=too_many))
    assert status == 400
    assert body.decode() == json.dumps({"errors": [error(
        "prompt", "context_length(%d)" % context,
        "prompt has %d tokens and max_tokens is %d; the context is %d" % (
            tokens, too_many, context))]}, separators=(",", ":"))
