#!/usr/bin/env python3
"""Compares two folders of goldens: usage: compare_goldens.py KEPT MADE

Integers and JSON must be equal. Floats may differ as far as another processor's vector width makes
torch round differently: a step of the type for weights, the golden test's tolerance for logits.
For the same reason a byte in a thousand of a GGUF file may differ: a value on the edge of a step.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

STEP = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}  # of the value
LOGITS = 1e-4  # of the row's max - min


def difference(name, kept, made):
    """What is wrong with `made`, or None."""
    if kept.dtype != made.dtype or kept.shape != made.shape:
        return f"is {made.dtype} {list(made.shape)}, was {kept.dtype} {list(kept.shape)}"
    if not kept.is_floating_point():
        return None if torch.equal(kept, made) else "differs"
    a, b = kept.double(), made.double()
    if name == "logits":
        allowed = LOGITS * (a.max(1, keepdim=True).values - a.min(1, keepdim=True).values)
    else:
        allowed = STEP[kept.dtype] * a.abs() + 1e-7
    excess = ((a - b).abs() / allowed).max().item()
    return None if excess <= 1 else f"differs by {excess:.2g} times what is allowed"


def compare_file(kept, made):
    if kept.suffix == ".json":
        return [] if json.loads(kept.read_text()) == json.loads(made.read_text()) else ["differs"]
    if kept.suffix == ".gguf":
        a, b = kept.read_bytes(), made.read_bytes()
        wrong = abs(len(a) - len(b)) or sum(x != y for x, y in zip(a, b))
        return [] if len(a) == len(b) and wrong * 1000 <= len(a) else [f"differs in {wrong} bytes"]
    if kept.suffix != ".safetensors":
        return [] if kept.read_bytes() == made.read_bytes() else ["differs"]
    a, b = load_file(kept), load_file(made)
    if a.keys() != b.keys():
        return [f"has tensors {sorted(b)}, had {sorted(a)}"]
    found = {name: difference(name, a[name], b[name]) for name in a}
    return [f"{name} {wrong}" for name, wrong in found.items() if wrong]


def main():
    kept, made = map(Path, sys.argv[1:])
    files = {root: {p.relative_to(root) for p in root.rglob("*") if p.is_file()} for root in (kept, made)}
    wrong = [f"{path}: only in {kept}" for path in files[kept] - files[made]]
    wrong += [f"{path}: only in {made}" for path in files[made] - files[kept]]
    for path in sorted(files[kept] & files[made]):
        wrong += [f"{path}: {what}" for what in compare_file(kept / path, made / path)]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(files[kept])} golden files are as they were")


if __name__ == "__main__":
    main()
