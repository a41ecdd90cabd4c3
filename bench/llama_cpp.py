"""llama.cpp for bench/peers and bench/quality: its source from PyPI, built beside ours in some
variants, and its tools. Knows no case that is measured."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile

VERSION = "0.3.36"  # of llama-cpp-python, whose source package holds llama.cpp
TOOLS = ["llama-bench", "llama-batched-bench", "llama-server", "llama-quantize",
         "llama-perplexity"]

# g++ 12 declares that LDTILECFG reads eight bytes and drops the stores of the other 56, after which
# every tile instruction is a fault. The macro says what it reads.
AMX_FIX = """\
#pragma once
#ifdef __AMX_TILE__
#include <immintrin.h>
#define _tile_loadconfig(p) asm volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])(p)))
#endif
"""

COMMON = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
          "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"]
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"


class LlamaCpp:
    """Variants differ in one library, ggml's CPU backend; the tools are native's."""

    def __init__(self, folder):
        self.folder = folder.resolve()
        fix = self.folder / "amx_fix.h"
        self.flags = {
            "native": ["-DGGML_NATIVE=ON", "-DCMAKE_CXX_FLAGS=-include %s" % fix],
            # What native is, without the tile unit: where few rows are computed it may be faster.
            "vectors": ["-DGGML_NATIVE=ON", "-DCMAKE_C_FLAGS=" + NO_AMX,
                        "-DCMAKE_CXX_FLAGS=" + NO_AMX],
            "avx2": ["-DGGML_NATIVE=OFF"],  # AVX2, FMA, F16C and BMI2 are its default
        }

    def variants(self, isa):
        """Those that a comparison needs."""
        if isa == "avx2":
            return ["avx2"]
        tiles = "amx_tile" in pathlib.Path("/proc/cpuinfo").read_text()
        return ["native", "vectors"] if tiles else ["native"]

    def build(self, variants):
        """Takes about 20 minutes the first time, on two cores."""
        source = self.source()
        fix = self.folder / "amx_fix.h"
        if not fix.exists():  # a newer one would have all built again
            fix.write_text(AMX_FIX)
        for variant in dict.fromkeys(["native", *variants]):
            folder = self.folder / variant
            if not (folder / "build.ninja").exists():
                run(["cmake", "-S", source, "-B", folder, *COMMON, *self.flags[variant]])
            run(["ninja", "-C", folder, *(TOOLS if variant == "native" else ["ggml-cpu"])])

    def source(self):
        package = self.folder / ("llama_cpp_python-" + VERSION)
        if not package.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary",
                 "llama-cpp-python", "llama-cpp-python==" + VERSION, "--dest", self.folder])
            with tarfile.open(str(package) + ".tar.gz") as archive:
                archive.extractall(self.folder)
        return package / "vendor" / "llama.cpp"

    def tool(self, name):
        return self.folder / "native" / "bin" / name

    def environment(self, variant):
        """A library of the variant comes before the one that the tools were linked with."""
        return dict(os.environ, LD_LIBRARY_PATH=str(self.folder / variant / "bin"))

    def output(self, variant, name, *arguments, wanted=""):
        """What a tool writes to its standard output; `wanted` is a part of it. A tool that ends may
        overtake its own thread that writes."""
        command = [str(a) for a in (self.tool(name), *arguments)]
        for _ in range(5):
            done = subprocess.run(command, env=self.environment(variant), text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            if done.returncode == 0 and wanted in done.stdout:
                return done.stdout
        sys.exit("%s (%s) ended with %d:\n%s"
                 % (" ".join(command), variant, done.returncode, done.stderr[-2000:]))

    # Figures, in tokens a second

    def bench(self, variant, model, threads, prompt=0, tokens=0):
        """A prompt, or the decode of one sequence that has no prompt."""
        warm = ["--no-warmup"] if prompt >= 4096 else []  # it would be as long as the prompt
        out = json.loads(self.output(variant, "llama-bench", "-m", model, "-t", threads, "-p",
                                     prompt, "-n", tokens, "-r", 1, "-o", "json", *warm))
        return out[0]["avg_ts"]

    def batched(self, variant, model, threads, sequences, prompt, tokens):
        """The decode of sequences together, each behind a prompt of its own."""
        out = self.output(variant, "llama-batched-bench", "-m", model, "-t", threads, "-c",
                          sequences * (prompt + tokens), "-npp", prompt, "-ntg", tokens, "-npl",
                          sequences, "--output-format", "jsonl", wanted="speed_tg")
        line = next(line for line in out.splitlines() if "speed_tg" in line)
        return json.loads(line)["speed_tg"]

    def quantize(self, source, target, kind):
        if not target.exists():
            part = target.with_suffix(".part")
            self.output("native", "llama-quantize", source, part, kind)
            part.rename(target)
        return target


def run(command):
    command = [str(c) for c in command]
    print("+ " + " ".join(command), flush=True)
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        sys.exit("%s failed" % command[0])
