"""The CPU worker serves every golden checkpoint: the tokens and logprobs that transformers gives for
the same text. What the references hold: tools/make_goldens.py."""

import json
import os
import pathlib
import struct

import pytest

from worker import Worker

DATA = pathlib.Path(__file__).resolve().parents[1] / "golden" / "data"
FOLDERS = sorted(path.name for path in DATA.iterdir())
SPECIAL_TOKENS = 3  # the ids before those of the 256 bytes


def reference(folder):
    """The numbers of reference.safetensors by name, but for its logits."""
    data = (folder / "reference.safetensors").read_bytes()
    header_bytes = struct.unpack_from("<Q", data)[0]
    tensors = {}
    for name, tensor in json.loads(data[8:8 + header_bytes]).items():
        if name in ("prompt", "greedy", "logprobs"):
            begin, end = tensor["data_offsets"]
            letter = {"I32": "i", "F32": "f"}[tensor["dtype"]]
            tensors[name] = struct.unpack_from(f"<{(end - begin) // 4}{letter}", data,
                                               8 + header_bytes + begin)
    return tensors


def test_there_are_goldens():
    assert len(FOLDERS) >= 50


@pytest.mark.parametrize("name", FOLDERS)
def test_answers_are_transformers(name):
    wanted = reference(DATA / name)
    prompt = bytes(token - SPECIAL_TOKENS for token in wanted["prompt"]).decode()
    body = {"job_id": "job", "prompt": prompt, "max_tokens": len(wanted["greedy"]),
            "temperature": 0, "ignore_eos": True, "logprobs": 0}
    args = ["--model", DATA / name, "--dtype", "f32", "--max-batch", "1"]
    with Worker(os.environ["LLORCH_CPU_WORKER"], args) as worker:
        events = [event for _, event in worker.execute(body)]
        assert worker.stop() == 0, worker.stderr
    assert events[0]["prompt_tokens"] == len(wanted["prompt"])
    tokens = [event for event in events if event["type"] == "token" and "id" in event]
    assert tuple(token["id"] for token in tokens) == wanted["greedy"]
    for i, token in enumerate(tokens):
        assert token["logprob"] == pytest.approx(wanted["logprobs"][i], abs=1e-3), i
    assert events[-1]["type"] == "end" and events[-1]["stop_reason"] == "MAX_TOKENS"
