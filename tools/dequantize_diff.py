#!/usr/bin/env python3
"""Compares our dequantisation with the `gguf` package's, bit for bit, over random blocks.

    build/reference/bin/python tools/dequantize_diff.py [--blocks 20000] [--seed 1]
    build/reference/bin/python tools/dequantize_diff.py --write tests/golden/quant.safetensors

Half of the blocks are random bytes, so that every scale occurs, infinite and NaN ones too; the
other half have scales as weights have them. A NaN need only be a NaN. --write keeps a few of them
for formats_test; --check compares those with the package as it is now.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
CLI = ROOT / "build/cpu/src/formats/dequantize_cli"
TYPES = [
    Type[name]
    for name in "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()
]
# Where a block has its f16 scales.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.IQ4_NL: [0], Type.IQ4_XS: [0],
}  # fmt: skip


def random_blocks(kind, count, rng):
    blocks = rng.integers(0, 256, (count, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    tame = np.arange(count) % 2 == 1
    for at in SCALES.get(kind, []):
        scales = (rng.standard_normal(count) * 0.05).astype(np.float16).view(np.uint8).reshape(-1, 2)
        blocks[tame, at : at + 2] = scales[tame]
    if kind == Type.MXFP4:
        blocks[tame, 0] = rng.integers(112, 136, tame.sum())
    return blocks


def reference(blocks, kind):
    # The package prints a warning for every infinity; it is what we want to see.
    with np.errstate(all="ignore"):
        return dequantize(blocks, kind).astype(np.float32).reshape(-1)


def ours(blocks, kind):
    done = subprocess.run([CLI, str(int(kind))], input=blocks.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.float32)


def differences(got, want):
    same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    return np.flatnonzero(~same)


def kept(rng):
    tensors = {}
    for kind in TYPES:
        values, size = GGML_QUANT_SIZES[kind]
        blocks = random_blocks(kind, {1: 32, 32: 12, 256: 4}[values], rng)
        tensors[f"{int(kind)}.blocks"] = blocks.reshape(-1)
        tensors[f"{int(kind)}.values"] = reference(blocks, kind)
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--blocks", type=int, default=20000, help="of each type")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    if arguments.write:
        save_file(kept(rng), arguments.write)
        return
    if arguments.check:
        tensors = load_file(arguments.check)
        for kind in TYPES:
            want = reference(tensors[f"{int(kind)}.blocks"].reshape(-1, GGML_QUANT_SIZES[kind][1]), kind)
            if differences(tensors[f"{int(kind)}.values"], want).size:
                sys.exit(f"{arguments.check}: {kind.name} is not what the package gives")
    total = 0
    for kind in TYPES:
        blocks = random_blocks(kind, arguments.blocks, rng)
        got, want = ours(blocks, kind), reference(blocks, kind)
        if got.size != want.size:
            sys.exit(f"{kind.name}: {got.size} values, want {want.size}")
        wrong = differences(got, want)
        if wrong.size:
            at = int(wrong[0])
            sys.exit(f"{kind.name}: {wrong.size} differ, first value {at}: {got[at]!r}, want {want[at]!r}")
        total += want.size
    print(f"{len(TYPES)} types, {total} values: all equal")


if __name__ == "__main__":
    main()
