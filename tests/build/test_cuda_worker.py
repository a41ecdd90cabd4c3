"""The released CUDA worker: one stripped file that needs glibc alone to start, and says why it cannot run where there
is no GPU."""

import json
import os
import pathlib
import re
import subprocess

import pytest

MAX_BYTES = 15_000_000
WORKER = os.environ["LLORCH_WORKER"]
TINY = pathlib.Path(__file__).resolve().parents[2] / "models" / "tiny"
GLIBC = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "ld-linux-x86-64.so.2"}


def output_of(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, "LC_ALL": "C"}).stdout


def failed_start(*args):
    """The exit status and the `error` line, with every GPU of this machine hidden."""
    done = subprocess.run([WORKER, "--model", str(TINY), "--port", "0", *args], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, stdin=subprocess.DEVNULL)
    last = done.stdout.splitlines()[-1]
    assert done.stderr.splitlines() == [last], "one line, no trace: " + done.stderr
    line = json.loads(last)
    assert line["event"] == "error" and line["exit_code"] == done.returncode
    return done.returncode, line


def test_nothing_of_nvidias_is_needed_to_start():
    needed = {line.split("[")[1].split("]")[0] for line in output_of("readelf", "-dW", WORKER).splitlines()
              if "(NEEDED)" in line}
    assert needed <= GLIBC


def test_it_is_stripped_and_small():
    sections = output_of("readelf", "-SW", WORKER)
    assert ".text" in sections and ".symtab" not in sections and ".debug" not in sections
    assert os.path.getsize(WORKER) <= MAX_BYTES


def test_every_kernel_is_compiled_for_every_architecture():
    commands = json.loads((pathlib.Path(os.environ["LLORCH_BUILD_DIR"]) / "compile_commands.json").read_text())
    kernels = [entry["command"] for entry in commands if entry["file"].endswith(".cu")]
    assert len(kernels) >= 10
    for command in kernels:
        for code in ("sm_80", "sm_86", "sm_89", "sm_90", "compute_90"):
            assert re.search(r"code=[^ ]*" + code, command), (code, command)


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_need_no_gpu(flag):
    done = subprocess.run([WORKER, flag], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "llorch-cuda-candled" in done.stdout


def test_help_names_the_device_flag():
    assert "--cuda-device" in output_of(WORKER, "--help")
    assert "--metal-device" not in output_of(WORKER, "--help")


def test_without_a_gpu_it_says_so_and_exits_with_11():
    status, line = failed_start()
    assert status == 11
    assert line["code"] == "device" and line["message"].startswith("[cuda] ")
    assert "driver" in line["message"] or "device" in line["message"]


def test_it_never_falls_back_to_the_cpu():
    status, line = failed_start("--cuda-device", "7")
    assert status == 11 and line["message"].startswith("[cuda] ")
