#!/usr/bin/env python3
"""`promtool check metrics` on what a worker under load tells: tools/metrics_check.py WORKER...

promtool's complaints must be those of KNOWN, no more and no fewer.
"""

import pathlib
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "harness"))

import prometheus  # noqa: E402
from worker import Worker  # noqa: E402

# Names that others have chosen: the contract's millisecond histogram, and vLLM's, each of which has
# a colon.
KNOWN = {
    "worker_inference_duration_ms metric names should not contain abbreviated units",
    'vllm:iteration_tokens_total non-counter metrics should not have "_total" suffix',
}
COLON = "%s metric names should not contain ':'"


def load(worker, client):
    """Requests that end, are cancelled, and are refused."""
    for i in range(6):
        body = {"job_id": "%d-%d" % (client, i), "prompt": "Once upon a time, %d" % i,
                "max_tokens": 20 if i % 2 else 400}
        with worker.open_execute(body) as stream:
            if stream.status == 200:
                stream.next()
            if i % 2:
                stream.body()


def scrapes(binary):
    """What the worker tells at rest, under load and after it."""
    args = ["--model", ROOT / "models" / "tiny", "--max-batch", "2", "--max-queue", "2"]
    with Worker(binary, args) as worker:
        def scrape():
            answer = worker.request("GET", "/metrics")
            assert answer.status == 200
            return answer.body.decode()

        yield scrape()
        clients = [threading.Thread(target=load, args=(worker, i)) for i in range(6)]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            yield scrape()
            clients[0].join(0.05)
        yield scrape()


def check(text):
    families = prometheus.parse(text)
    allowed = KNOWN | {COLON % name for name in families if name.startswith("vllm:")}
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True,
                            text=True)
    said = set((result.stdout + result.stderr).splitlines())
    # 3: it has complaints. An error in the text is 1.
    assert result.returncode == 3 and said == allowed, (
        result.returncode, sorted(said ^ allowed))
    return families


def main():
    for binary in sys.argv[1:]:
        count = 0
        for text in scrapes(binary):
            families = check(text)
            count += 1
        requests = families["worker_requests_total"]
        for outcome in ["max_tokens", "cancelled", "refused"]:
            assert requests.value(outcome=outcome) > 0, outcome
        print("%s: %d scrapes, %d families, %d bytes" % (
            pathlib.Path(binary).name, count, len(families), len(text)))


main()
