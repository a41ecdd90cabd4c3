"""What the shipped model answers through the CPU worker: the same whoever else is there, and right."""

import json
import os
import pathlib

import pytest

from worker import Worker

TINY = pathlib.Path(__file__).resolve().parents[2] / "models" / "tiny"


@pytest.fixture(scope="module")
def cpu():
    with Worker(os.environ["LLORCH_CPU_WORKER"], ["--model", str(TINY)]) as worker:
        yield worker
        assert worker.stop() == 0, worker.stderr


def body(job_id, prompt="Once upon a time", **fields):
    return {"job_id": job_id, "prompt": prompt, "max_tokens": 48, "temperature": 1.0, "seed": 7,
            "logprobs": 2, "ignore_eos": True, **fields}


@pytest.mark.parametrize("sampling", [
    {"temperature": 0}, {}, {"top_k": 20, "top_p": 0.9, "min_p": 0.02,
                             "repetition_penalty": 1.2}], ids=["greedy", "plain", "all"])
def test_the_same_seed_gives_the_same_bytes_alone_or_beside_others(cpu, sampling):
    alone = cpu.told(body("alone", **sampling))
    assert len(alone) >= 48
    others = [body("other-%d" % i, prompt="The red ball " * (i + 1), seed=i, max_tokens=20 + 3 * i)
              for i in range(15)]
    together = cpu.told_together(others[:8] + [body("beside", **sampling)] + others[8:])
    assert together[8] == alone
    assert cpu.told(body("again", **sampling)) == alone
    assert all(together)


def test_another_seed_gives_another_answer(cpu):
    texts = {str(cpu.told(body("seed-%d" % seed, seed=seed))) for seed in range(4)}
    assert len(texts) == 4


def test_held_out_questions_are_answered(cpu):
    lines = [json.loads(line) for line in (TINY / "heldout.jsonl").read_text().splitlines()]
    assert len(lines) >= 50
    right = 0
    for i, line in enumerate(lines):
        blocks = cpu.told({"job_id": "q-%d" % i, "prompt": line["prompt"], "max_tokens": 48,
                           "temperature": 0})
        text = "".join(json.loads(b[6:])["t"] for b in blocks if isinstance(b, bytes))
        right += text.strip() == line["answer"].strip() and blocks[-1][1] == "EOS"
    assert right >= 0.95 * len(lines), "%d of %d" % (right, len(lines))
