"""Contract, section 4: the ready callback, against the real binary."""

import json
import socket
import threading
import urllib.request

import pytest

from callback_server import CallbackServer
from worker import Worker


def test_it_is_posted_once_the_worker_serves(binary, model):
    seen = []

    def ask_back(message):
        # What the callback names must already answer.
        for path in ("/health", "/readyz"):
            with urllib.request.urlopen(message["uri"] + path, timeout=30) as answer:
                seen.append((path, answer.status))

    with CallbackServer(on_call=ask_back) as pool:
        url = pool.url("/v2/internal/workers/ready?token=a%20b")
        with Worker(binary, ["--model", model, "--worker-id", "w-1", "--callback-url", url,
                             "--advertise-host", "127.0.0.1"]) as worker:
            ready = worker.wait_event("ready")
            names = [x["event"] for x in worker.lines]
            vram_bytes = worker.health()["vram_bytes"]
    assert seen == [("/health", 200), ("/readyz", 200)]
    assert names.index("listening") < names.index("callback_sent") < names.index("ready")
    [(path, headers, body)] = pool.calls
    assert path == "/v2/internal/workers/ready?token=a%20b"
    assert headers["Content-Type"] == "application/json"
    message = json.loads(body)
    assert list(message)[:3] == ["worker_id", "vram_bytes", "uri"]
    assert message["worker_id"] == "w-1"
    assert message["uri"] == ready["uri"] == f"http://127.0.0.1:{ready['port']}"
    assert message["vram_bytes"] == vram_bytes > 0
    assert message["backend"] == "fake" and message["model_ref"] == "tiny"


@pytest.mark.parametrize("statuses", [(500, 503, 200), (502, 204)])
def test_server_faults_are_retried(binary, model, statuses):
    with CallbackServer(statuses) as pool:
        with Worker(binary, ["--model", model, "--callback-url", pool.url()]):
            assert len(pool.calls) == len(statuses)


def test_a_pool_manager_that_comes_up_late_is_reached(binary, model):
    with socket.socket() as reserve:
        reserve.bind(("127.0.0.1", 0))
        port = reserve.getsockname()[1]
        with Worker(binary, ["--model", model, "--callback-url", f"http://127.0.0.1:{port}/r"],
                    wait_ready=False) as worker:
            worker.wait_event("warmup_complete")
            # Requests may run while the callback is retried.
            worker.wait_health(status="healthy")
            assert worker.execute({"job_id": "a", "prompt": "x", "max_tokens": 1})
            reserve.listen()
            connection, _ = reserve.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                worker.wait_event("ready")


@pytest.mark.parametrize("status", [400, 404, 302])
def test_a_refusal_is_final_drains_and_exits_14(binary, model, status):
    with CallbackServer((status,)) as pool:
        with Worker(binary, ["--model", model, "--callback-url", pool.url()],
                    wait_ready=False) as worker:
            assert worker.wait() == 14
            [line] = worker.events("error")
            assert line["exit_code"] == 14 and str(status) in line["message"]
            assert worker.events("shutdown") and not worker.events("ready")
        assert len(pool.calls) == 1


def test_sigterm_while_the_callback_hangs_is_a_graceful_exit(binary, model):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with Worker(binary, ["--model", model, "--callback-url", url], wait_ready=False) as worker:
            silent.accept()
            assert worker.stop() == 0


def test_the_test_address_is_skipped(binary, model):
    url = "http://localhost:9999/callback"
    with Worker(binary, ["--model", model, "--callback-url", url]) as worker:
        assert not worker.events("callback_sent")


def test_a_name_is_resolved(binary, model):
    with CallbackServer() as pool:
        with Worker(binary, ["--model", model, "--callback-url", pool.url(host="localhost")]):
            assert len(pool.calls) == 1


def test_an_answer_of_endless_headers_does_not_hang(binary, model):
    with socket.socket() as endless:
        endless.bind(("127.0.0.1", 0))
        endless.listen()
        attempts = []

        def answer():
            while True:
                connection, _ = endless.accept()
                attempts.append(connection)
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000)
                except OSError:
                    pass

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{endless.getsockname()[1]}/"
        with Worker(binary, ["--model", model, "--callback-url", url], wait_ready=False) as worker:
            worker.wait_health(status="healthy")
            while len(attempts) < 2:  # it gave up on the first and tries again
                assert worker.process.poll() is None
            assert worker.stop() == 0


def hang(connection, over):
    over.wait()


def trickle(connection, over):
    for byte in b"HTTP/1.1 200 OK\r\n" * 100:
        connection.sendall(bytes([byte]))
        if over.wait(0.5):
            return


def hang_up(connection, over):
    connection.recv(1)


@pytest.mark.parametrize("misbehave", [hang, trickle, hang_up])
def test_a_pool_manager_that_misbehaves_is_asked_again_while_requests_run(binary, model, misbehave):
    over = threading.Event()
    asked = threading.Semaphore(0)

    def answer_each(listener):
        # A connection of its own each, for a hanging one stays until the end.
        for attempt in range(3):
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, attempt), daemon=True).start()

    def serve(connection, attempt):
        asked.release()
        with connection:
            try:
                if attempt < 2:
                    misbehave(connection, over)
                else:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            except OSError:
                pass

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=answer_each, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with Worker(binary, ["--model", model, "--callback-url", url], wait_ready=False) as worker:
            for attempt in range(3):
                assert asked.acquire(timeout=30)
                worker.wait_health(status="healthy")
                end = worker.execute({"job_id": str(attempt), "prompt": "x", "max_tokens": 1})[-1][1]
                assert end["type"] == "end"
            worker.wait_event("ready")
            over.set()
            assert worker.stop() == 0
