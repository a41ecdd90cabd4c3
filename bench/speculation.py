#!/usr/bin/env python3
"""What --speculate auto gains over off: two workers, the same requests to both in turns.

  bench/speculation.py                  models/tiny: chats that ask a question again, and stories
  bench/speculation.py --model PATH     any model: texts that it makes greedily, and drawn ones

The answers must be equal. Rates are tokens a second of one request, from its first token to its
last, the middle of the rounds.
"""

import argparse
import collections
import concurrent.futures
import itertools
import json
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
sys.path.insert(0, str(ROOT / "tests" / "harness"))
import prometheus  # noqa: E402
from serving import LlorchWorker, machine  # noqa: E402
from worker import Connection, EventStream, request_bytes  # noqa: E402

COUNTERS = {"tokens": "worker_tokens_generated_total",
            "drafted": "vllm:spec_decode_num_draft_tokens_total",
            "right": "vllm:spec_decode_num_accepted_tokens_total"}
NUMBERS = itertools.count()


def held_out_chats():
    """Each question asked twice: the answer to the second is in the prompt."""
    for line in (ROOT / "models" / "tiny" / "heldout.jsonl").read_text().splitlines():
        chat = json.loads(line)
        prompt = chat["prompt"] + chat["answer"] + "<|end|>" + chat["prompt"]
        yield {"prompt": prompt, "max_tokens": 60, "temperature": 0}


def stories():
    for seed in range(8):
        yield {"prompt": "Once upon a time", "max_tokens": 300, "temperature": 0.7, "seed": seed}


def counting():
    for end in range(12, 31, 2):
        yield {"prompt": "<|user|>Count from 1 to %d.<|end|><|assistant|>" % end,
               "max_tokens": 100, "temperature": 0}


def of_any_model(temperature, tokens):
    def make():
        for seed in range(2):
            yield {"prompt": "The %d best things" % seed, "max_tokens": tokens, "seed": seed,
                   "temperature": temperature, "ignore_eos": True}
    return make


def ask(server, fields):
    with Connection(server.port) as connection:
        body = {"job_id": "job-%d" % next(NUMBERS), "seed": 1, **fields}
        connection.send(request_bytes("POST", "/execute", body))
        events = EventStream(connection).rest()
    assert events[-1]["type"] == "end", events[-1]
    return "".join(event["t"] for event in events if event["type"] == "token")


def counters(server):
    with Connection(server.port) as connection:
        families = prometheus.parse(connection.request("GET", "/metrics").body.decode())
    counts = {key: families[name].value() for key, name in COUNTERS.items()}
    counts["seconds"] = families["vllm:request_decode_time_seconds"].sum()
    return collections.Counter(counts)


def measure(servers, name, requests, at_once, rounds):
    rates, told = {mode: [] for mode in servers}, []
    seen = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for turn in range(rounds + 1):  # the first one only warms up
            for mode in sorted(servers, reverse=turn % 2 == 1):
                before = counters(servers[mode])
                told.append(list(pool.map(lambda r: ask(servers[mode], r), requests)))
                assert told[-1] == told[0], "speculation has changed an answer"
                after = counters(servers[mode])
                after.subtract(before)
                if turn > 0:
                    rates[mode].append((after["tokens"] - len(requests)) / after["seconds"])
                    seen.update(after if mode == "auto" else {})
    auto, off = (statistics.median(rates[mode]) for mode in ("auto", "off"))
    print("%-22s %2d at once: off %7.1f, auto %7.1f, %.2f times; drafted %.2f a token, %.0f %% right"
          % (name, at_once, off, auto, auto / off, seen["drafted"] / seen["tokens"],
             100 * seen["right"] / max(1, seen["drafted"])), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=96, help="of an answer of --model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "cpu")
    args = parser.parse_args()
    texts = {"questions asked again": held_out_chats, "counting": counting, "stories": stories}
    if args.model:
        texts = {"greedy": of_any_model(0, args.tokens), "drawn": of_any_model(1, args.tokens)}
    binary = args.build / "bin" / "llorch-cpu-candled"
    print(machine())
    model = args.model or ROOT / "models" / "tiny"
    with LlorchWorker(binary, model, "--speculate", "auto") as auto, \
            LlorchWorker(binary, model, "--speculate", "off") as off:
        for at_once in args.at_once:
            for name, make in texts.items():
                requests = list(make())
                requests *= -(-at_once // len(requests))
                measure({"auto": auto, "off": off}, name, requests, at_once, args.rounds)


if __name__ == "__main__":
    main()
