#!/usr/bin/env python3
"""Measures what docs/SERVING.md shows: starts workers, puts load on them, keeps figures and plots.

  bench/serving.py                      all figures, about 40 minutes on two cores
  bench/serving.py streams turn         some of them
  bench/serving.py --small              all on a model of a few MB: does it run at all?
  bench/serving.py batch mixed --llama-server PATH    the same of llama.cpp, on the same GGUF file

Writes JSON and SVG into build/bench-out. The exit status is 1 if a limit is not kept. Figures are of
the machine as it is: run it with nothing beside it, and look at the probe's lines.
"""

import argparse
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "harness"))
from worker import Worker  # noqa: E402

SMALL_SHAPE = ["--layers", "2", "--hidden", "256", "--ffn", "512", "--heads", "4",
               "--kv-heads", "2", "--vocab", "4000"]


class Server:
    """A server under test: where it listens, what load_bench must know of it."""

    def __init__(self, port, pid, api, model):
        self.port, self.pid, self.api, self.model = port, pid, api, model


class LlorchWorker(Worker):
    def __init__(self, binary, model, *flags):
        # Reading its log would take processor time from it; without one, /readyz tells.
        self.free_port = free_port()
        super().__init__(binary, ["--model", model, "--port", self.free_port, "--log-level",
                                  "warn", *flags])

    def __enter__(self):
        self.start()
        wait_for(self.free_port, "/readyz", self.process)
        return Server(self.free_port, self.process.pid, "execute", "")


class LlamaServer:
    """llama.cpp's server with as many slots as we have sequences, and the same context for each."""

    def __init__(self, binary, model, slots, context):
        self.port = free_port()
        self.command = [binary, "-m", str(model), "--port", str(self.port), "-np", str(slots),
                        "-c", str(slots * context), "-t", str(os.cpu_count())]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        wait_for(self.port, "/health", self.process)
        return Server(self.port, self.process.pid, "openai", "any")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, path, process, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit("the server ended with %d" % process.returncode)
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d%s" % (port, path)) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit("the server was not ready within %d s" % seconds)


class Bench:
    def __init__(self, args):
        self.args, self.claims = args, []
        self.out = args.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.bin = args.build / "bench"
        self.cpu = args.build / "bin" / "llorch-cpu-candled"
        self.fake = args.build / "tests" / "llorch-fake-candled"

    # Models

    def tiny(self):
        return ROOT / "models" / "tiny"

    def random(self):
        """The 1B shape; a GGUF file, because llama.cpp reads it too."""
        path = self.out / ("small.gguf" if self.args.small else "1b.gguf")
        if not path.exists():
            subprocess.run([self.bin / "random_model", path]
                           + (SMALL_SHAPE if self.args.small else []), check=True)
        return path

    def size(self, full, small):
        return str(small if self.args.small else full)

    # Load

    def command(self, server, name, *arguments):
        return [self.bin / "load_bench", "--port", str(server.port), "--pid", str(server.pid),
                "--api", server.api, "--model", server.model, "--label", name,
                "--json", self.file(name, "json"), "--plot", self.file(name, "svg"), *arguments]

    def file(self, name, kind):
        return self.out / ("%s.%s" % (name.replace(" ", "-").replace(",", ""), kind))

    def load(self, server, name, *arguments):
        """Runs load_bench to its end and returns its figures."""
        print("\n== " + name, flush=True)
        subprocess.run(self.command(server, name, *arguments))
        return json.loads(self.file(name, "json").read_text())

    def claim(self, name, value, limit, unit, at_least=False):
        """A figure and the limit that is promised; others' servers have figures alone."""
        if "llama.cpp" in name:
            self.claims.append({"figure": name, "value": value, "unit": unit})
            print("-- %s: %.4g %s" % (name, value, unit))
            return
        kept = value >= limit if at_least else value <= limit
        self.claims.append({"claim": name, "value": value, "limit": limit, "unit": unit,
                            "kept": kept})
        print("-- %s: %.4g %s (%s %.4g): %s" % (name, value, unit,
              "at least" if at_least else "at most", limit, "kept" if kept else "NOT KEPT"))

    def none_lost(self, name, figures):
        requests = figures["requests"]
        self.claim(name + ": lost or failed", requests["lost"] + requests["failed"], 0, "requests")


