#!/usr/bin/env python3
"""Asks real workers on a real device: tools/gpu/worker_checks.py WORKER MODEL

Prints a JSON line for each check as soon as it is known. MODEL is models/tiny, whose held-out
questions it is asked.
"""

import concurrent.futures
import itertools
import json
import pathlib
import signal
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "harness"))
import prometheus  # noqa: E402
from worker import Worker  # noqa: E402

ENERGY = "worker_energy_joules_total"
RIGHT_ANSWERS = 48  # of 50: in f32 all are right, and 16 bits may tip one
NO_SUCH_DEVICE = 99
JOBS = itertools.count()


def job(**fields):
    return {"job_id": "check-%d" % next(JOBS), "prompt": "Once upon a time", "max_tokens": 48,
            "ignore_eos": True, **fields}


def sixteen():
    """Bodies of different lengths, half of them drawn; logprobs show what bits were computed."""
    return [job(prompt="Once upon a time, " + "there was a fox and a bird. " * (i % 5) + str(i),
                seed=i, temperature=0.8 if i % 2 else 0, logprobs=2) for i in range(16)]


def again(body):
    return {**body, "job_id": "check-%d" % next(JOBS)}


class Checks:
    def __init__(self, binary, model):
        self.binary, self.model = binary, model
        self.first = None  # the worker on device 0 by name, that most checks are about
        self.told = None   # what it answered to sixteen() one after the other

    def worker(self, *args, **options):
        return Worker(self.binary, ["--model", self.model, *args], **options)

    # Each returns what is worth telling, or fails.

    def starts_on_device_0(self):
        self.first = self.worker("--cuda-device", "0")
        begin = time.monotonic()
        self.first.__enter__()
        took = time.monotonic() - begin
        device = self.first.events("device_ready")[0]
        assert device["verified"] is True and device["total_bytes"] > 0, device
        assert self.first.events("startup")[0]["cuda_device"] == 0
        return "%s, ready after %.2f s" % (device["name"], took)

    def compares_layers_with_the_cpu(self):
        lines = self.first.events("parity_checked")
        assert len(lines) == 1, "%d lines of parity_checked" % len(lines)
        line = lines[0]
        assert line["layers"] >= 1 and 0 <= line["worst"] <= 1, line
        return "%d layers, at worst %.2g of the bound, %.0f ms" % (
            line["layers"], line["worst"], line["ms"])

    def answers_held_out_questions(self):
        lines = (pathlib.Path(self.model) / "heldout.jsonl").read_text().splitlines()
        chats = [json.loads(line) for line in lines]
        bodies = [job(prompt=chat["prompt"], max_tokens=80, temperature=0, ignore_eos=False)
                  for chat in chats]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            texts = list(pool.map(lambda body: text_of(self.first.execute(body)), bodies))
        right = sum(text == chat["answer"] for text, chat in zip(texts, chats))
        assert right >= RIGHT_ANSWERS, "%d of %d right, at least %d must be" % (
            right, len(chats), RIGHT_ANSWERS)
        return "%d of %d right" % (right, len(chats))

    def says_the_same_twice(self):
        bodies = sixteen()
        self.told = [self.first.told(body) for body in bodies]
        same([self.first.told(again(body)) for body in bodies], self.told)
        return "16 requests, drawn ones among them, with logprobs"

    def says_the_same_beside_15_others(self):
        assert self.told, "nothing was told alone"
        same(self.first.told_together(sixteen()), self.told)

    def two_workers_share_the_device(self):
        """The other one takes the device that is the default."""
        assert self.told, "nothing was told alone"
        with self.worker() as other:
            assert other.events("startup")[0]["cuda_device"] == 0
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                both = list(pool.map(lambda worker: worker.told_together(sixteen()),
                                     (self.first, other)))
            for answers in both:
                same(answers, self.told)
            assert other.stop() == 0, other.stderr

    def tells_energy(self):
        before = self.drawn()
        end = self.first.execute(job(max_tokens=400))[-1][1]
        total = self.drawn() - before
        assert end["type"] == "end" and end["energy_j"] > 0, end
        # The meter may lag behind; what is told is rounded to four digits.
        assert total > 0 and total >= 0.9 * end["energy_j"], (total, end)
        return "%.3g J for %d tokens" % (end["energy_j"], end["tokens_out"])

    def drawn(self):
        families = prometheus.parse(self.first.request("GET", "/metrics").body.decode())
        assert ENERGY in families, "no " + ENERGY
        return families[ENERGY].value()

    def drains_on_sigterm(self):
        with self.first.open_execute(job(max_tokens=1000, temperature=1, seed=5)) as stream:
            stream.until("token")
            self.first.signal(signal.SIGTERM)
            end = stream.rest()[-1]
        assert end["type"] == "end" and end["tokens_out"] == 1000, end
        status = self.first.wait()
        assert status == 0, "exit %d" % status

    def refuses_a_device_that_is_not_there(self):
        worker = self.worker("--cuda-device", str(NO_SUCH_DEVICE), wait_ready=False)
        worker.start()
        try:
            status = worker.wait()
            assert status == 11, "exit %d" % status
            error = worker.events("error")[0]
            assert error["exit_code"] == 11 and str(NO_SUCH_DEVICE) in error["message"], error
            assert json.loads(worker.stderr.splitlines()[-1])["event"] == "error", worker.stderr
            return error["message"]
        finally:
            worker.kill()

    def close(self):
        if self.first and self.first.process:
            self.first.kill()


def same(answers, wanted):
    different = [i for i, pair in enumerate(zip(answers, wanted)) if pair[0] != pair[1]]
    assert len(answers) == len(wanted) and not different, "requests %s got another answer" % (
        ", ".join(map(str, different)))


def text_of(events):
    assert events[-1][1]["type"] == "end", events[-1]
    return "".join(event["t"] for _, event in events if event["type"] == "token")


ALL = [Checks.starts_on_device_0, Checks.compares_layers_with_the_cpu,
       Checks.answers_held_out_questions, Checks.says_the_same_twice,
       Checks.says_the_same_beside_15_others, Checks.two_workers_share_the_device,
       Checks.tells_energy, Checks.drains_on_sigterm, Checks.refuses_a_device_that_is_not_there]


def title(check):
    return "worker " + check.__name__.replace("_", " ")


def main():
    checks = Checks(*sys.argv[1:3])
    try:
        for check in ALL:
            begin = time.monotonic()
            try:
                told, passed = check(checks) or "", True
            except Exception as error:  # whatever goes wrong is what the report is for
                told, passed = "%s: %s" % (type(error).__name__, error), False
            print(json.dumps({"check": title(check), "passed": passed,
                              "seconds": time.monotonic() - begin, "detail": told[:300]}),
                  flush=True)
    finally:
        checks.close()


if __name__ == "__main__":
    main()
