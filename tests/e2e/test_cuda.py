"""The CUDA worker where its device is emulated: which device it takes, what it says when one is not there or too
small, and that it is the worker that the contract describes."""

import os

import pytest

from test_failed_start import failed_start
from worker import Worker

WORKER = os.environ.get("LLORCH_CUDA_WORKER")


def machine(**settings):
    return {"LLORCH_EMULATED_" + name.upper(): str(value) for name, value in settings.items()}


@pytest.mark.parametrize("devices, index", [(0, 0), (1, 1), (2, 7)])
def test_a_device_that_is_not_there_is_11(model, devices, index):
    status, line = failed_start(WORKER, "--model", model, "--port", 0, "--cuda-device", index,
                                env={**os.environ, **machine(devices=devices)})
    assert status == 11
    assert line["message"] == f"[cuda] no device {index}; there are {devices}"


@pytest.mark.parametrize("megabytes, what", [(2, "weights"), (6, "")])
def test_too_little_memory_is_12_with_figures(model, megabytes, what):
    status, line = failed_start(WORKER, "--model", model, "--port", 0, env={**os.environ, **machine(memory=megabytes << 20)})
    assert status == 12
    assert line["needed_bytes"] - line["free_bytes"] == line["short_bytes"] > 0
    assert what in line["message"]


def test_a_worker_that_is_ready_says_what_it_holds(model):
    with Worker(WORKER, ["--model", model, "--cuda-device", "1"], machine(devices=2)) as worker:
        events = worker.execute({"job_id": "job", "prompt": "Once upon a time", "max_tokens": 3, "temperature": 0,
                                 "ignore_eos": True})
        assert [event["type"] for _, event in events][-1] == "end"
        health = worker.health()
        assert worker.stop() == 0, worker.stderr
    startup, = worker.events("startup")
    assert startup["backend"] == "cuda" and startup["cuda_device"] == 1
    device, = worker.events("device_ready")
    assert device["verified"] and device["name"].startswith("cuda (")
    loaded, = worker.events("model_load_complete")
    # Weights in bf16, rows padded to 64 columns at most.
    weights = os.path.getsize(os.path.join(model, "model.safetensors"))
    assert weights * 0.9 <= loaded["weight_bytes"] <= weights * 1.3
    assert health["vram_bytes"] == loaded["weight_bytes"] and health["backend"] == "cuda"
    assert worker.events("parity_checked")[0]["layers"] == 2
