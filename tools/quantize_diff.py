#!/usr/bin/env python3
"""Compares our quantisation with the `gguf` package's, bit for bit, and with ggml's, by its error.

    build/reference/bin/python tools/quantize_diff.py [--ggml path/to/libggml-base.so]

Q8_0 and Q4_0 leave no choice and must be the package's. How good the scales of the other types are
is compared with ggml's, where its library is given: our mean squared error must be at most 1.03 of it.
"""

import argparse
import ctypes
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

ROOT = Path(__file__).resolve().parent.parent
CLI = ROOT / "build/cpu/src/formats/quantize_cli"
EXACT = [Type.Q8_0, Type.Q4_0]
FITTED = [Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_NL]
COLUMNS = 2048


def samples(rows, seed):
    rng = np.random.default_rng(seed)
    shape = (rows, COLUMNS)
    some = rng.standard_normal(shape)
    some[::7] = 0
    some[3, ::2] = 0
    return {
        "normal": rng.standard_normal(shape) * 0.02,
        "heavy tails": rng.standard_t(3, shape) * 0.02,
        "all of one sign": np.abs(rng.standard_normal(shape)) * 3,
        "uniform": rng.uniform(-1, 1, shape),
        "zeros among them": some,
    }


def ours(values, kind):
    start = time.perf_counter()
    done = subprocess.run([CLI, str(int(kind))], input=values.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8), values.nbytes / (time.perf_counter() - start) / 1e6


def ggmls(library, values, kind):
    block, size = GGML_QUANT_SIZES[kind]
    blocks = np.zeros(values.size // block * size, np.uint8)
    library.ggml_quantize_chunk(
        int(kind), values.ctypes.data_as(ctypes.c_void_p), blocks.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0), ctypes.c_int64(values.shape[0]), ctypes.c_int64(values.shape[1]), None)  # fmt: skip
    return blocks


def error(values, blocks, kind):
    size = GGML_QUANT_SIZES[kind][1]
    back = dequantize(blocks.reshape(-1, size), kind).reshape(values.shape)
    return float(np.mean((back.astype(np.float64) - values) ** 2))


def test_numbers(seed, count, scale):
    """ops/test_numbers.h's floats()."""
    state, values = seed, np.empty(count, np.float64)
    for i in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        values[i] = (state >> 8) * 2.0**-24 * 2 * scale - scale
    return values.astype(np.float32)


def print_hashes():
    values = test_numbers(7, 65536, 3)
    values[4096:8192] = 0
    for kind in EXACT:
        hash = 0xCBF29CE484222325
        for byte in quantize(values.reshape(1, -1), kind).tobytes():
            hash = (hash ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
        print(kind.name, hex(hash))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ggml", help="libggml-base.so, to compare errors with")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hash", action="store_true", help="print what quantize_test.cc expects")
    args = parser.parse_args()
    if args.hash:
        return print_hashes()
    library = ctypes.CDLL(args.ggml) if args.ggml else None
    failed = 0
    for name, values in samples(args.rows, args.seed).items():
        values = np.ascontiguousarray(values, np.float32)
        for kind in EXACT:
            got, _ = ours(values, kind)
            want = quantize(values, kind).reshape(-1)
            different = int((got != want).sum())
            print(f"{kind.name:7} {name:18} {different} bytes differ")
            failed += different > 0
        for kind in FITTED:
            blocks, speed = ours(values, kind)
            own = error(values, blocks, kind)
            line = f"{kind.name:7} {name:18} mean squared error {own:.4g}, {speed:.0f} MB/s"
            if library:
                ratio = own / error(values, ggmls(library, values, kind), kind)
                line += f", {ratio:.3f} of ggml's"
                failed += ratio > 1.03
            print(line)
    print("all is well" if failed == 0 else f"{failed} comparisons failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
