"""What a request finds computed of its prompt: told everywhere, and nowhere to be seen in an answer."""

import itertools
import os

import pytest

from test_openai import chunks
from worker import Worker

P = 16  # tokens of a kv block
WORKERS = [w for w in (os.environ["LLORCH_WORKER"], os.environ.get("LLORCH_CPU_WORKER")) if w]


@pytest.fixture(scope="module", params=WORKERS, ids=os.path.basename)
def start(request, model):
    return lambda: Worker(request.param, ["--model", model])


@pytest.fixture
def worker(start):
    with start() as running:
        yield running
        assert running.stop() == 0, running.stderr


def tokens(count, salt=0):
    return [3 + (i * i * 7 + i + salt) % 2000 for i in range(count)]


def text_prompt(worker, count):
    """A text of exactly so many tokens with those that /execute adds."""
    text = worker.request("POST", "/detokenize", {"tokens": tokens(count)}).json()["content"]
    for end in itertools.count(len(text) // 2):
        prompt = text[:end]
        if worker.request("POST", "/tokenize", {"prompt": prompt}).json()["count"] == count:
            return prompt


def completion(prompt, **fields):
    return {"model": "tiny", "prompt": prompt, "max_tokens": 8, "temperature": 0,
            "ignore_eos": True, "logprobs": 1, **fields}


def complete(worker, prompt, **fields):
    answer = worker.request("POST", "/v1/completions", completion(prompt, **fields))
    assert answer.status == 200, answer.body
    return answer.json()


def cached(usage):
    assert list(usage) == ["prompt_tokens", "completion_tokens", "total_tokens",
                           "prompt_tokens_details"]
    assert list(usage["prompt_tokens_details"]) == ["cached_tokens"]
    return usage["prompt_tokens_details"]["cached_tokens"]


def test_a_completion_says_what_it_found(worker):
    prompt = tokens(3 * P)
    first, again = complete(worker, prompt), complete(worker, prompt)
    assert (cached(first["usage"]), cached(again["usage"])) == (0, 3 * P - 1)
    assert first["choices"] == again["choices"]
    longer = complete(worker, prompt + tokens(5, salt=1))
    assert cached(longer["usage"]) >= 3 * P
    assert cached(complete(worker, tokens(3 * P, salt=1))["usage"]) == 0


def test_a_stream_says_what_it_found(worker):
    body = completion(tokens(3 * P), stream=True, stream_options={"include_usage": True})
    for expected in (0, 3 * P - 1):
        parts, _ = chunks(worker, body)
        assert cached(parts[-1]["usage"]) == expected


def test_execute_says_what_it_found(worker, job):
    prompt = text_prompt(worker, 2 * P)
    for expected in (0, 2 * P - 1):
        body = job(prompt=prompt)
        started = worker.execute(body)[0][1]
        assert (started["prompt_tokens"], started["cached_tokens"]) == (2 * P, expected)
        assert worker.wait_event("execute_end", job_id=body["job_id"])["cached_tokens"] == expected


def test_the_warm_up_leaves_nothing(worker):
    for first in (0, 1, 2):
        assert cached(complete(worker, [first] * (2 * P))["usage"]) == 0


def chat(worker, messages):
    answer = worker.request("POST", "/v1/chat/completions", {
        "model": "tiny", "messages": messages, "max_tokens": 40, "temperature": 0.8, "seed": 7,
        "ignore_eos": True, "logprobs": True})
    assert answer.status == 200, answer.body
    return answer.json()


def test_a_conversations_next_turn_finds_all_whole_blocks(worker, start):
    messages = [{"role": "user", "content": "Once upon a time there was a fox. What did it eat?"}]
    before = []
    for turn in range(3):
        answer = chat(worker, messages)
        text = worker.request("POST", "/apply-template", {"messages": messages}).json()["prompt"]
        prompt = worker.request("POST", "/tokenize", {
            "prompt": text, "add_special": False}).json()["tokens"]
        common = len(os.path.commonprefix([before, prompt]))
        assert turn == 0 or common > P
        assert cached(answer["usage"]) >= common // P * P
        with start() as cold:
            assert chat(cold, messages)["choices"] == answer["choices"]
        content = answer["choices"][0]["message"]["content"]
        messages = messages + [{"role": "assistant", "content": content},
                               {"role": "user", "content": "And what then?"}]
        before = prompt


def test_metrics_count_what_was_asked_and_found(worker):
    prompt = tokens(2 * P)
    for _ in range(3):
        complete(worker, prompt)
    lines = worker.request("GET", "/metrics").body.decode().splitlines()
    value = {line.split("{")[0].split(" ")[0]: float(line.rsplit(" ", 1)[1])
             for line in lines if not line.startswith("#")}
    assert value["vllm:prefix_cache_queries_total"] == 3 * 2 * P
    assert value["vllm:prefix_cache_hits_total"] == 2 * (2 * P - 1)
