"""Contract, section 2: --verify-against-cpu. What the gate refuses is golden_parity_test's."""

import os
import pathlib

import pytest

from worker import Worker

DATA = pathlib.Path(__file__).resolve().parents[1] / "golden" / "data"


def checked(model, *args):
    with Worker(os.environ["LLORCH_CPU_WORKER"], ["--model", model, *args]) as worker:
        events = [line["event"] for line in worker.lines]
        lines = worker.events("parity_checked")
        assert worker.stop() == 0, worker.stderr
    if lines:
        assert events.index("model_load_complete") < events.index("parity_checked")
        assert events.index("parity_checked") < events.index("warmup_complete")
    return lines


def test_a_cpu_worker_is_its_own_reference_unless_asked(model):
    assert checked(model) == []
    assert checked(model, "--verify-against-cpu", "0") == []


@pytest.mark.parametrize("args", [
    [],
    ["--dtype", "f32"],
    ["--dtype", "f16", "--kv-dtype", "f16"],
    ["--quantize", "q8_0", "--kv-dtype", "q8_0"],
    ["--quantize", "q4_k"],
    ["--max-batch", "1", "--speculate", "off"],  # one row of logits a step
    ["--context-length", "4"],  # fewer tokens than are compared
])
def test_a_healthy_worker_passes(model, args):
    line, = checked(model, "--verify-against-cpu", "2", *args)
    assert line["layers"] == 2 and line["checks"] > 20
    assert 0 < line["worst"] < 0.5 and 0 <= line["step"] < 0.5 and line["ms"] >= 0


def test_more_layers_than_there_are_mean_all(model):
    line, = checked(model, "--verify-against-cpu", "4096")
    assert line["layers"] < 100


def test_it_changes_no_answer(model):
    def answer(layers):
        args = ["--model", model, "--verify-against-cpu", layers]
        with Worker(os.environ["LLORCH_CPU_WORKER"], args) as worker:
            body = {"job_id": "job", "prompt": "Once upon a time", "max_tokens": 40, "seed": 3}
            return [event for _, event in worker.execute(body) if event["type"] == "token"]
    assert answer(2) == answer(0)


@pytest.mark.parametrize("name", ["gemma3", "gguf_llama_k", "gguf_qwen2_moe", "phi", "phi3_longrope"])
def test_other_families_pass(name):
    line, = checked(DATA / name, "--verify-against-cpu", "99")
    assert line["layers"] >= 1 and line["worst"] < 0.5 and line["step"] < 0.5
