"""load_bench and random_model against the fake worker: the counts must add up, none may be lost."""

import json
import os
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as xml

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "tests", "harness"))
from worker import Worker  # noqa: E402

WORKER, LOAD_BENCH, RANDOM_MODEL = (
    os.environ[name] for name in ("LLORCH_WORKER", "LLORCH_LOAD_BENCH", "LLORCH_RANDOM_MODEL"))
SMALL = ["--layers", "1", "--hidden", "32", "--ffn", "64", "--heads", "2", "--kv-heads", "1",
         "--vocab", "2000", "--context", "512"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "random"
    subprocess.run([RANDOM_MODEL, str(folder)] + SMALL, check=True)
    return folder


def load(port, folder, *arguments):
    """Runs load_bench: (its exit status, its JSON)."""
    file = folder / "load.json"
    done = subprocess.run([LOAD_BENCH, "--port", str(port), "--json", str(file)] + list(arguments),
                          stdout=subprocess.PIPE, timeout=120)
    return done.returncode, json.loads(file.read_text())


def add_up(requests):
    return sum(requests[name] for name in
               ("ok", "cancelled", "disconnected", "refused", "failed", "lost")) == requests["sent"]


def test_a_mixed_load_adds_up(model, tmp_path):
    plot, trace = tmp_path / "load.svg", tmp_path / "trace.csv"
    with Worker(WORKER, ["--model", model]) as worker:
        status, figures = load(
            worker.port, tmp_path, "--rate", "400", "--requests", "200", "--turns", "uniform:1-3",
            "--prompt-tokens", "uniform:5-60", "--output-tokens", "uniform:2-20",
            "--prefix-share", "0.5", "--prefix-tokens", "64", "--cancel-share", "0.1",
            "--disconnect-share", "0.1", "--probe-rate", "100", "--pid", str(worker.process.pid),
            "--plot", str(plot), "--trace", str(trace))
        worker.wait_health(running=0, waiting=0)
    requests, records = figures["requests"], figures["records"]
    assert status == 0 and requests["lost"] == requests["failed"] == requests["refused"] == 0
    assert add_up(requests) and requests["sent"] == len(records) > 200
    assert requests["disconnected"] > 0
    for record in records:
        if record["outcome"] == "ok":
            # Every token of a random model has text, so each is an event.
            assert record["events"] == record["tokens_out"] >= 2
            assert record["prompt_tokens"] >= 5 and record["ttft_ms"] > 0
    assert figures["tokens"]["out"] == sum(record["tokens_out"] for record in records)
    assert figures["probe"]["failed"] == 0 and figures["probe"]["ms"]["count"] > 0
    assert xml.parse(plot).getroot().tag.endswith("svg")
    gaps = sum(max(record["events"] - 1, 0) for record in records)
    assert len(trace.read_text().splitlines()) == 1 + gaps


def test_prompts_have_the_tokens_that_were_asked_for(model, tmp_path):
    with Worker(WORKER, ["--model", model]) as worker:
        for api in ("execute", "openai"):
            status, figures = load(
                worker.port, tmp_path, "--api", api, "--model", model.name, "--concurrency", "4",
                "--requests", "10", "--turns", "2", "--prompt-tokens", "50",
                "--follow-up-tokens", "7", "--output-tokens", "9")
            assert status == 0 and figures["requests"]["ok"] == 20
            # A second turn has all of the first before it.
            assert sorted({r["prompt_tokens"] for r in figures["records"]}) == [50, 50 + 9 + 7]
            assert figures["tokens"]["out"] == 20 * 9


def test_the_same_model_as_gguf(tmp_path):
    file = tmp_path / "random.gguf"
    subprocess.run([RANDOM_MODEL, str(file)] + SMALL, check=True)
    with Worker(WORKER, ["--model", file]) as worker:
        status, figures = load(worker.port, tmp_path, "--arrivals", "burst", "--requests", "5",
                               "--prompt-tokens", "33", "--output-tokens", "4")
    assert status == 0 and figures["requests"]["ok"] == 5
    assert figures["tokens"]["in"] == 5 * 33 and figures["tokens"]["out"] == 5 * 4


def test_refusals_are_told_from_losses(model, tmp_path):
    with Worker(WORKER, ["--model", model, "--max-batch", "1", "--max-queue", "1"]) as worker:
        status, figures = load(worker.port, tmp_path, "--arrivals", "burst", "--requests", "40",
                               "--prompt-tokens", "100", "--output-tokens", "200")
    requests = figures["requests"]
    assert status == 0 and add_up(requests) and requests["lost"] == 0
    assert requests["ok"] > 0 and requests["codes"] == {"http_429": requests["refused"]}
    assert requests["refused"] > 0 and requests["refused_without_retry_after"] == 0


def test_a_stream_without_its_end_is_lost(tmp_path):
    def answer(listener):
        for _ in range(3):
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
                               b'data: {"type":"token","t":"a","i":0}\n\n')

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        status, figures = load(listener.getsockname()[1], tmp_path, "--rate", "100", "--requests",
                               "3")
        thread.join()
    requests = figures["requests"]
    assert status == 1 and requests["lost"] == 3 and requests["codes"] == {"closed_early": 3}
