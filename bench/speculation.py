#!/usr/bin/env python3
"""What --speculate auto gains over off: two workers, the same requests to both in turns.

  bench/speculation.py                  models/tiny: chats that ask a question again, and stories
  bench/speculation.py --model PATH     any model: texts that repeat themselves, and drawn ones

The answers must be equal. Rates are tokens a second of one request, from its first token to its
last, the middle of the rounds.
"""

import argparse
import collections
import concurrent.futures
import functools
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


def of_any_model(tokens, **fields):
    return lambda: [{"prompt": "The %d best things" % seed, "max_tokens": tokens, "seed": seed,
                     "ignore_eos": True, **fields} for seed in range(2)]


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
    rates, told, seen = {mode: [] for mode in servers}, {}, collections.Counter()
    groups = [requests[i:i + at_once] for i in range(0, len(requests), at_once)]
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for turn in range(rounds + 1):  # the first one only warms up
            before = {mode: counters(servers[mode]) for mode in servers}
            for i, group in enumerate(groups):  # in short turns: the machine is others' too
                for mode in sorted(servers, reverse=(turn + i) % 2 == 1):
                    answers = list(pool.map(functools.partial(ask, servers[mode]), group))
                    assert answers == told.setdefault(i, answers), "speculation changed an answer"
            for mode in servers if turn > 0 else ():
                counts = counters(servers[mode])
                counts.subtract(before[mode])
                rates[mode].append((counts["tokens"] - len(requests)) / counts["seconds"])
                seen.update(counts if mode == "auto" else {})
    auto, off = (statistics.median(rates[mode]) for mode in ("auto", "off"))
    times = statistics.median(a / b for a, b in zip(rates["auto"], rates["off"]))
    print("%-22s %2d at once: off %7.1f, auto %7.1f, %.2f times; drafted %.2f a token, %.0f %% right"
          % (name, at_once, off, auto, times, seen["drafted"] / seen["tokens"],
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
        # A penalty below 1 makes even random weights repeat themselves.
        texts = {"repeats": of_any_model(args.tokens, temperature=0, repetition_penalty=0.2),
                 "drawn": of_any_model(args.tokens, temperature=1)}
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