def streams(bench):
    """A thousand streams and a health probe beside them: a worker as it comes, and one that has all
    of them in every step."""
    count = bench.size(1000, 100)
    together = ["--max-batch", count, "--max-queue", count, "--kv-memory", "3000000000"]
    for kind, binary, flags in (("fake", bench.fake, together),
                                ("cpu", bench.cpu, ["--max-queue", count]),
                                ("cpu together", bench.cpu, together)):
        with LlorchWorker(binary, bench.tiny(), *flags) as server:
            name = "streams " + kind
            bench.load(server, name + ", one stream", "--words", "0", "--concurrency", "1",
                       "--duration", bench.size(10, 1), "--probe-rate", "100")
            figures = bench.load(
                server, name, "--words", "0", "--concurrency", count,
                "--duration", bench.size(40, 2), "--prompt-tokens", "uniform:20-200",
                "--output-tokens", "uniform:100-300", "--probe-rate", "100")
        bench.claim(name + ": open at once", figures["requests"]["most_at_once"], int(count),
                    "streams", at_least=True)
        bench.none_lost(name, figures)
        bench.claim(name + ": p99 of /health", figures["probe"]["ms"]["p99"], 5, "ms")


def prefill(bench):
    """Eight streams decode; then a long prompt comes."""
    prompt = bench.size(16000, 4000)
    with LlorchWorker(bench.cpu, bench.random(), "--context-length", "32768", "--max-batch", "16",
                      "--kv-memory", "2000000000") as server:
        trace = bench.out / "prefill.csv"
        print("\n== prefill, eight streams", flush=True)
        decoding = subprocess.Popen(bench.command(
            server, "prefill, eight streams", "--concurrency", "8", "--requests", "8",
            "--prompt-tokens", "64", "--output-tokens", "2000", "--trace", trace))
        time.sleep(float(bench.size(40, 0.6)))
        begin = time.monotonic()
        figures = bench.load(server, "prefill, long prompt", "--arrivals", "burst", "--requests",
                             "1", "--prompt-tokens", prompt, "--output-tokens", "2", "--seed",
                             "2")
        first = figures["steady_clock_start"] + figures["ttft_ms"]["max"] / 1e3
        decoding.wait()
    gaps = [tuple(map(float, line.split(",")[:2])) for line in trace.read_text().split()[1:]]
    # Idle: when all eight have begun (their own prefill is over) and the long prompt is not there.
    settled = gaps[0][0] + (begin - gaps[0][0]) / 4
    idle = sorted(gap for at, gap in gaps if settled <= at < begin)
    beside = sorted(gap for at, gap in gaps if begin + gap <= at < first)
    step = at_share(idle, 0.5)
    print("idle: %d gaps, p50 %.1f ms, p99 %.1f ms; beside the prompt: %d gaps, p50 %.1f ms, "
          "p99 %.1f ms, max %.1f ms; its first token after %.1f s"
          % (len(idle), step * 1e3, at_share(idle, 0.99) * 1e3, len(beside),
             at_share(beside, 0.5) * 1e3, at_share(beside, 0.99) * 1e3, beside[-1] * 1e3,
             figures["ttft_ms"]["max"] / 1e3))
    bench.claim("prefill: p99 between two tokens beside a prompt of %s" % prompt,
                at_share(beside, 0.99) * 1e3, (2 * at_share(idle, 0.99) + step) * 1e3, "ms")


def at_share(ascending, share):
    return ascending[min(int(share * len(ascending)), len(ascending) - 1)]


def servers(bench, slots, context):
    """Ours, and llama.cpp's if we were told where it is."""
    yield "llorch", LlorchWorker(bench.cpu, bench.random(), "--max-batch", str(slots),
                                 "--context-length", str(context))
    if bench.args.llama_server:
        yield "llama.cpp", LlamaServer(bench.args.llama_server, bench.random(), slots, context)


