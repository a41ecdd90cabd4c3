"""What the shipped model says on OpenAI's paths through the CPU worker: right, and the same as elsewhere."""

import json
import os
import threading

import pytest

from test_openai import chunks
from worker import Worker

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def cpu(model):
    with Worker(os.environ["LLORCH_CPU_WORKER"], ["--model", model, "--dtype", "f32"]) as worker:
        yield worker
        assert worker.stop() == 0, worker.stderr


def ask(worker, path, **body):
    answer = worker.request("POST", path, {"model": "tiny", **body})
    assert answer.status == 200, answer.body
    return answer.json()


def question(text, **fields):
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}


def test_a_chat_is_answered_and_ends_by_itself(cpu):
    answer = ask(cpu, CHAT, **question("Where does Anna live?"))
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "Anna lives in Millbrook."
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 5  # <|end|> is neither counted nor emitted
    parts, _ = chunks(cpu, {"model": "tiny", "stream": True, **question("Where does Anna live?")},
                      CHAT)
    assert "".join(p["choices"][0]["delta"].get("content", "") for p in parts) == (
        "Anna lives in Millbrook.")
    assert parts[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_chat_before_is_part_of_the_prompt(cpu):
    turns = [{"role": "user", "content": "Where does Anna live?"},
             {"role": "assistant", "content": "Anna lives in Millbrook."},
             {"role": "user", "content": "And where does Tom live?"}]
    answer = ask(cpu, CHAT, messages=turns, temperature=0)["choices"][0]["message"]["content"]
    assert answer.startswith("Tom lives in ")


# transformers 5.23, torch 2.15, f32: log_softmax of the row after the prompt, three times greedy.
PROMPT = "Once upon a time"
ROWS = [([17, 36, 441], [-0.00016, -9.71588, -11.9069], ","),
        ([388, 297, 262], [-0.51376, -1.59857, -1.63019], " there"),
        ([304, 382, 297], [-1e-05, -13.37912, -14.54086], " was")]


def test_logprobs_are_those_of_the_raw_logits(cpu):
    """Before penalty and temperature, on /execute and in each of OpenAI's shapes."""
    for i, sampling in enumerate(({"temperature": 0}, {"temperature": 2, "top_k": 1},
                                  {"temperature": 0.1, "top_k": 1, "repetition_penalty": 1.0})):
        body = {"prompt": PROMPT, "max_tokens": 3, **sampling}
        events = [e for _, e in cpu.execute({"job_id": "lp-%d" % i, "logprobs": 3, **body})]
        tokens = [e for e in events if e["type"] == "token"]
        assert len(tokens) == 3
        for token, (ids, logprobs, _) in zip(tokens, ROWS):
            assert token["id"] == ids[0]
            assert [t["id"] for t in token["top_logprobs"]] == ids
            assert [t["logprob"] for t in token["top_logprobs"]] == pytest.approx(logprobs, abs=1e-3)
            assert token["logprob"] == token["top_logprobs"][0]["logprob"]
        # The same figures, to the digit.
        choice = ask(cpu, COMPLETIONS, logprobs=3, **body)["choices"][0]
        assert choice["logprobs"]["token_logprobs"] == [t["logprob"] for t in tokens]
        assert [list(row.values()) for row in choice["logprobs"]["top_logprobs"]] == [
            [t["logprob"] for t in token["top_logprobs"]] for token in tokens]
        assert choice["logprobs"]["tokens"] == [text for _, _, text in ROWS]
        assert choice["text"] == "".join(choice["logprobs"]["tokens"])


def test_a_penalty_changes_the_choice_but_not_the_logprobs(cpu):
    def first(**fields):
        body = {"job_id": "p-%d" % len(fields), "prompt": PROMPT, "max_tokens": 1, "logprobs": 20,
                "temperature": 0, **fields}
        return next(e for _, e in cpu.execute(body) if e["type"] == "token")

    assert first()["top_logprobs"] == first(repetition_penalty=2.0)["top_logprobs"]


def test_a_seed_gives_the_same_text_alone_or_beside_others(cpu):
    def sampled(seed):
        return ask(cpu, COMPLETIONS, prompt=PROMPT, max_tokens=40, seed=seed,
                   ignore_eos=True)["choices"][0]["text"]

    alone = [sampled(seed) for seed in range(4)]
    assert len(set(alone)) == 4
    together = [None] * 4

    def run(i):
        together[i] = sampled(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_characters_of_several_tokens_are_whole(cpu):
    """Each chunk is UTF-8 by itself, and `bytes` of the tokens join to the text."""
    body = {"prompt": "\u00e9\u20ac\U0001f600", "max_tokens": 60, "temperature": 2, "seed": 3,
            "ignore_eos": True}
    whole = ask(cpu, COMPLETIONS, logprobs=0, **body)["choices"][0]
    parts, _ = chunks(cpu, {"model": "tiny", "stream": True, **body})
    assert "".join(p["choices"][0]["text"] for p in parts) == whole["text"]
    chat = ask(cpu, CHAT, **question("\u00e9\u20ac\U0001f600", max_tokens=60, temperature=2, seed=3,
                                     logprobs=True, ignore_eos=True))["choices"][0]
    ids_text = bytes(b for t in chat["logprobs"]["content"] for b in t["bytes"]
                     if not t["token"].startswith("<|"))
    assert ids_text.decode(errors="replace") == chat["message"]["content"]


def test_held_out_questions_as_chats(cpu, model):
    lines = [json.loads(line) for line in open(os.path.join(model, "heldout.jsonl"))]
    right = asked = 0
    for line in lines:
        turns = line["prompt"].replace("<|assistant|>", "").split("<|end|>")[:-1]
        if len(turns) != 1 or not turns[0].startswith("<|user|>"):
            continue
        asked += 1
        answer = ask(cpu, CHAT, **question(turns[0][len("<|user|>"):]))
        right += answer["choices"][0]["message"]["content"].strip() == line["answer"].strip()
    assert asked >= 20 and right >= 0.95 * asked, "%d of %d" % (right, asked)
