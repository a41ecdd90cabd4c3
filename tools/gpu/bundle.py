"""Collects what tools/gpu_check needs on another machine: programs, what tests read, itself."""

import json
import lzma
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile

from gpu.programs import BENCHES, FOLDERS, TESTS, WORKER, Programs

LIMIT_MIB = 64
ARCHIVE = "programs.tar.xz"
# All of them hold the same kernels, so with a window of two programs' size they take little.
COMPRESSION = [{"id": lzma.FILTER_LZMA2, "preset": 3, "dict_size": 64 << 20}]
FACTS = "bundle.json"
# What the programs and this script read, from the source's root.
READ = ["models/tiny", "tests/golden/data", "tests/golden/quant.safetensors",
        "tests/harness/worker.py", "tests/harness/prometheus.py", "bench/serving.py",
        "tools/gpu_check", "tools/gpu", "LICENSE"]
# Libraries that a machine with an NVIDIA driver has, whatever its distribution.
HAS = re.compile(r"linux-vdso|ld-linux|libc\.so|libm\.so|libpthread|libdl\.so|librt\.so")
HOW_TO_BUILD = """build it: cmake --preset cuda -DLLORCH_BENCH=ON &&
  cmake --build --preset cuda --target %s %s \\
    src/backends/cuda/all tests/conformance/all %s""" % (
    WORKER, " ".join(BENCHES), " ".join(TESTS[1:]))


class BundleError(Exception):
    """With what keeps the bundle from being made."""


def make(root, build, out, commit, programs_only, limit_mib=LIMIT_MIB):
    """Writes it into the folder `out`, which must be empty or not there. Returns lines that tell
    what it is."""
    programs = Programs(build)
    names = [WORKER, *TESTS, *BENCHES, *programs.device_tests()]
    missing = [name for name in names if programs.find(name) is None]
    if missing:
        raise BundleError("%s has no %s;\n%s" % (build, ", ".join(missing), HOW_TO_BUILD))
    if out.exists() and any(out.iterdir()):
        raise BundleError("%s is not empty" % out)
    out.mkdir(parents=True, exist_ok=True)
    warnings = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            copy = pathlib.Path(folder) / name
            shutil.copy2(programs.find(name), copy)
            subprocess.run(["strip", str(copy)], check=True)
            warnings += foreign_libraries(copy)
        with lzma.open(out / ARCHIVE, "wb", filters=COMPRESSION) as file, \
                tarfile.open(fileobj=file, mode="w") as archive:
            for name in names:
                archive.add(pathlib.Path(folder) / name, name)
    (out / FACTS).write_text(json.dumps({"commit": commit, "toolkit": toolkit(build),
                                         "programs": names}, indent=1) + "\n")
    for name in [] if programs_only else READ:
        copy_source(root / name, out / name)
    sizes = {path: path.stat().st_size for path in out.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > limit_mib * 2**20:
        largest = sorted(sizes, key=sizes.get)[-3:]
        raise BundleError("%.1f MiB are more than %g; the largest: %s" % (
            total / 2**20, limit_mib, ", ".join("%s %.1f" % (p.relative_to(out), sizes[p] / 2**20)
                                                for p in reversed(largest))))
    return warnings + ["%s: %.1f MiB, commit %s, %d programs" % (out, total / 2**20, commit,
                                                                len(names))]


def copy_source(path, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(path, to)


def foreign_libraries(program):
    """Warnings of what the other machine may lack."""
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout
    needs = [line.split()[0] for line in said.splitlines() if "not a dynamic" not in line
             and line.strip() and not HAS.search(line)]
    return ["warning: %s needs %s; -static-libstdc++ -static-libgcc, or static archives, would not"
            % (program.name, ", ".join(needs))] if needs else []


def toolkit(build):
    """nvcc's release, as CMake's cache knows where it is."""
    cache = pathlib.Path(build) / "CMakeCache.txt"
    found = cache.exists() and re.search(r"^CMAKE_CUDA_COMPILER:\w+=(.+)$", cache.read_text(), re.M)
    if not found:
        return None
    try:
        said = subprocess.run([found[1], "--version"], capture_output=True, text=True).stdout
    except OSError:
        return None
    version = re.search(r"release [\d.]+, V([\d.]+)", said)
    return version[1] if version else None


def read(folder):
    """Of a bundle: its facts; None if the folder is none."""
    path = folder / FACTS
    return json.loads(path.read_text()) if path.exists() else None


def unpack(folder, to):
    """Its programs, into the folder `to`."""
    with tarfile.open(folder / ARCHIVE) as archive:
        for member in archive:
            if not member.isfile() or "/" in member.name:
                raise BundleError("%s holds %s" % (folder / ARCHIVE, member.name))
            archive.extract(member, pathlib.Path(to) / FOLDERS[0])
