"""Nobody waits for who reads the log: stdout may be full, closed, or a pipe that nobody empties."""

import fcntl
import json
import os
import subprocess
import time

from callback_server import CallbackServer
from test_life_cycle import job
from worker import DEADLINE_S, Connection, EventStream, request_bytes


class Unread:
    """A worker whose stdout is the test's own; its port comes through the ready callback."""

    def __init__(self, binary, model, stdout, *args):
        self.pool = CallbackServer()
        self.process = subprocess.Popen(
            [binary, "--model", model, "--port", "0", "--host", "127.0.0.1",
             "--callback-url", self.pool.url(), *args],
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE)

    def __enter__(self):
        assert self.pool.called.wait(DEADLINE_S)
        self.port = int(json.loads(self.pool.calls[0][2])["uri"].rsplit(":", 1)[1])
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self.pool.__exit__()

    def execute(self, body):
        with Connection(self.port) as connection:
            connection.send(request_bytes("POST", "/execute", body))
            return EventStream(connection).rest()

    def health(self):
        with Connection(self.port) as connection:
            return connection.request("GET", "/health").status


def serves(worker, jobs):
    for i in range(jobs):
        assert worker.execute(job("job-%d" % i, max_tokens=2))[-1]["type"] == "end"
    assert worker.health() == 200


def test_a_full_disk(binary, model):
    with open("/dev/full", "w") as full, Unread(binary, model, full) as worker:
        serves(worker, 20)
        worker.process.terminate()
        assert worker.process.wait(DEADLINE_S) == 0


def test_a_closed_pipe(binary, model):
    read, write = os.pipe()
    with Unread(binary, model, write) as worker:
        os.close(write)
        os.close(read)
        serves(worker, 20)
        worker.process.terminate()
        assert worker.process.wait(DEADLINE_S) == 0


def small_pipe():
    read, write = os.pipe()
    fcntl.fcntl(write, 1031, 4096)  # F_SETPIPE_SZ
    return read, write


def test_a_pipe_that_nobody_reads(binary, model):
    read, write = small_pipe()
    with Unread(binary, model, write) as worker:
        os.close(write)
        serves(worker, 60)  # some 40 KiB of log
        worker.process.terminate()
        begin = time.monotonic()
        assert worker.process.wait(DEADLINE_S) == 0
        assert time.monotonic() - begin < DEADLINE_S / 2
    os.close(read)


def test_what_found_no_room_is_counted_and_told(binary, model):
    read, write = small_pipe()
    with Unread(binary, model, write) as worker:
        os.close(write)
        long_id = "x" * 30_000  # one line of the log holds it
        for i in range(30):
            assert worker.execute(job(long_id + str(i), max_tokens=1))[-1]["type"] == "end"
        with os.fdopen(read, "rb") as log:
            lines, told = 0, None
            while told is None:
                line = json.loads(log.readline())
                lines += 1
                if line["event"] == "log_lines_lost":
                    told = line["lines"]
        assert told > 0 and line["level"] == "warn"


def test_a_failed_start_does_not_wait_for_its_reader(binary, model):
    read, write = small_pipe()
    os.set_blocking(write, False)
    try:
        while os.write(write, b"x" * 512):
            pass
    except BlockingIOError:
        pass
    os.set_blocking(write, True)
    done = subprocess.run([binary, "--model", model, "--port", "0", "--kv-memory", "1"],
                          stdout=write, stderr=subprocess.PIPE, timeout=DEADLINE_S)
    assert done.returncode == 12
    assert json.loads(done.stderr)["exit_code"] == 12
    os.close(read)
    os.close(write)
