"""GGUF models through the real worker: transformers' own tokens and logprobs, and a chat."""

import array
import json
import math
import os
import pathlib
import struct

import pytest

from worker import Worker

DATA = pathlib.Path(__file__).resolve().parents[1] / "golden" / "data"
SPECIALS = 3  # before the 256 bytes, in the vocabulary of every golden
TOKENS = 64


def reference(folder):
    """prompt, greedy and logprobs of its reference.safetensors."""
    data = (folder / "reference.safetensors").read_bytes()
    length, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    kinds = {"I32": "i", "F32": "f"}

    def tensor(name):
        begin, end = header[name]["data_offsets"]
        return array.array(kinds[header[name]["dtype"]], data[8 + length + begin:8 + length + end])

    return tensor("prompt"), tensor("greedy"), tensor("logprobs")


@pytest.mark.parametrize("name", ["gguf_llama_split", "gguf_phi3", "gguf_qwen3_moe", "gguf_gemma3"])
def test_a_gguf_answers_as_transformers_does(name, job):
    folder = DATA / name
    prompt, greedy, logprobs = reference(folder)
    model = sorted(folder.glob("*.gguf"))[-1]  # of a set any file
    body = job(prompt=bytes(token - SPECIALS for token in prompt).decode(), max_tokens=TOKENS,
               temperature=0, logprobs=0)
    # With f32 weights and cache, as transformers has them: not the blocks of quantised weights.
    flags = ["--model", str(model), "--dtype", "f32"]
    with Worker(os.environ["LLORCH_CPU_WORKER"], flags) as worker:
        events = [event for _, event in worker.execute(body)]
    tokens = [event for event in events if event["type"] == "token"]
    assert events[0]["prompt_tokens"] == len(prompt)
    assert [event["id"] for event in tokens] == list(greedy[:TOKENS])
    for event, expected in zip(tokens, logprobs):
        assert math.isclose(event["logprob"], expected, abs_tol=1e-3)


def test_a_gguf_chats_with_its_own_template():
    with Worker(os.environ["LLORCH_CPU_WORKER"], ["--model", str(DATA / "gguf_qwen2")]) as worker:
        messages = [{"role": "user", "content": " hi "}]
        answer = worker.request("POST", "/apply-template", {"messages": messages})
        assert answer.json() == {"prompt": "<bos>user: hi\nassistant: "}
        tokens = worker.request("POST", "/tokenize", {"prompt": "<bos> t"}).json()
        assert tokens == {"tokens": [0, 259], "count": 2}
