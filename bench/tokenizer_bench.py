#!/usr/bin/env python3
"""What tokenizer_bench measures, of the tokenizers library: bench/tokenizer_bench.py TEXT FILE..."""
import sys
import time

from tokenizers import Tokenizer


def seconds(runs, run):
    best = float("inf")
    for _ in range(runs):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        text = file.read()[:2_000_000]
    size = len(text.encode())
    prompts = [text[at:at + 4000] for at in range(0, len(text), 4000)]
    for path in sys.argv[2:]:
        load = seconds(3, lambda: Tokenizer.from_file(path))
        tokenizer = Tokenizer.from_file(path)
        whole = seconds(1, lambda: tokenizer.encode(text))
        cut = seconds(2, lambda: [tokenizer.encode(p) for p in prompts])
        print(f"{path:40} load {load * 1e3:4.0f} ms; whole {size / 1e6 / whole:5.1f} MB/s; "
              f"4 kB {size / 1e6 / cut:5.1f} MB/s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
