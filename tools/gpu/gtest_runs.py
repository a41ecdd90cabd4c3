"""Runs the test programs, as they are and under compute-sanitizer, and judges what they say."""

import concurrent.futures
import re
import shutil

from gpu.programs import DEVICE_TESTS, TESTS
from gpu.report import FAILED, MISSING, PART, PASSED, SKIPPED, TIMED_OUT

SANITIZER = "compute-sanitizer"
SANITIZER_PLACES = ["/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer"]
TOOLS = ["memcheck", "racecheck", "synccheck"]
SANITIZED_LIMIT = 60  # seconds of one program under one tool
TESTS_OF_A_SUITE = {False: 6, True: 2}  # that a sanitizer sees; by --quick
LONG = re.compile("Long|EveryLength|Random")  # names of tests that a sanitizer makes endless


def run_tests(ctx, budget):
    """Every test program once, some of them beside each other."""
    names = TESTS + ctx.programs.device_tests()
    if len(names) == len(TESTS):
        ctx.report.outcome("tests", DEVICE_TESTS, MISSING, detail="no such program")
    arguments = ["--gtest_filter=-LongAttention.*"] if ctx.quick else []
    _all(ctx, names, lambda name: _test(ctx, budget, name, arguments))


def sanitize(ctx, budget):
    tool = shutil.which(SANITIZER) or next(
        (path for place in SANITIZER_PLACES if (path := shutil.which(SANITIZER, path=place))), None)
    if tool is None:
        ctx.report.outcome("sanitizer", SANITIZER, SKIPPED, detail="it is not on this machine")
        return
    programs = ["conformance"] + ctx.programs.device_tests()
    runs = [(check, name) for check in (TOOLS[:1] if ctx.quick else TOOLS) for name in programs]
    _all(ctx, runs, lambda run: _sanitized(ctx, budget, tool, *run))


def _all(ctx, items, body):
    """body() of each, which adds an outcome; in order, as far as nobody needs to wait."""
    with concurrent.futures.ThreadPoolExecutor(ctx.jobs) as pool:
        for part, name, outcome, seconds, detail in pool.map(body, items):
            ctx.report.outcome(part, name, outcome, seconds, detail)
            print("%s: %s%s" % (name, outcome, ", " + detail if detail else ""), flush=True)


def _test(ctx, budget, name, arguments):
    program = ctx.programs.find(name)
    if program is None:
        return "tests", name, MISSING, 0, "no such program"
    if budget.left() < 1:
        return "tests", name, TIMED_OUT, 0, "not begun: the time for tests was over"
    done = ctx.runner.run([program, *arguments], budget.left())
    outcome, detail = judge(done)
    return "tests", name, outcome, done.seconds, detail


def judge(done):
    """(outcome, detail) of a GoogleTest program."""
    passed = _number(r"\[  PASSED  \] (\d+) test", done.output)
    skipped = _number(r"\[  SKIPPED \] (\d+) test", done.output)
    failed = list(dict.fromkeys(re.findall(r"^\[  FAILED  \] ([\w/]+\.[\w/]+)", done.output, re.M)))
    if failed:
        names = ", ".join(failed[:3]) + (" and %d more" % (len(failed) - 3) if failed[3:] else "")
        return FAILED, names
    if done.timed_out:
        return TIMED_OUT, _so_far(done)
    if done.status != 0:
        return FAILED, done.why()
    if not passed:
        return FAILED, "it ran no test"
    return PASSED, "%d test%s%s" % (passed, "s" * (passed > 1), ", %d skipped" % skipped if skipped else "")


def _number(pattern, text):
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _so_far(done):
    return "%d of %d tests passed, then it was stopped after %.0f s" % (
        len(re.findall(r"^\[       OK \]", done.output, re.M)),
        _number(r"\[==========\] Running (\d+) test", done.output), done.seconds)


def _sanitized(ctx, budget, tool, check, name):
    label = "%s %s" % (check, name)
    program = ctx.programs.find(name)
    if program is None:
        return "sanitizer", label, MISSING, 0, "no such program"
    if budget.left() < 5:
        return "sanitizer", label, TIMED_OUT, 0, "not begun: the time for sanitizers was over"
    chosen = choose(ctx.runner.run([program, "--gtest_list_tests"], budget.of(20)).output,
                    TESTS_OF_A_SUITE[ctx.quick])
    # Errors that a program is told and handles, as tests of bad arguments do, are none.
    done = ctx.runner.run(
        [tool, "--tool", check, "--error-exitcode", "86", "--report-api-errors", "no", program,
         "--gtest_filter=" + ":".join(chosen)], budget.of(SANITIZED_LIMIT))
    outcome, detail = judge_sanitized(done)
    return "sanitizer", label, outcome, done.seconds, detail


def choose(listing, most):
    """Up to `most` tests of each suite, evenly over it."""
    suites, suite = {}, None
    for line in listing.splitlines():
        name = line.split("#")[0].rstrip()
        if re.fullmatch(r"[\w/]+\.", name):
            suite = suites.setdefault(name, [])
        elif suite is not None and line.startswith("  ") and name.strip():
            suite.append(name.strip())
    chosen = []
    for name, tests in suites.items():
        short = [test for test in tests if not LONG.search(name + test)]
        count = min(most, len(short))
        chosen += [name + short[i * len(short) // count] for i in range(count)]
    return chosen


def judge_sanitized(done):
    """(outcome, detail). One that was stopped has passed in part if nothing was said till then."""
    said = [line for line in done.output.splitlines() if line.startswith("=========")
            and not re.match(r"=+ (COMPUTE-SANITIZER|ERROR SUMMARY: 0 errors|"
                             r"RACECHECK SUMMARY: 0 hazards|LEAK SUMMARY: 0 |Target application)",
                             line)]
    said = [line.strip("= ") for line in said]
    if [line for line in said if line]:
        return FAILED, next(line for line in said if line)[:160]
    if done.timed_out:
        begun = "[       OK ]" in done.output
        return (PART if begun else TIMED_OUT), _so_far(done)
    if done.status != 0 or "========= COMPUTE-SANITIZER" not in done.output:
        return FAILED, done.why()
    return judge(done)