def batch(bench):
    """Sixteen requests together against one alone, in turns."""
    output = bench.size(128, 32)
    for kind, start in servers(bench, 16, 2048):
        rates = {1: [], 16: []}
        with start as server:
            for turn in range(3):
                for count in rates:
                    name = "batch %s, %d, turn %d" % (kind, count, turn)
                    trace = bench.file(name, "csv")
                    bench.load(server, name, "--arrivals", "burst", "--requests", str(count),
                               "--prompt-tokens", "32", "--output-tokens", output, "--seed",
                               str(100 * turn + count), "--trace", trace)
                    rates[count].append(decode_rate(trace, count))
        print("tokens a second:", {k: ["%.1f" % r for r in v] for k, v in rates.items()})
        ratio = sorted(together / alone for alone, together in zip(rates[1], rates[16]))[1]
        bench.claim("batch %s: 16 requests together against one" % kind, ratio, 6, "times",
                    at_least=True)


def decode_rate(trace, count):
    """Tokens a second while all of the requests decode."""
    times = {}
    for line in trace.read_text().split()[1:]:
        at, _, request = line.split(",")
        times.setdefault(request, []).append(float(at))
    assert len(times) == count, "%d of %d requests gave tokens" % (len(times), count)
    begin, end = max(t[0] for t in times.values()), min(t[-1] for t in times.values())
    return sum(begin < at <= end for t in times.values() for at in t) / (end - begin)


def turn(bench):
    """A conversation's second turn has all of the first before it."""
    prompt = int(bench.size(4096, 2048))
    for kind, start in servers(bench, 4, 8192):
        name = "turn " + kind
        with start as server:
            figures = bench.load(server, name, "--concurrency", "1", "--requests", "3", "--turns",
                                 "2", "--prompt-tokens", str(prompt), "--follow-up-tokens", "16",
                                 "--output-tokens", "16")
        cold, warm = figures["first_turn_ttft_ms"]["p50"], figures["later_turn_ttft_ms"]["p50"]
        cached = min(r["cached_tokens"] for r in figures["records"] if r["turn"] == 1)
        bench.claim(name + ": cached of a second turn", cached, prompt, "tokens", at_least=True)
        bench.claim(name + ": first token, cold against warm", cold / warm, 20, "times",
                    at_least=True)


def mixed(bench):
    """An open loop: conversations, shared prefixes, people who leave."""
    for kind, start in servers(bench, 16, 4096):
        name = "mixed " + kind
        with start as server:
            leave = ["--disconnect-share", "0.1"]
            figures = bench.load(
                server, name, "--rate", bench.size(0.2, 20), "--duration", bench.size(240, 3),
                "--prompt-tokens", "0.8*lognormal:60,0.8,800+0.2*uniform:200-1000",
                "--output-tokens", "lognormal:60,0.6,300", "--turns", "0.6*1+0.4*uniform:2-4",
                "--follow-up-tokens", "lognormal:30,0.6,200", "--think", bench.size(5, 0.1),
                "--prefix-share", "0.6", "--prefix-tokens", "400", "--prefix-groups", "3",
                "--probe-rate", "50", *leave)
        bench.none_lost(name, figures)


FIGURES = {f.__name__: f for f in (streams, prefill, batch, turn, mixed)}


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.split(":")[1].strip() for x in info if x.startswith("model name")), "?")
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE).stdout.strip()
    return {"processor": model, "cores": os.cpu_count(), "kernel": platform.release(),
            "load_before": os.getloadavg()[0], "commit": commit}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=", ".join(FIGURES))
    parser.add_argument("--small", action="store_true", help="a small model, seconds each")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "cpu")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "bench-out")
    parser.add_argument("--llama-server", metavar="PATH", help="measured beside ours")
    args = parser.parse_args()
    unknown = set(args.figures) - set(FIGURES)
    if unknown:
        parser.error("no figure %s; there are %s" % (", ".join(unknown), ", ".join(FIGURES)))
    bench = Bench(args)
    where = machine()
    print(where)
    for name in args.figures or FIGURES:
        FIGURES[name](bench)
    (bench.out / "serving.json").write_text(
        json.dumps({"machine": where, "claims": bench.claims}, indent=1) + "\n")
    return 0 if all(claim.get("kept", True) for claim in bench.claims) else 1


if __name__ == "__main__":
    sys.exit(main())
