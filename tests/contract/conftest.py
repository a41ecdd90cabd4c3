"""Workers for the tests of the contract; see tests/contract/CMakeLists.txt for the binaries."""

import contextlib
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "harness"))

from worker import Gate, Worker  # noqa: E402


@pytest.fixture(scope="session")
def binary():
    return os.environ["LLORCH_WORKER"]


@pytest.fixture(scope="session")
def model():
    return str(ROOT / "models" / "tiny")


@pytest.fixture(scope="session")
def worker(binary, model):
    """One fake worker for all tests that leave it as they found it."""
    with Worker(binary, ["--model", model]) as running:
        yield running
        assert running.stop() == 0, running.stderr


@pytest.fixture
def gated(binary, model, tmp_path):
    """Starts a fake worker whose steps the test lets through one by one: `with gated(*args)`."""

    @contextlib.contextmanager
    def start(*args, wait_ready=True):
        gate = Gate(tmp_path)
        if wait_ready:
            gate.open()
        running = Worker(binary, ["--model", model, *args], gate.env, wait_ready=wait_ready)
        with running:
            try:
                gate.shut()
                yield running, gate
            finally:
                gate.open()
        gate.close()

    return start


_last_job = 0


@pytest.fixture
def job():
    """A valid body under a new job id, with these members changed; None removes one."""

    def make(**fields):
        global _last_job
        _last_job += 1
        body = {"job_id": "job-%d" % _last_job, "prompt": "Once upon a time", "max_tokens": 4,
                "ignore_eos": True}
        body.update(fields)
        return {k: v for k, v in body.items() if v is not None}

    return make
