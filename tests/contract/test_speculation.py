"""--speculate auto and off through the CPU worker: the same bytes, whatever is asked for."""

import os
import pathlib

import pytest

import prometheus
from worker import Worker

TINY = pathlib.Path(__file__).resolve().parents[2] / "models" / "tiny"
MODES = ["off", "auto"]


@pytest.fixture(scope="module", params=[[], ["--max-batch", "1"], ["--kv-memory", "1500000"]],
                ids=["as it comes", "one at a time", "little kv memory"])
def workers(request):
    """One worker of each mode, with the same flags."""
    flags = ["--model", str(TINY), "--context-length", "1024", *request.param]
    binary = os.environ["LLORCH_CPU_WORKER"]
    with Worker(binary, [*flags, "--speculate", "off"]) as off, \
            Worker(binary, [*flags, "--speculate", "auto"]) as auto:
        yield {"off": off, "auto": auto}
        assert off.stop() == 0 and auto.stop() == 0


def value(worker, name):
    families = prometheus.parse(worker.request("GET", "/metrics").body.decode())
    return families[name].value()


def drafts(worker):
    """Tokens drafted so far, and those of them that were right."""
    return [value(worker, "vllm:spec_decode_num_%s_tokens_total" % kind)
            for kind in ("draft", "accepted")]


COUNT = "<|user|>Count from 1 to 30.<|end|><|assistant|>"
AGAIN = "".join("<|user|>Where does Anna live?<|end|><|assistant|>" + answer for answer in
                ("Anna lives in Sandbay.<|end|>",) * 3 + ("",))
STORY = "Once upon a time"
WANTED = {
    "greedy": {"temperature": 0, "ignore_eos": True},
    "drawn": {"temperature": 0.8, "ignore_eos": True},
    "everything": {"temperature": 1.0, "top_k": 30, "top_p": 0.9, "min_p": 0.01,
                   "repetition_penalty": 1.1, "logprobs": 3, "ignore_eos": True},
    "penalty": {"temperature": 0, "repetition_penalty": 0.8, "logprobs": 0},
    "one token": {"temperature": 0, "max_tokens": 1},
    "two tokens": {"temperature": 0, "max_tokens": 2},
    "odd number": {"temperature": 0, "max_tokens": 23, "ignore_eos": True},
    "stop": {"temperature": 0, "stop": ["1, 12", " in ", "friend"], "ignore_eos": True},
    "to the end": {"temperature": 0},
}


def bodies(prefix, fields):
    return [{"job_id": "%s-%d" % (prefix, i), "prompt": prompt, "max_tokens": 120, "seed": i,
             **fields} for i, prompt in enumerate([COUNT, AGAIN, STORY, COUNT])]


@pytest.mark.parametrize("wanted", WANTED)
def test_changes_no_answer(workers, wanted):
    alone = {mode: [workers[mode].told(body) for body in bodies("alone " + wanted, WANTED[wanted])]
             for mode in MODES}
    assert alone["auto"] == alone["off"]
    assert all(answer[-1][0] > 0 for answer in alone["off"])
    together = workers["auto"].told_together(bodies("together " + wanted, WANTED[wanted]))
    assert together == alone["off"]


def test_many_at_once(workers):
    many = [{"job_id": "many-%d" % i, "prompt": [COUNT, AGAIN, STORY][i % 3],
             "max_tokens": 300 + 7 * i, "temperature": [0, 0, 0.7][i % 3], "seed": i,
             "ignore_eos": True} for i in range(10)]
    answers = {mode: workers[mode].told_together(many) for mode in MODES}
    assert answers["auto"] == answers["off"]
    if "--kv-memory" in workers["auto"].command:
        assert value(workers["auto"], "vllm:num_preemptions_total") > 0


def test_drafts_are_made_and_counted(workers):
    steps = [value(worker, "worker_steps_total") for worker in workers.values()]
    before = drafts(workers["auto"])
    for mode in MODES:
        workers[mode].told({"job_id": "counted", "prompt": COUNT, "max_tokens": 300,
                            "temperature": 0, "ignore_eos": True})
    drafted, right = (now - then for now, then in zip(drafts(workers["auto"]), before))
    # A sanitizer makes rows so dear that drafts may not pay.
    assert right <= drafted and (right > 0 or os.environ.get("LLORCH_SANITIZE"))
    off, auto = (value(worker, "worker_steps_total") - then
                 for worker, then in zip(workers.values(), steps))
    assert auto + right == off
    assert drafts(workers["off"]) == [0, 0]
