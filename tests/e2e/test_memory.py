"""Contract, section 3: what a worker takes for weights, kv cache and scratch is its own when it says
`ready`; requests, however long and many, add no more than bounded buffers."""

import os
import threading

from worker import Worker

KV_BYTES = 96 * 2**20
GROWTH = 8 * 2**20  # buffers of sockets, texts and the allocator


def resident(worker):
    with open("/proc/%d/statm" % worker.process.pid) as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_fixed_at_ready(model):
    args = ["--model", model, "--kv-memory", KV_BYTES, "--max-batch", "16"]
    with Worker(os.environ["LLORCH_CPU_WORKER"], args) as worker:
        loaded = worker.wait_event("model_load_complete")
        at_ready = resident(worker)
        assert 0 < loaded["kv_bytes"] <= KV_BYTES
        assert at_ready > loaded["kv_bytes"] + loaded["weight_bytes"]
        context = worker.health()["context_length"]

        def run(i):
            # Prompt and answer of different lengths; the longest fills the context.
            answer = context // 4 if i % 4 == 0 else 8
            tokens = worker.request("POST", "/tokenize", {"prompt": "a " * context}).json()["tokens"]
            last = worker.request("POST", "/v1/completions", {
                "model": "tiny", "prompt": tokens[i:context - answer], "max_tokens": answer,
                "temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.1, "logprobs": 5,
                "ignore_eos": True})
            assert last.status == 200, last.body

        threads = [threading.Thread(target=run, args=(i,)) for i in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        worker.wait_health(running=0, waiting=0)
        assert resident(worker) - at_ready < GROWTH
