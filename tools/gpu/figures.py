"""Measures what the backend and the worker do, beside what the device does at most.

Ceilings are the best of their repeats, our own figures the middle of theirs.
"""

import json
import pathlib
import shutil
import statistics
import sys
import tempfile

from gpu import counts
from gpu.programs import WORKER
from gpu.report import FAILED, PASSED, TIMED_OUT

PART = "figures"
HERE = pathlib.Path(__file__).resolve().parent
CUBLAS = "LLORCH_CUDA_CUBLAS"  # never, gated (the default) or always: see docs/gpu/README.md
DEPTH, TOKENS, STREAMS = 512, 64, 64
STEP_TOKENS = 2048  # of a prompt in one step
FEW_LAYERS = 8  # as good as all, where two ways to compute are compared
READY_FACTOR, READY_EXTRA_S = 1.2, 3
RUN_LIMIT = 90  # seconds of one program
MOST_PACKED = 1.1  # of a weight's bytes, as a device may lay it out
DECODE_LIMITS = {("llama-3.1-8b", "bf16"): 0.85, ("llama-3.1-8b", "q4_0"): 0.75,
                 ("llama-3.1-8b", "q4_k"): 0.75, ("llama-3.2-1b", "bf16"): 0.70}
PREFILL_LIMIT, STREAMS_LIMIT, DETERMINISM_LIMIT = 0.55, 30, 0.05


class NotMeasured(Exception):
    """With the reason."""


def measure(ctx, budget):
    """All of it. A figure that fails is told as not measured, and the next one goes on."""
    steps = [("copy bandwidth, upload rate, bf16 peak", lambda: ceilings(ctx, budget)),
             ("8B bf16", lambda: large_bf16(ctx, budget)),
             ("8B q4_0, decode of one stream", lambda: decode(ctx, budget, counts.LLAMA_8B, "q4_0")),
             ("1B bf16, decode of one stream", lambda: decode(ctx, budget, counts.LLAMA_1B, "bf16"))]
    if not ctx.quick:
        steps += [("8B %s, decode of one stream" % kind,
                   lambda kind=kind: decode(ctx, budget, counts.LLAMA_8B, kind))
                  for kind in ("q4_k", "q8_0")]
    steps += [("cost of one answer", lambda: determinism(ctx, budget)),
              ("served", lambda: served(ctx, budget))]
    for name, step in steps:
        attempt(ctx, budget, PART, name, step)


def attempt(ctx, budget, part, name, step):
    try:
        if budget.left() < 3:
            raise NotMeasured("the time for %s was over" % part)
        step()
    except NotMeasured as reason:
        ctx.report.missing_figure(part, name, str(reason))
        print("%s: not measured: %s" % (name, reason), flush=True)
    except (ArithmeticError, KeyError, IndexError, TypeError, ValueError, OSError) as error:
        # A program that says something else than was expected of it.
        ctx.report.missing_figure(part, name, "%s: %s" % (type(error).__name__, error))


def run_json(ctx, budget, name, arguments, env=None, limit=RUN_LIMIT):
    """What a program writes with --json."""
    program = ctx.programs.find(name)
    if program is None:
        raise NotMeasured("no program %s" % name)
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.json"
        done = ctx.runner.run([program, *arguments, "--json", out], budget.of(limit), env)
        if not done.ok:
            raise NotMeasured("%s: %s" % (name, done.why()))
        return json.loads(out.read_text())


def model_bench(ctx, budget, shape, kind, *arguments, env=None):
    said = run_json(ctx, budget, "model_bench", ["--shape", shape.name, "--random", kind,
                                                 *arguments], env)
    if "--layers" not in arguments:
        # What is counted as moved is then what lies on the device.
        packed = said["weight_bytes"] / counts.weight_bytes(shape, kind)
        if not 0.99 < packed < MOST_PACKED:
            raise NotMeasured("model_bench's weights take %.3g times the bytes that are counted"
                              % packed)
    return said


def need(ctx, ceiling):
    if ceiling not in ctx.ceilings:
        raise NotMeasured("without %s there is nothing to compare it with" % ceiling)
    return ctx.ceilings[ceiling]


# What the device does

CEILINGS = {"copy bandwidth": ("copy_gb_s", "GB/s", "bytes read and written"),
            "pinned upload": ("upload_gb_s", "GB/s", "from pinned host memory"),
            "bf16 peak": ("bf16_tflop_s", "TFLOP/s", "cuBLASLt, 8192 x 8192 x 8192, random data")}


