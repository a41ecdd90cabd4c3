"""tools/gpu_check on made-up programs: what it makes of what they say. No GPU is needed."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from gpu import bundle, counts, figures, gtest_runs, peer  # noqa: E402
from gpu.programs import Budget, Done, Log, Programs, Runner  # noqa: E402
from gpu.report import Report  # noqa: E402

FAKE_WORKER = os.environ["LLORCH_FAKE_WORKER"]
PASSES = """
    print("[==========] Running 3 tests from 1 test suite.")
    print("[       OK ] A.One (1 ms)")
    print("[==========] 3 tests from 1 test suite ran. (5 ms total)")
    print("[  PASSED  ] 3 tests.")
"""
FAILS = """
    print("[  PASSED  ] 1 test.")
    print("[  FAILED  ] 2 tests, listed below:")
    print("[  FAILED  ] A.Two")
    print("[  FAILED  ] B/C.Three/4, where GetParam() = 4")
    sys.exit(1)
"""
HANGS = """
    print("[==========] Running 9 tests from 1 test suite.")
    print("[       OK ] A.One (1 ms)", flush=True)
    import subprocess
    subprocess.Popen(["sleep", "60"]).wait()
"""
PROBE = {"device": {"name": "Made-up GPU", "architecture": 90, "multiprocessors": 132},
         "copy_gb_s": [3990.0, 4000.0, 3995.0], "upload_gb_s": [49.0, 50.0],
         "bf16_tflop_s": [790.0, 800.0]}


def program(folder, name, body):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!%s\nimport json, pathlib, sys\narguments = sys.argv[1:]\n%s\n" % (
        sys.executable, textwrap.dedent(body)))
    path.chmod(0o755)
    return path


def writes_json(value):
    return """
    path = arguments[arguments.index("--json") + 1]
    pathlib.Path(path).write_text(json.dumps(%r))
    """ % (value,)


def model_bench(one, many=None, prefill=None, refuses=True, packed=1.02):
    """One that says these rates: of one stream, of many, and of prefill by way of products."""
    return """
    import os
    way = os.environ.get("LLORCH_CUDA_CUBLAS")
    if way == "nonsense" and %r:
        sys.exit("LLORCH_CUDA_CUBLAS is 'nonsense'")
    def option(name, otherwise):
        return arguments[arguments.index(name) + 1] if name in arguments else otherwise
    prefill = %r or {}
    sys.path.insert(0, %r)
    from gpu import counts
    shape = counts.SHAPES[option("--shape", "")]
    said = {"prefill": [], "decode": [],
            "weight_bytes": %r * counts.weight_bytes(shape, option("--random", ""))}
    if "--no-prefill" not in arguments:
        said["prefill"] = [{"tokens": int(n), "tok_s": [prefill.get(way, 1000.0)] * 3}
                           for n in option("--prefill", "512").split(",")]
    if "--no-decode" not in arguments:
        rates = {"1": %r, "64": %r}
        said["decode"] = [{"sequences": int(n), "depth": int(option("--depth", 0)),
                           "tokens": int(option("--tokens", 32)), "tok_s": [rates[n]] * 3}
                          for n in option("--sequences", "1").split(",")]
    pathlib.Path(option("--json", "")).write_text(json.dumps(said))
    """ % (refuses, prefill, str(ROOT / "tools"), packed, one, many)


@dataclasses.dataclass
class Context:
    report: Report
    runner: Runner
    programs: Programs
    model: pathlib.Path
    scratch: pathlib.Path
    peer_python: str = sys.executable
    quick: bool = False
    jobs: int = 2
    ceilings: dict = dataclasses.field(default_factory=dict)


@pytest.fixture
def ctx(tmp_path):
    return Context(Report({"commit": "abc"}), Runner(ROOT, Log(tmp_path / "log")),
                   Programs(tmp_path / "build"), ROOT / "models" / "tiny", tmp_path)


@pytest.fixture
def bin_dir(ctx):
    return ctx.programs.folder / "bin"


def outcomes(ctx):
    return {o.name: (o.outcome, o.detail) for o in ctx.report.outcomes}


def figure(ctx, name):
    return next(f for f in ctx.report.figures if f.name == name)


# Tests and sanitizers

def test_each_test_program_is_judged_and_none_stops_the_others(ctx, bin_dir):
    program(ctx.programs.folder / "tests/conformance", "conformance", FAILS)
    program(bin_dir, "golden_test", PASSES)
    program(bin_dir, "one_answer_test", HANGS)
    program(bin_dir, "cuda_a_test", "sys.exit('no device')")
    program(bin_dir, "cuda_b_test", "print('nothing was chosen')")
    begin = time.monotonic()
    gtest_runs.run_tests(ctx, Budget(6))
    assert time.monotonic() - begin < 30
    told = outcomes(ctx)
    assert re.fullmatch("1 of 9 tests passed, then it was stopped after . s",
                        told["one_answer_test"][1])
    assert told == {
        "conformance": ("FAILED", "A.Two, B/C.Three/4"),
        "golden_test": ("passed", "3 tests"),
        "one_answer_test": ("TIMED OUT", told["one_answer_test"][1]),
        "golden_prefix_test": ("MISSING", "no such program"),
        "cuda_a_test": ("FAILED", "exit 1: no device"),
        "cuda_b_test": ("FAILED", "it ran no test")}
    assert [o.name for o in ctx.report.outcomes][-2:] == ["cuda_a_test", "cuda_b_test"]
    assert len(ctx.report.failures()) == 5
    log = (ctx.runner.log.path).read_text()
    assert "A.Two" in log and "no device" in log


def test_a_crash_is_no_pass():
    output = "[  PASSED  ] 3 tests.\nfree(): invalid pointer\n"
    assert gtest_runs.judge(Done(-6, output, 1))[0] == "FAILED"
    assert gtest_runs.judge(Done(0, "[  PASSED  ] 0 tests.\n[  SKIPPED ] 3 tests, listed below:", 1)) == (
        "FAILED", "it ran no test")


def test_no_tests_of_the_backend_are_told(ctx, bin_dir):
    gtest_runs.run_tests(ctx, Budget(4))
    assert outcomes(ctx)["cuda_*_test"] == ("MISSING", "no such program")


def test_without_a_sanitizer_that_is_told_and_nothing_fails(ctx, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(gtest_runs, "SANITIZER_PLACES", [])
    gtest_runs.sanitize(ctx, Budget(4))
    assert outcomes(ctx) == {"compute-sanitizer": ("skipped", "it is not on this machine")}
    assert ctx.report.failures() == []


BANNER = "========= COMPUTE-SANITIZER\n"


@pytest.mark.parametrize("output, status, timed_out, wanted", [
    (BANNER + "[  PASSED  ] 2 tests.\n========= ERROR SUMMARY: 0 errors\n", 0, False,
     ("passed", "2 tests")),
    (BANNER + "[  PASSED  ] 2 tests.\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 "
     "warnings)\n", 0, False, ("passed", "2 tests")),
    (BANNER + "========= Invalid __global__ read of size 4 bytes\n=========     at k+0x10\n"
     "[  PASSED  ] 2 tests.\n========= ERROR SUMMARY: 1 error\n", 86, False,
     ("FAILED", "Invalid __global__ read of size 4 bytes")),
    # Warnings of racecheck leave the exit status 0.
    (BANNER + "========= Warning: Race reported between Write access at a and Read access at b\n"
     "[  PASSED  ] 2 tests.\n========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)\n",
     0, False, ("FAILED", "Warning: Race reported between Write access at a and Read access at b")),
    (BANNER + "[==========] Running 5 tests\n[       OK ] A.B (1 ms)\n", -9, True,
     ("passed in part", "1 of 5 tests passed, then it was stopped after 3 s")),
    (BANNER + "[==========] Running 5 tests\n", -9, True,
     ("TIMED OUT", "0 of 5 tests passed, then it was stopped after 3 s")),
    (BANNER + "========= Invalid __shared__ write\n[       OK ] A.B (1 ms)\n", -9, True,
     ("FAILED", "Invalid __shared__ write")),
    (BANNER + "========= Error: Target application terminated before first instrumented API call\n",
     1, False, ("FAILED", "Error: Target application terminated before first instrumented API call")),
    ("Device not supported\n", 0, False, ("FAILED", "exit 0: Device not supported"))])
def test_what_a_sanitizer_says_is_judged(output, status, timed_out, wanted):
    assert gtest_runs.judge_sanitized(Done(status, output, 3, timed_out)) == wanted


def test_a_sanitizer_sees_some_tests_of_every_suite(ctx, bin_dir, tmp_path, monkeypatch):
    listing = "A.\n" + "".join("  T%d\n" % i for i in range(10)) + "LongB.\n  One\n  Two\n" \
              "P/C.\n  Case/0  # GetParam() = 7\n"
    for name in ("conformance", "cuda_a_test"):
        program(bin_dir, name, "print(%r)" % listing)
    tool = program(tmp_path / "tools", gtest_runs.SANITIZER, """
    print("========= COMPUTE-SANITIZER\\n", *arguments)
    print("[  PASSED  ] 2 tests.\\n========= ERROR SUMMARY: 0 errors")
    """)
    monkeypatch.setenv("PATH", str(tool.parent))
    gtest_runs.sanitize(ctx, Budget(20))
    assert list(outcomes(ctx)) == ["%s %s" % (check, name) for check in gtest_runs.TOOLS
                                   for name in ("conformance", "cuda_a_test")]
    assert {o.outcome for o in ctx.report.outcomes} == {"passed"}
    log = ctx.runner.log.path.read_text()
    assert "--gtest_filter=A.T0:A.T1:A.T3:A.T5:A.T6:A.T8:P/C.Case/0\n" in log


# The worker

def worker_program(folder, extra=""):
    """The fake worker, which knows no devices and whose meter has to be asked for."""
    return program(folder, "llorch-cuda-candled", """
    import os, threading, time
    if "--cuda-device" in arguments:
        at = arguments.index("--cuda-device")
        device = arguments[at + 1]
        del arguments[at:at + 2]
        if device != "0":
            line = json.dumps({"event": "error", "exit_code": 11, "message": "no device " + device})
            print(line)
            print(line, file=sys.stderr)
            sys.exit(11)
    %s
    os.environ["LLORCH_FAKE_STEP_JOULES"] = "7"
    os.execv(%r, [%r] + arguments)
    """ % (extra, FAKE_WORKER, FAKE_WORKER))


def test_a_worker_is_asked_and_each_answer_told(ctx, bin_dir):
    worker_program(bin_dir, """print('{"event":"parity_checked","layers":2,"worst":0.25,"ms":31}',
        '{"event":"startup","cuda_device":0}', sep="\\n", flush=True)""")
    figures.check_worker(ctx, Budget(120))
    told = outcomes(ctx)
    assert {name for name, (outcome, _) in told.items() if outcome != "passed"} == {
        # Its texts are no answers.
        "worker answers held out questions"}, told
    assert told["worker compares layers with the cpu"][1] == "2 layers, at worst 0.25 of the bound, 31 ms"
    assert told["worker refuses a device that is not there"][1] == "no device 99"
    assert "J for 400 tokens" in told["worker tells energy"][1]
    assert "0 of 50 right" in told["worker answers held out questions"][1]


def test_a_worker_that_does_not_start_fails_every_check(ctx, bin_dir):
    program(bin_dir, "llorch-cuda-candled", "sys.exit('[cuda] no NVIDIA driver')")
    figures.check_worker(ctx, Budget(60))
    assert {o.outcome for o in ctx.report.outcomes} == {"FAILED"}
    assert len(ctx.report.outcomes) == 9
    assert "no NVIDIA driver" in ctx.report.outcomes[0].detail


def test_a_worker_that_hangs_is_stopped(ctx, bin_dir):
    program(bin_dir, "llorch-cuda-candled", "import time; time.sleep(60)")
    figures.check_worker(ctx, Budget(3))
    assert outcomes(ctx) == {"worker checks": ("TIMED OUT", "stopped after 3 s")}


# Figures

def rate_for(shape, kind, share):
    """Tokens a second that move this share of 4,000 GB/s."""
    moved = counts.decode_bytes(shape, kind, counts.mean_visible(figures.DEPTH, figures.TOKENS))
    return share * 4000e9 / moved


def test_figures_have_values_ratios_and_limits(ctx, bin_dir):
    one = rate_for(counts.LLAMA_8B, "bf16", 0.9)
    prefill = 0.5 * 800e12 / counts.prefill_flops(counts.LLAMA_8B, 2048) * 2048
    program(bin_dir, "cuda_probe", writes_json(PROBE))
    program(bin_dir, "model_bench", model_bench(
        one, 31 * one, {None: prefill, "gated": 970.0, "always": 1000.0, "never": 900.0}))
    figures.ceilings(ctx, Budget(60))
    figures.large_bf16(ctx, Budget(60))
    figures.decode(ctx, Budget(60), counts.LLAMA_8B, "q4_0")
    figures.determinism(ctx, Budget(60))
    assert ctx.report.facts["device"] == "Made-up GPU"
    assert figure(ctx, "copy bandwidth").value == 4000 and figure(ctx, "copy bandwidth").met is None
    decode = figure(ctx, "8B bf16, decode of one stream")
    assert decode.value == one and decode.ratio == pytest.approx(0.9) and decode.met
    assert decode.at_least == 0.85 and decode.unit == "tok/s" and decode.of == "copy bandwidth"
    streams = figure(ctx, "8B bf16, decode of 64 streams")
    assert streams.ratio == pytest.approx(31) and streams.met
    short = figure(ctx, "8B bf16, prefill of 2048")
    assert short.ratio == pytest.approx(0.5) and short.met is False
    # The same tokens a second of a longer prompt are more operations.
    assert figure(ctx, "8B bf16, prefill of 8192").ratio > 0.5
    cost = figure(ctx, "cost of one answer, prefill of 2048")
    assert cost.value == pytest.approx(3) and cost.ratio == pytest.approx(0.03) and cost.met
    four_bits = figure(ctx, "8B q4_0, decode of one stream")
    assert four_bits.at_least == 0.75 and four_bits.met is False
    assert [f for f in ctx.report.failures() if "prefill of 2048: limit not met" in f]


def test_what_could_not_be_measured_is_no_figure(ctx, bin_dir):
    program(bin_dir, "model_bench", "print('out of memory'); sys.exit(12)")
    figures.measure(ctx, Budget(60))
    assert ctx.report.figures == []
    reasons = {m["name"]: m["reason"] for m in ctx.report.not_measured}
    assert reasons["copy bandwidth, upload rate, bf16 peak"] == "no program cuda_probe"
    assert reasons["8B bf16"] == "model_bench: exit 12: out of memory"
    assert "copy bandwidth" in reasons["8B q4_0, decode of one stream"]
    assert reasons["served"] == "no program llorch-cuda-candled"
    assert len(ctx.report.failures()) == len(reasons)


@pytest.mark.parametrize("said, reason", [
    ({"decode": []}, "IndexError"), ({}, "KeyError"), ([], "TypeError"),
    ({"decode": [{"tok_s": [], "depth": 1, "tokens": 3}]}, "StatisticsError"),
    ({"decode": [{"tok_s": [0.0], "depth": 1, "tokens": 3}]}, None)])
def test_a_program_that_says_something_else_is_told(ctx, bin_dir, said, reason):
    ctx.ceilings["copy bandwidth"] = 4000
    if said:
        said["weight_bytes"] = counts.weight_bytes(counts.LLAMA_8B, "q4_0")
    program(bin_dir, "model_bench", writes_json(said))
    figures.attempt(ctx, Budget(60), "figures", "x",
                    lambda: figures.decode(ctx, Budget(60), counts.LLAMA_8B, "q4_0"))
    told = [m["reason"] for m in ctx.report.not_measured]
    assert not told if reason is None else told[0].startswith(reason)


@pytest.mark.parametrize("packed", [0.5, 2.0])
def test_a_model_of_another_size_is_not_taken_for_the_shape(ctx, bin_dir, packed):
    ctx.ceilings["copy bandwidth"] = 4000
    program(bin_dir, "model_bench", model_bench(100.0, packed=packed))
    with pytest.raises(figures.NotMeasured, match="weights take %g times" % packed):
        figures.decode(ctx, Budget(60), counts.LLAMA_8B, "q4_0")


def test_a_probe_that_lacks_a_library_leaves_the_rest(ctx, bin_dir):
    program(bin_dir, "cuda_probe", writes_json(
        {**PROBE, "bf16_tflop_s": None, "bf16_tflop_s_error": "libcublasLt.so.13 is not there"}))
    program(bin_dir, "model_bench", model_bench(200.0, 6500.0))
    figures.ceilings(ctx, Budget(60))
    figures.large_bf16(ctx, Budget(60))
    assert ctx.report.not_measured[0] == {
        "part": "figures", "name": "bf16 peak", "reason": "libcublasLt.so.13 is not there"}
    assert "bf16 peak" in ctx.report.not_measured[1]["reason"]
    assert figure(ctx, "8B bf16, decode of one stream").ratio > 0


def test_figures_end_with_their_time(ctx, bin_dir):
    program(bin_dir, "cuda_probe", writes_json(PROBE))
    program(bin_dir, "model_bench", "import time; time.sleep(60)")
    begin = time.monotonic()
    figures.measure(ctx, Budget(6))
    assert time.monotonic() - begin < 20
    reasons = {m["name"]: m["reason"] for m in ctx.report.not_measured}
    assert reasons["8B bf16"].startswith("model_bench: stopped after")
    assert reasons["served"] == "the time for figures was over"
    assert len(ctx.report.figures) == 3


def test_a_backend_without_the_switch_has_no_cost_of_one_answer(ctx, bin_dir):
    program(bin_dir, "model_bench", model_bench(1.0, refuses=False))
    with pytest.raises(figures.NotMeasured, match="does not read LLORCH_CUDA_CUBLAS"):
        figures.determinism(ctx, Budget(60))


def test_a_served_model(ctx, bin_dir, monkeypatch):
    worker_program(bin_dir)
    program(bin_dir, "random_model", "import shutil; shutil.copytree(%r, arguments[0])" % str(
        ROOT / "models" / "tiny"))
    program(bin_dir, "load_bench", """
    requests = int(arguments[arguments.index("--requests") + 1])
    gap = 0.01 if requests == 1 else 0.02
    lines = ["%f,0,%d" % (1 + i * gap, request) for i in range(50) for request in range(requests)]
    pathlib.Path(arguments[arguments.index("--trace") + 1]).write_text("\\n".join(["head", *lines]))
    """)
    ctx.ceilings["pinned upload"] = 50
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1 << 40))
    figures.served(ctx, Budget(120))
    streams = figure(ctx, "8B bf16, 64 streams over HTTP")
    assert streams.value == pytest.approx(3200, rel=0.03) and streams.ratio == pytest.approx(32, rel=0.05)
    assert streams.met and len(streams.runs) == 2
    ready = figure(ctx, "8B bf16, time to ready")
    assert 0 < ready.value < 30 and len(ready.runs) == 3
    assert ready.ratio == pytest.approx(ready.value / 3, rel=0.01)
    assert list(ctx.scratch.glob("tmp*")) == []


def test_a_model_needs_its_room(ctx, bin_dir, monkeypatch):
    for name in ("llorch-cuda-candled", "random_model", "load_bench"):
        program(bin_dir, name, "")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 10 ** 10))
    with pytest.raises(figures.NotMeasured, match="has 10 GB free, the model takes 16"):
        figures.served(ctx, Budget(60))


# Beside transformers

def python_of_peer(folder, parameters, decode_s=0.02):
    return program(folder, "peer-python", """
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "load":
            said = {"parameters": %d, "dtype": "torch.bfloat16", "attention": "sdpa",
                    "torch": "1", "transformers": "2"}
        else:
            said = {"seconds": %r if asked["do"] == "decode" else 0.5}
        print(json.dumps(said), flush=True)
    """ % (parameters, decode_s))


def test_ours_beside_theirs(ctx, bin_dir, tmp_path):
    program(bin_dir, "model_bench", model_bench(160.0, prefill={None: 8192.0}))
    ctx.peer_python = str(python_of_peer(tmp_path, counts.LLAMA_8B.parameters()))
    peer.compare(ctx, Budget(60))
    assert ctx.report.not_measured == []
    decode, prefill = ctx.report.figures
    assert decode.value == 160 and decode.ratio == pytest.approx(3.2) and decode.met
    assert decode.runs == [[160, pytest.approx(50)]] * 3 and "theirs 50.0 tok/s" in decode.detail
    assert prefill.ratio == pytest.approx(2) and prefill.met is None
    assert ctx.report.facts["beside"] == "transformers 2, torch 1"


@pytest.mark.parametrize("body, reason", [
    ("sys.exit('No module named torch')", "has ended: No module named torch"),
    ("import time; time.sleep(60)", "took more than"),
    ("print(json.dumps({'error': 'ImportError: x'}), flush=True); sys.stdin.read()",
     "transformers: ImportError: x"),
    ("print(json.dumps({'parameters': 5, 'dtype': 'torch.bfloat16'}), flush=True); sys.stdin.read()",
     "another one")])
def test_no_peer_is_told(ctx, bin_dir, tmp_path, body, reason):
    program(bin_dir, "model_bench", model_bench(160.0))
    ctx.peer_python = str(program(tmp_path, "peer-python", body))
    peer.compare(ctx, Budget(4))
    assert ctx.report.figures == []
    assert reason in ctx.report.not_measured[0]["reason"]


# The report

def test_a_report_in_all_its_forms(tmp_path):
    report = Report({"device": "X|Y", "commit": "abc", "date": "today"})
    report.outcome("tests", "conformance", "passed", 3.04, "412 tests")
    report.figure("figures", "decode", 220.0, "tok/s", ratio=0.8612, of="copy bandwidth",
                  at_least=0.85, runs=[219.0, 220.0, 221.0], detail="3440 GB/s")
    report.figure("figures", "copy", 4300.0, "GB/s")
    report.write(tmp_path)
    said = json.loads((tmp_path / "report.json").read_text())
    assert said["good"] is True and said["commit"] == "abc" and said["device"] == "X|Y"
    assert said["figures"][0] == {
        "part": "figures", "name": "decode", "value": 220.0, "unit": "tok/s", "ratio": 0.8612,
        "of": "copy bandwidth", "limit": {"at_least": 0.85}, "met": True,
        "runs": [219.0, 220.0, 221.0], "detail": "3440 GB/s"}
    assert said["figures"][1]["limit"] is None and said["figures"][1]["met"] is None
    assert said["tests"] == [{"part": "tests", "name": "conformance", "outcome": "passed",
                              "seconds": 3.04, "detail": "412 tests"}]
    page = (tmp_path / "REPORT.md").read_text()
    assert "| device | X\\|Y |" in page
    assert "| conformance | passed | 3.0 | 412 tests |" in page
    assert "| decode | 220 tok/s | 0.861 of copy bandwidth | ≥ 0.85 | met | 3440 GB/s |" in page
    assert "All passed, all limits are met." in page and "Not measured" not in page
    assert "220 tok/s  0.861 of copy bandwidth  ≥ 0.85 met" in report.table()

    report.figure("figures", "ready", 9.0, "s", ratio=1.2, of="7.5 s", at_most=1)
    report.missing_figure("figures", "prefill", "no program")
    assert report.failures() == ["ready: limit not met", "prefill: not measured"]
    page = report.page()
    assert "| ready | 9 s | 1.2 of 7.5 s | ≤ 1 | NOT MET |  |" in page
    assert "| prefill | no program |" in page and "**Not good:** ready: limit not met" in page


def test_no_figure_is_not_a_number():
    report = Report({})
    report.figure("figures", "a", float("nan"), "s")
    report.figure("figures", "b", 1.0, "s", ratio=float("inf"))
    assert report.figures == [] and len(report.not_measured) == 2


# The whole command

def gpu_check(*arguments, root=ROOT, path=None):
    env = {**os.environ, **({"PATH": "%s:%s" % (path, os.environ["PATH"])} if path else {})}
    return subprocess.run([sys.executable, root / "tools" / "gpu_check", *map(str, arguments)],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


@pytest.fixture
def build(tmp_path):
    """A folder that holds all programs."""
    folder = tmp_path / "build"
    for name in ("golden_test", "one_answer_test", "golden_prefix_test"):
        program(folder / "tests/golden", name, PASSES)
    program(folder / "tests/conformance", "conformance", PASSES)
    program(folder / "src/backends/cuda", "cuda_product_test", PASSES)
    for name in ("model_bench", "random_model", "load_bench"):
        program(folder / "bench", name, "sys.exit(1)")
    program(folder / "bench", "cuda_probe", writes_json(PROBE))
    worker_program(folder / "bin")
    return folder


@pytest.fixture
def smi(tmp_path):
    program(tmp_path / "smi", "nvidia-smi", """
    print("Made-up GPU, 580.1, 141 GB, 1980 MHz, 700 W" if arguments else "CUDA Version: 13.0 ")
    """)
    return tmp_path / "smi"


def test_some_parts_of_a_build(build, smi, tmp_path):
    done = gpu_check("tests", "--build", build, "--out", tmp_path / "out", "--commit", "abc123",
                     path=smi)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "all passed, all limits are met"
    said = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [t["outcome"] for t in said["tests"]] == ["passed"] * 5 and said["notes"] == []
    assert (said["device"], said["driver"], said["cuda"], said["commit"], said["run"]) == (
        "Made-up GPU", "580.1", "13.0 (of the driver)", "abc123", "tests")
    assert "3 tests" in (tmp_path / "out" / "gpu_check.log").read_text()


def test_parts_go_on_after_failures_and_the_status_tells(build, smi, tmp_path):
    program(build / "tests/golden", "golden_test", FAILS)
    done = gpu_check("tests", "figures", "--quick", "--build", build, "--out", tmp_path / "out",
                     "--commit", "abc", path=smi)
    assert done.returncode == 1
    assert "not good: golden_test: FAILED" in done.stdout.splitlines()[-1]
    said = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [f["name"] for f in said["figures"]] == ["copy bandwidth", "pinned upload", "bf16 peak"]
    assert said["not_measured"] and not said["good"]


def test_without_a_gpu_nothing_lands_among_the_documents(build, tmp_path):
    program(tmp_path / "smi", "nvidia-smi", "sys.exit(9)")
    before = sorted((ROOT / "docs" / "gpu").iterdir())
    done = gpu_check("tests", "--build", build, "--commit", "abc", "--log", tmp_path / "log",
                     path=tmp_path / "smi")
    assert "no report was written: no GPU has answered" in done.stdout
    assert sorted((ROOT / "docs" / "gpu").iterdir()) == before


def test_unknown_parts_and_unknown_commits_are_refused(tmp_path):
    done = gpu_check("speed")
    assert done.returncode == 2 and "no part speed" in done.stdout
    bundle.copy_source(ROOT / "tools" / "gpu_check", tmp_path / "tools" / "gpu_check")
    bundle.copy_source(ROOT / "tools" / "gpu", tmp_path / "tools" / "gpu")
    bundle.copy_source(ROOT / "tests" / "harness", tmp_path / "tests" / "harness")
    done = gpu_check("tests", "--out", tmp_path / "out", root=tmp_path)
    assert done.returncode == 1 and "which commit was built?" in done.stdout


def elf_build(folder, build):
    """The same, but of small programs that can be stripped, and a real worker."""
    for name in [bundle.WORKER, *bundle.TESTS, *bundle.BENCHES, "cuda_product_test"]:
        path = Programs(build).find(name)
        to = folder / path.relative_to(build)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(FAKE_WORKER if name == bundle.WORKER else shutil.which("true"), to)
    return folder


def test_a_bundle_runs_by_itself(build, smi, tmp_path):
    out = tmp_path / "bundle"
    done = gpu_check("--bundle", out, "--build", elf_build(tmp_path / "elf", build), "--commit", "abc")
    assert done.returncode == 0, done.stdout
    assert "commit abc, 10 programs" in done.stdout
    assert json.loads((out / "bundle.json").read_text())["commit"] == "abc"
    assert (out / "tests/golden/data").is_dir() and not list(out.rglob("__pycache__"))
    # Without --commit and without git: the bundle knows.
    done = gpu_check("worker", "tests", "--out", tmp_path / "out", root=out, path=smi)
    said = json.loads((tmp_path / "out" / "report.json").read_text())
    assert said["commit"] == "abc", done.stdout
    told = {t["name"]: t for t in said["tests"]}
    assert told["cuda_product_test"]["detail"] == "it ran no test"
    # It has the harness, the model and a worker, which is no cuda one.
    assert "cuda-device" in told["worker starts on device 0"]["detail"]


def test_a_bundle_of_programs_alone_goes_with_a_checkout(build, smi, tmp_path):
    out = tmp_path / "bundle"
    done = gpu_check("--bundle", out, "--programs-only", "--build", elf_build(tmp_path / "elf", build),
                     "--commit", "abc")
    assert done.returncode == 0, done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["bundle.json", "programs.tar.xz"]
    gpu_check("tests", "--programs", out, "--out", tmp_path / "out", path=smi)
    said = json.loads((tmp_path / "out" / "report.json").read_text())
    assert said["commit"] == "abc" and "MISSING" not in {t["outcome"] for t in said["tests"]}


def test_a_bundle_that_is_not_whole_or_too_large_is_refused(build, tmp_path):
    elf = elf_build(tmp_path / "elf", build)
    done = gpu_check("--bundle", tmp_path / "large", "--build", elf, "--commit", "abc",
                     "--limit-mib", "3")
    assert done.returncode == 1 and "MiB are more than 3; the largest: " in done.stdout
    (elf / "bench" / "cuda_probe").unlink()
    done = gpu_check("--bundle", tmp_path / "part", "--build", elf, "--commit", "abc")
    assert done.returncode == 1 and "has no cuda_probe;" in done.stdout
    assert "cmake --preset cuda -DLLORCH_BENCH=ON" in done.stdout and not (tmp_path / "part").exists()
