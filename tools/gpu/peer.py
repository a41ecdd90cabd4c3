"""Ours beside transformers on the same device, in turns: one stream of bf16, decode and prefill."""

import dataclasses
import json
import os
import pathlib
import queue
import signal
import statistics
import subprocess
import threading

from gpu import counts
from gpu.figures import NotMeasured, attempt, label, model_bench
from gpu.programs import Done

PART = "beside transformers"
CHILD = pathlib.Path(__file__).resolve().parent / "transformers_peer.py"
DEPTH, TOKENS, PROMPT = 512, 32, 2048
TIMES_AS_FAST = 3
LOAD_LIMIT, ASK_LIMIT = 90, 60  # seconds


class Peer:
    """transformers_peer.py, as long as the block lasts."""

    def __init__(self, python, log):
        self.command, self.log = [python, str(CHILD)], log

    def __enter__(self):
        self.answers = queue.Queue()
        # generate() compiles a model with a static cache by itself; that takes minutes.
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, env={**os.environ, "TORCHDYNAMO_DISABLE": "1"})
        self.complaints = []
        self.threads = [threading.Thread(target=self._read, daemon=True),
                        threading.Thread(target=lambda: self.complaints.extend(
                            self.process.stderr), daemon=True)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait()
        for thread in self.threads:
            thread.join(5)
        self.process.stdin.close()
        self.log.add(self.command, Done(status, "".join(self.complaints), 0))

    def _read(self):
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def ask(self, limit, do, **arguments):
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.answers.get(timeout=limit)
        except BrokenPipeError:
            line = None
        except queue.Empty:
            raise NotMeasured("transformers took more than %.0f s to %s" % (limit, do))
        if line is None:
            self.threads[1].join(5)
            last = self.complaints[-1].strip() if self.complaints else "no reason given"
            raise NotMeasured("transformers' process has ended: " + last)
        answer = json.loads(line)
        if "error" in answer:
            raise NotMeasured("transformers: " + answer["error"])
        return answer


def compare(ctx, budget):
    shape = counts.LLAMA_1B if ctx.quick else counts.LLAMA_8B
    attempt(ctx, budget, PART, label(shape) + " bf16 beside transformers",
            lambda: _compare(ctx, budget, shape))


def _compare(ctx, budget, shape):
    ours, theirs = {"decode": [], "prefill": []}, {"decode": [], "prefill": []}
    with Peer(ctx.peer_python, ctx.runner.log) as peer:
        said = peer.ask(budget.of(LOAD_LIMIT), "load", shape=dataclasses.asdict(shape),
                        context=2 * PROMPT)
        if said["parameters"] != shape.parameters() or "bfloat16" not in said["dtype"]:
            raise NotMeasured("transformers' model is another one: %r" % said)
        _theirs(peer, budget)  # the first time is a warm-up
        for turn in range(2 if ctx.quick else 3):
            sides = [(ours, lambda: _ours(ctx, budget, shape)),
                     (theirs, lambda: _theirs(peer, budget))]
            for rates, measured in sides if turn % 2 == 0 else sides[::-1]:
                for case, rate in measured().items():
                    rates[case].append(rate)
    ctx.report.facts["beside"] = "transformers %s, torch %s" % (said["transformers"],
                                                               said["torch"])
    what = {"decode": "decode of one stream behind %d" % DEPTH, "prefill": "prefill of %d" % PROMPT}
    for case, name in what.items():
        ratio = statistics.median(o / t for o, t in zip(ours[case], theirs[case]))
        ctx.report.figure(
            PART, "%s bf16 beside transformers, %s" % (label(shape), name),
            statistics.median(ours[case]), "tok/s", ratio=ratio, of="transformers",
            at_least=TIMES_AS_FAST if case == "decode" else None,
            runs=[list(pair) for pair in zip(ours[case], theirs[case])],
            detail="theirs %.1f tok/s: %s, static cache, not compiled; medians of rounds in turns"
                   % (statistics.median(theirs[case]), said["attention"]))


def _ours(ctx, budget, shape):
    said = model_bench(ctx, budget, shape, "bf16", "--prefill", PROMPT, "--step-tokens", PROMPT,
                       "--sequences", 1, "--depth", DEPTH, "--tokens", TOKENS, "--repeats", 3)
    return {case: statistics.median(said[case][0]["tok_s"]) for case in ("decode", "prefill")}


def _theirs(peer, budget):
    def seconds(*arguments, **fields):
        return peer.ask(budget.of(ASK_LIMIT), *arguments, **fields)["seconds"]

    return {"decode": 1 / seconds("decode", depth=DEPTH, tokens=TOKENS),
            "prefill": PROMPT / seconds("prefill", tokens=PROMPT)}