def ceilings(ctx, budget):
    said = run_json(ctx, budget, "cuda_probe", [])
    for name, (key, unit, detail) in CEILINGS.items():
        if not said.get(key):
            ctx.report.missing_figure(PART, name, said.get(key + "_error", "cuda_probe has none"))
            continue
        ctx.ceilings[name] = max(said[key])
        ctx.report.figure(PART, name, max(said[key]), unit, runs=said[key], detail=detail)
    ctx.report.facts.update({"device": said["device"]["name"], **{
        key: said["device"][key] for key in ("architecture", "multiprocessors")
        if key in said["device"]}})


# The backend's steps

def add_decode(ctx, shape, kind, case):
    """Decode of one stream against the bytes that it must move."""
    rate = statistics.median(case["tok_s"])
    step_bytes = counts.decode_bytes(shape, kind, counts.mean_visible(case["depth"],
                                                                      case["tokens"]))
    gb_s = step_bytes * rate / 1e9
    ctx.report.figure(
        PART, "%s %s, decode of one stream" % (label(shape), kind), rate, "tok/s",
        ratio=gb_s / need(ctx, "copy bandwidth"), of="copy bandwidth",
        at_least=DECODE_LIMITS.get((shape.name, kind)), runs=case["tok_s"],
        detail="%.0f GB/s of %.3f GB a step, behind %d tokens" % (gb_s, step_bytes / 1e9,
                                                                  case["depth"]))


def label(shape):
    return {"llama-3.1-8b": "8B", "llama-3.2-1b": "1B"}.get(shape.name, shape.name)


def decode(ctx, budget, shape, kind):
    need(ctx, "copy bandwidth")
    said = model_bench(ctx, budget, shape, kind, "--no-prefill", "--sequences", 1, "--depth", DEPTH,
                       "--tokens", TOKENS, "--step-tokens", DEPTH, "--repeats", 3 if ctx.quick else 5)
    add_decode(ctx, shape, kind, said["decode"][0])


def large_bf16(ctx, budget):
    """Prefill, and decode of one stream and of many, from one load."""
    shape, lengths = counts.LLAMA_8B, [STEP_TOKENS] if ctx.quick else [STEP_TOKENS, 4 * STEP_TOKENS]
    said = model_bench(
        ctx, budget, shape, "bf16", "--prefill", ",".join(map(str, lengths)), "--step-tokens",
        STEP_TOKENS, "--sequences", "1,%d" % STREAMS, "--depth", DEPTH, "--tokens", TOKENS,
        "--repeats", 3 if ctx.quick else 5)
    one, many = said["decode"]
    attempt(ctx, budget, PART, "8B bf16, decode of one stream",
            lambda: add_decode(ctx, shape, "bf16", one))
    rates = [statistics.median(case["tok_s"]) for case in (one, many)]
    ctx.report.figure(PART, "8B bf16, decode of %d streams" % STREAMS, rates[1], "tok/s",
                      ratio=rates[1] / rates[0], of="one stream", at_least=STREAMS_LIMIT,
                      runs=many["tok_s"], detail="behind %d tokens each" % DEPTH)
    for case in said["prefill"]:
        attempt(ctx, budget, PART, "8B bf16, prefill of %d" % case["tokens"],
                lambda case=case: add_prefill(ctx, shape, case))


def add_prefill(ctx, shape, case):
    rate, tokens = statistics.median(case["tok_s"]), case["tokens"]
    tflop_s = counts.prefill_flops(shape, tokens) / (tokens / rate) / 1e12
    ctx.report.figure(
        PART, "%s bf16, prefill of %d" % (label(shape), tokens), rate, "tok/s",
        ratio=tflop_s / need(ctx, "bf16 peak"), of="bf16 peak", at_least=PREFILL_LIMIT,
        runs=case["tok_s"], detail="%.0f TFLOP/s, in steps of %d" % (tflop_s, STEP_TOKENS))


