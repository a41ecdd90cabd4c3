"""What goes wrong around a worker costs those it happens to, and nobody else."""

import os
import resource
import signal
import subprocess
import sys
import threading

import pytest

from worker import Worker, request_bytes

SLOW = {"LLORCH_FAKE_STEP_MS": "10"}
CLIENT = """
import sys, time
sys.path.insert(0, %r)
from worker import Connection, EventStream, request_bytes
streams = []
for i in range(8):
    connection = Connection(int(sys.argv[1]))
    connection.send(request_bytes("POST", "/execute", {
        "job_id": "%%s-%%d" %% (sys.argv[2], i), "prompt": "Once", "max_tokens": 2000,
        "ignore_eos": True}))
    streams.append(EventStream(connection))
for stream in streams:
    stream.until("token")
print("streaming", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def bystander(job):
    """with bystander(worker): a stream that must go on throughout and end well."""

    class Bystander:
        def __init__(self, worker):
            self.worker = worker

        def __enter__(self):
            self.stream = self.worker.open_execute(job(job_id="bystander", max_tokens=200,
                                                       logprobs=0))
            self.stream.until("token")

        def __exit__(self, kind, *_):
            if kind is None:
                events = self.stream.rest()
                assert [e["i"] for e in events if e["type"] == "token"] == list(range(1, 200))
                assert events[-1]["type"] == "end" and events[-1]["tokens_out"] == 200
            self.stream.close()

    return Bystander


def test_clients_that_are_killed_cost_nothing_but_their_jobs(binary, model, bystander):
    harness = os.path.join(os.path.dirname(__file__), "..", "harness")
    with Worker(binary, ["--model", model], SLOW) as worker, bystander(worker):
        clients = [subprocess.Popen([sys.executable, "-c", CLIENT % harness, str(worker.port), name],
                                    stdout=subprocess.PIPE) for name in "abc"]
        for client in clients:
            assert client.stdout.readline() == b"streaming\n"
        assert worker.health()["running"] == 25
        for client in clients:
            client.send_signal(signal.SIGKILL)
            client.wait()
            client.stdout.close()
        worker.wait_health(running=1, waiting=0)
        for name in "abc":
            for i in range(8):
                worker.wait_event("execute_end", job_id="%s-%d" % (name, i), outcome="CANCELLED")


def reset(connection):
    connection.reset()


def close(connection):
    connection.close()


@pytest.mark.parametrize("leave", [reset, close])
@pytest.mark.parametrize("part", [1, 40, -1])
def test_requests_that_stop_in_the_middle(binary, model, job, bystander, leave, part):
    with Worker(binary, ["--model", model], SLOW) as worker, bystander(worker):
        request = request_bytes("POST", "/execute", job())
        many = [worker.connect() for _ in range(100)]
        for connection in many:
            connection.send(request[:part])
        assert worker.health()["running"] == 1
        for connection in many:
            leave(connection)
        assert worker.health()["running"] == 1


@pytest.mark.skipif(os.environ.get("LLORCH_SANITIZE", "") != "", reason="sanitizers reserve address space")
def test_requests_that_find_no_memory_are_refused_one_by_one(binary, model, job, bystander):
    with Worker(binary, ["--model", model], SLOW) as worker, bystander(worker):
        pid = worker.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        with open("/proc/%d/statm" % pid) as statm:
            size = int(statm.read().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (size + 8 * 2**20, before[1]))
        answers = []

        def ask():
            answers.append(worker.request("POST", "/tokenize", {"prompt": "word " * 2_000_000}))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 8
        for answer in answers:
            assert (answer.status, answer.json()["code"]) == (503, "UNAVAILABLE"), answer.body
            assert answer.json()["message"] == "out of memory"
            assert int(answer.headers["retry-after"]) >= 1
        assert worker.health()["status"] == "healthy"
        resource.prlimit(pid, resource.RLIMIT_AS, before)
        ask()
        assert answers[-1].status == 200
