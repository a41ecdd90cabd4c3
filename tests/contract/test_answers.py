"""What the shipped model answers through the CPU worker: the same whoever else is there, and right."""

import json
import os
import pathlib
import threading

import pytest

from worker import Worker

TINY = pathlib.Path(__file__).resolve().parents[2] / "models" / "tiny"


@pytest.fixture(scope="module")
def cpu():
    with Worker(os.environ["LLORCH_CPU_WORKER"], ["--model", str(TINY)]) as worker:
        yield worker
        assert worker.stop() == 0, worker.stderr


def run(worker, body):
    """The bytes of all token and end events, without what the clock says."""
    with worker.open_execute(body) as stream:
        assert stream.status == 200
        kept = []
        while (block := stream.next_block()) is not None:
            if b'"type":"token"' in block:
                kept.append(block)
            elif b'"type":"end"' in block:
                end = json.loads(block[6:])
                kept.append((end["tokens_out"], end["stop_reason"]))
        return kept


def run_together(worker, bodies):
    results = [None] * len(bodies)

    def one(i):
        results[i] = run(worker, bodies[i])

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def body(job_id, prompt="Once upon a time", **fields):
    return {"job_id": job_id, "prompt": prompt, "max_tokens": 48, "temperature": 1.0, "seed": 7,
            "logprobs": 2, "ignore_eos": True, **fields}


@pytest.mark.parametrize("sampling", [
    {"temperature": 0}, {}, {"top_k": 20, "top_p": 0.9, "min_p": 0.02,
                             "repetition_penalty": 1.2}], ids=["greedy", "plain", "all"])
def test_the_same_seed_gives_the_same_bytes_alone_or_beside_others(cpu, sampling):
    alone = run(cpu, body("alone", **sampling))
    assert len(alone) >= 48
    others = [body("other-%d" % i, prompt="The red ball " * (i + 1), seed=i, max_tokens=20 + 3 * i)
              for i in range(15)]
    together = run_together(cpu, others[:8] + [body("beside", **sampling)] + others[8:])
    assert together[8] == alone
    assert run(cpu, body("again", **sampling)) == alone
    assert all(together)


def test_another_seed_gives_another_answer(cpu):
    texts = {str(run(cpu, body("seed-%d" % seed, seed=seed))) for seed in range(4)}
    assert len(texts) == 4


def test_held_out_questions_are_answered(cpu):
    lines = [json.loads(line) for line in (TINY / "heldout.jsonl").read_text().splitlines()]
    assert len(lines) >= 50
    right = 0
    for i, line in enumerate(lines):
        blocks = run(cpu, {"job_id": "q-%d" % i, "prompt": line["prompt"], "max_tokens": 48,
                           "temperature": 0})
        text = "".join(json.loads(b[6:])["t"] for b in blocks if isinstance(b, bytes))
        right += text.strip() == line["answer"].strip() and blocks[-1][1] == "EOS"
    assert right >= 0.95 * len(lines), "%d of %d" % (right, len(lines))
