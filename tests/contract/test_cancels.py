"""Contract, section 5: a cancel by whom ever, wherever the request is. Steps are let through one by
one: the one under way when the client leaves is the last that the request can have been part of."""

import signal
import time

import pytest

from prometheus import parse

SUBJECT = {"job_id": "subject", "max_tokens": 300, "ignore_eos": True}
LONG = "Once upon a time " * 300  # more tokens than three steps take
# Where the subject is: its prompt, how many sequences a batch has, steps it may take, who runs then.
PLACES = {"queue": ("Once", 1, 0, 1), "prefill": (LONG, 2, 1, 2), "decode": ("Once", 2, 3, 2)}


class Scene:
    """A neighbour that decodes, and the subject in its place; the next step waits at the gate."""

    def __init__(self, worker, gate, job, place):
        self.worker, self.gate = worker, gate
        prompt, _, steps, running = PLACES[place]
        self.neighbour = worker.open_execute(job(max_tokens=200, logprobs=0))
        self.step()
        self.neighbour.until("token")
        self.alone = self.figures()
        self.subject = worker.open_execute({**SUBJECT, "prompt": prompt})
        assert self.subject.status == 200
        self.step()  # the one that had begun before the subject came
        for _ in range(steps):
            self.step()
        worker.wait_health(running=running, waiting=2 - running)
        self.before = self.figures()

    def figures(self):
        families = parse(self.worker.request("GET", "/metrics").body.decode())
        ended = families["worker_requests_total"]
        return {"steps": families["worker_steps_total"].value(),
                "blocks": families["worker_kv_blocks"].value(state="used"),
                "connections": families["worker_connections"].value(),
                **{end["outcome"]: ended.value(**end) for end in ended.labels()}}

    def wait(self, figure, value):
        end = time.monotonic() + 60
        while self.figures()[figure] != value:
            assert time.monotonic() < end, "%s never became %d" % (figure, value)
            time.sleep(0.005)

    def step(self):
        done = self.figures()["steps"]
        self.gate.let(1)
        self.wait("steps", done + 1)

    def check_gone(self, outcome="cancelled"):
        """One step later only the neighbour is there, and it goes on."""
        self.step()
        self.worker.wait_health(running=1, waiting=0)
        now = self.figures()
        assert now["steps"] == self.before["steps"] + 1
        assert now["blocks"] <= self.alone["blocks"] + 1  # by which the neighbour may have grown
        assert now[outcome] == self.before[outcome] + 1
        self.gate.open()
        events = self.neighbour.rest()
        assert events[-1]["type"] == "end" and events[-1]["tokens_out"] == 200

    def check_told(self, code, retriable):
        events = self.subject.rest()
        assert [e["type"] for e in events].count("error") == 1
        assert (events[-1]["type"], events[-1]["code"], events[-1]["retriable"]) == (
            "error", code, retriable)


@pytest.fixture(params=list(PLACES))
def scene(request, gated, job):
    batch = PLACES[request.param][1]
    with gated("--max-batch", str(batch), "--shutdown-timeout", "60") as (worker, gate):
        scene = Scene(worker, gate, job, request.param)
        yield scene
        scene.neighbour.close()
        scene.subject.close()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_closed_socket(scene, how):
    getattr(scene.subject.connection, how)()
    scene.wait("connections", 2)  # the neighbour's and this question's: the worker has seen it
    scene.check_gone()


def test_cancel(scene):
    assert scene.worker.request("POST", "/cancel", {"job_id": "subject"}).status == 202
    scene.check_gone()
    scene.check_told("CANCELLED", False)


def test_a_second_signal(scene):
    scene.worker.signal(signal.SIGTERM)
    scene.worker.wait_health(status="unhealthy", reason="draining")
    scene.worker.signal(signal.SIGTERM)
    scene.check_told("CANCELLED", True)
    assert scene.neighbour.rest()[-1]["code"] == "CANCELLED"
    scene.gate.open()
    assert scene.worker.wait() == 0, scene.worker.stderr
