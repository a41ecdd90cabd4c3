#!/usr/bin/env python3
"""Times a worker as its clients see it: tools/gpu/served.py WORKER MODEL LOAD_BENCH STARTS STREAMS

Prints JSON: seconds from the start of the process to `ready`, and tokens a second of one stream and
of STREAMS together, in turns. STREAMS 0: the former alone. The model's file is in the page cache.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "harness"), str(ROOT / "bench")]
from serving import decode_rate  # noqa: E402
from worker import Worker  # noqa: E402

CONTEXT, PROMPT_TOKENS, OUTPUT_TOKENS, TURNS = 2048, 32, 256, 2


def main():
    binary, model, load_bench, starts, streams = sys.argv[1:6]
    figures = {"ready_s": [], "one": [], "together": []}
    for turn in range(int(starts)):
        worker = Worker(binary, ["--model", model, "--context-length", CONTEXT, "--max-batch",
                                 max(int(streams), 8), "--speculate", "off"])
        begin = time.monotonic()
        with worker:
            figures["ready_s"].append(time.monotonic() - begin)
            loaded = worker.events("model_load_complete")[0]
            figures["weight_bytes"], figures["load_ms"] = loaded["weight_bytes"], loaded["ms"]
            figures["warmup_ms"] = worker.events("warmup_complete")[0]["ms"]
            if turn == 0 and streams != "0":
                rates(worker.port, load_bench, int(streams), figures)
    print(json.dumps(figures))


def rates(port, load_bench, streams, figures):
    with tempfile.TemporaryDirectory() as folder:
        trace = pathlib.Path(folder) / "trace.csv"
        for turn in range(TURNS):
            for name, count in (("one", 1), ("together", streams)):
                subprocess.run(
                    [str(word) for word in (
                        load_bench, "--port", port, "--arrivals", "burst", "--requests", count,
                        "--prompt-tokens", PROMPT_TOKENS, "--output-tokens", OUTPUT_TOKENS,
                        "--seed", 100 * turn + count, "--trace", trace)],
                    check=True, stdout=subprocess.DEVNULL)
                figures[name].append(decode_rate(trace, count))


if __name__ == "__main__":
    main()
