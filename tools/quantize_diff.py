#!/usr/bin/env python3
"""Compares our quantisation with the `gguf` package's, bit for bit, and with ggml's, by its error.

    build/reference/bin/python tools/quantize_diff.py [--ggml path/to/libggml-base.so]
    build/reference/bin/python tools/quantize_diff.py --expected [--ggml path/to/libggml-base.so]

Q8_0 and Q4_0 leave no choice and must be the package's. How good the scales of the other types are
is compared with ggml's, where its library is given (llama-quantize calls the same function): our mean
squared error must be at most 1.02 of it. --expected prints what quantize_test.cc compares with.
"""

import argparse
import ctypes
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

ROOT = Path(__file__).resolve().parent.parent
CLI = ROOT / "build/cpu/src/formats/quantize_cli"
EXACT = [Type.Q8_0, Type.Q4_0]
FITTED = [Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_NL]
COLUMNS = 2048


def tensor(name):
    """One of models/tiny's bf16 weights as f32."""
    data = (ROOT / "models/tiny/model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8 : 8 + size])[name]["data_offsets"]
    bits = np.frombuffer(data[8 + size + start : 8 + size + end], np.uint16)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def samples(rows, seed):
    rng = np.random.default_rng(seed)
    shape = (rows, COLUMNS)
    some = rng.standard_normal(shape)
    some[::7] = 0
    some[3, ::2] = 0
    ties = rng.integers(-254, 255, shape) / 2  # every block's scale is 1, and codes are halves
    ties[:, ::32] = 127 * rng.choice([-1, 1], (rows, COLUMNS // 32))
    embeddings = tensor("model.embed_tokens.weight")
    return {
        "normal": rng.standard_normal(shape) * 0.02,
        "heavy tails": rng.standard_t(3, shape) * 0.02,
        "models/tiny": embeddings[: embeddings.size // COLUMNS * COLUMNS].reshape(-1, COLUMNS),
        "all of one sign": np.abs(rng.standard_normal(shape)) * 3,
        "uniform": rng.uniform(-1, 1, shape),
        "zeros among them": some,
        "halves": ties,
        "small": rng.standard_normal(shape) * 1e-4,
        "smaller than f16": rng.standard_normal(shape) * 10.0 ** rng.uniform(-36, -5, (rows, 1)),
    }


def ours(values, kind):
    done = subprocess.run([CLI, str(int(kind))], input=values.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8)


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


class TestNumbers:
    """ops/test_numbers.h."""

    def __init__(self, seed):
        self.state = seed

    def units(self, count):
        values = np.empty(count, np.float64)
        for i in range(count):
            self.state = (self.state * 1664525 + 1013904223) & 0xFFFFFFFF
            values[i] = (self.state >> 8) * 2.0**-24
        return values

    def floats(self, count, scale=1):
        return (self.units(count) * 2 * scale - scale).astype(np.float32)


def expected_samples():
    """quantize_test.cc's."""
    normal = (TestNumbers(2).units(12 * 65536).reshape(-1, 12).cumsum(axis=1)[:, -1] - 6) * 0.02
    heavy = TestNumbers(3).units(65536) * 2 - 1
    return {
        "kUniform": TestNumbers(1).floats(65536),
        "kNormal": normal.astype(np.float32),
        "kHeavyTails": (heavy / (1.02 - heavy * heavy)).astype(np.float32),
        "kTrained": tensor("model.layers.0.mlp.down_proj.weight"),
    }


def print_expected(library):
    values = TestNumbers(7).floats(65536, 3)
    values[4096:8192] = 0
    for kind in EXACT:
        hash = 0xCBF29CE484222325
        for byte in quantize(values.reshape(1, -1), kind).tobytes():
            hash = (hash ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
        print(kind.name, hex(hash))
    for name, values in expected_samples().items() if library else []:
        values = np.ascontiguousarray(values.reshape(-1, 256))
        errors = [error(values, ggmls(library, values, kind), kind) for kind in FITTED]
        print(name, *(f"{kind.name} {of:.4g}" for kind, of in zip(FITTED, errors)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--ggml", help="libggml-base.so, to compare errors with")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--expected", action="store_true")
    args = parser.parse_args()
    library = ctypes.CDLL(args.ggml) if args.ggml else None
    if args.expected:
        return print_expected(library)
    failed = 0
    for name, values in samples(args.rows, args.seed).items():
        values = np.ascontiguousarray(values, np.float32)
        for kind in EXACT:
            got = ours(values, kind)
            want = quantize(values, kind).reshape(-1)
            different = int((got != want).sum())
            print(f"{kind.name:7} {name:18} {different} bytes differ")
            failed += different > 0
        for kind in FITTED:
            own = error(values, ours(values, kind), kind)
            line = f"{kind.name:7} {name:18} mean squared error {own:.4g}"
            if library:
                ratio = own / error(values, ggmls(library, values, kind), kind)
                line += f", {ratio:.3f} of ggml's"
                failed += ratio > 1.02
            print(line)
    print("all is well" if failed == 0 else f"{failed} comparisons failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