def determinism(ctx, budget):
    """Prefill by products that keep a row's bits, against cuBLASLt wherever it can be had."""
    def rate(way):
        said = model_bench(ctx, budget, counts.LLAMA_8B, "bf16", "--layers", FEW_LAYERS,
                           "--no-decode", "--prefill", STEP_TOKENS, "--step-tokens", STEP_TOKENS,
                           "--repeats", 5, env={CUBLAS: way})
        return statistics.median(said["prefill"][0]["tok_s"])

    try:
        rate("nonsense")
    except NotMeasured as refusal:
        if CUBLAS not in str(refusal):
            raise
    else:
        raise NotMeasured("this backend does not read %s" % CUBLAS)
    rates = {"gated": [], "always": [], "never": []}
    for turn in range(1 if ctx.quick else 2):
        for way in list(rates)[turn:] + list(rates)[:turn]:
            rates[way].append(rate(way))
    middle = {way: statistics.median(values) for way, values in rates.items()}
    cost = 1 - middle["gated"] / middle["always"]
    ctx.report.figure(
        PART, "cost of one answer, prefill of %d" % STEP_TOKENS, 100 * cost, "%", ratio=cost,
        of="cuBLASLt as it comes", at_most=DETERMINISM_LIMIT, runs=rates["gated"],
        detail="%d layers of 8B; %s" % (FEW_LAYERS, ", ".join(
            "%s %.0f tok/s" % item for item in middle.items())))


# The worker, as clients see it

def served(ctx, budget):
    shape = counts.LLAMA_1B if ctx.quick else counts.LLAMA_8B
    worker, load_bench = ctx.programs.find(WORKER), ctx.programs.find("load_bench")
    maker = ctx.programs.find("random_model")
    for name, program in ((WORKER, worker), ("load_bench", load_bench), ("random_model", maker)):
        if program is None:
            raise NotMeasured("no program %s" % name)
    size = counts.weight_bytes(shape, "bf16")
    free = shutil.disk_usage(ctx.scratch).free
    if free < size + (1 << 30):
        raise NotMeasured("%s has %.0f GB free, the model takes %.0f" % (ctx.scratch, free / 1e9,
                                                                         size / 1e9))
    with tempfile.TemporaryDirectory(dir=ctx.scratch) as folder:
        model = pathlib.Path(folder) / "random"
        made = ctx.runner.run([maker, model, "--shape", shape.name], budget.of(RUN_LIMIT))
        if not made.ok:
            raise NotMeasured("random_model: " + made.why())
        done = ctx.runner.run([sys.executable, HERE / "served.py", worker, model, load_bench,
                               1 if ctx.quick else 3, STREAMS], budget.of(RUN_LIMIT))
    if not done.ok:
        raise NotMeasured("served: " + done.why())
    add_served(ctx, shape, json.loads(done.output.splitlines()[-1]))


def add_served(ctx, shape, said):
    name = label(shape) + " bf16"
    ratio = statistics.median(t / o for o, t in zip(said["one"], said["together"]))
    ctx.report.figure(
        PART, "%s, %d streams over HTTP" % (name, STREAMS), statistics.median(said["together"]),
        "tok/s", ratio=ratio, of="one stream", at_least=None if ctx.quick else STREAMS_LIMIT,
        runs=said["together"], detail="one: %.0f tok/s" % statistics.median(said["one"]))
    upload_s = said["weight_bytes"] / (need(ctx, "pinned upload") * 1e9)
    allowed = READY_FACTOR * upload_s + READY_EXTRA_S
    ready = statistics.median(said["ready_s"])
    ctx.report.figure(
        PART, name + ", time to ready", ready, "s", ratio=ready / allowed,
        of="%.2f s" % allowed, at_most=1, runs=said["ready_s"],
        detail="%.1f times the upload of %.1f GB (%.2f s) and %d s; loading %.1f s, warm-up %.1f s"
               % (READY_FACTOR, said["weight_bytes"] / 1e9, upload_s, READY_EXTRA_S,
                  said["load_ms"] / 1e3, said["warmup_ms"] / 1e3))


# The worker's own checks

def check_worker(ctx, budget):
    """tools/gpu/worker_checks.py, in a process of its own, which can be stopped."""
    worker = ctx.programs.find(WORKER)
    if worker is None:
        ctx.report.outcome("worker", WORKER, "MISSING", detail="no such program")
        return
    done = ctx.runner.run([sys.executable, HERE / "worker_checks.py", worker, ctx.model],
                          budget.left())
    for line in done.output.splitlines():
        if line.startswith('{"check"'):
            said = json.loads(line)
            ctx.report.outcome("worker", said["check"], PASSED if said["passed"] else FAILED,
                               said["seconds"], said["detail"])
    if not done.ok:
        ctx.report.outcome("worker", "worker checks", TIMED_OUT if done.timed_out else FAILED,
                           done.seconds, done.why())
