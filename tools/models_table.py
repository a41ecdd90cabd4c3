#!/usr/bin/env python3
"""Writes the tables of docs/MODELS.md from what the golden tests really ran.

    tools/models_table.py build/cpu/tests/golden/golden_test [--check]

Runs the test program and counts, for each family and format, the checkpoints whose every test passed.
--check writes nothing and fails if a test does, or if the page tells something else.
"""

import argparse
import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/MODELS.md"
BEGIN, END = "<!-- made by tools/models_table.py -->\n", "<!-- end of what it made -->\n"
PUBLISHED = {  # model_type: what people know it as
    "llama": "Llama 2, 3, 3.1, 3.2, SmolLM 1 and 2, and others of its kind",
    "mistral": "Mistral 7B, Nemo, Small (text)",
    "mixtral": "Mixtral",
    "phi": "Phi-1, 1.5, 2",
    "phi3": "Phi-3, 3.5 mini, 4, 4-mini",
    "qwen2": "Qwen2, Qwen2.5",
    "qwen2_moe": "Qwen1.5-MoE, Qwen2-57B-A14B",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3-30B-A3B, 235B-A22B",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3 (text)",
    "smollm3": "SmolLM3",
}


def run(program):
    """Of each golden: its recorded properties, and the names of its tests that passed."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        done = subprocess.run([program, f"--gtest_output=json:{out.name}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"{done.stdout}\ntools/models_table.py: {program} failed: the page would not be true")
        suites = json.load(open(out.name))["testsuites"]
    goldens = collections.defaultdict(lambda: dict(tests=set()))
    for suite in suites:
        for test in suite["testsuite"]:
            if "/" in test["name"] and test["result"] == "COMPLETED" and "failures" not in test:
                name, golden = test["name"].split("/")
                goldens[golden]["tests"].add(name)
                goldens[golden].update({key: test[key] for key in ("architecture", "stored") if key in test})
    return goldens


def counted(names):
    return str(len(names)) if names else "–"


def tables(goldens):
    by_family = collections.defaultdict(lambda: collections.defaultdict(list))
    types = collections.defaultdict(set)
    for name, golden in sorted(goldens.items()):
        stored = golden["stored"].split()
        family = by_family[golden["architecture"]]
        if stored[0] == "GGUF":
            family["GGUF"].append(name)
            types[golden["architecture"]].update(stored[1:])
        else:
            family["F32" if "F32" in stored and len(stored) == 1 else stored[0]].append(name)
        if "ErrsLessThanTransformersIn16Bits" in golden["tests"]:
            family["16 bits"].append(name)
        if "AnswersAsGenerateDoes" in golden["tests"]:
            family["generate"].append(name)
    lines = [
        "| `model_type` | published as | safetensors F32 · BF16 · F16 | GGUF | `--dtype bf16`, `f16` | whole answers |",
        "|---|---|---|---|---|---|",
    ]
    order = [f for f in PUBLISHED if f in by_family] + sorted(f for f in by_family if f not in PUBLISHED)
    for family in order:
        row = by_family[family]
        kinds = " · ".join(counted(row[kind]) for kind in ("F32", "BF16", "F16"))
        lines.append(
            f"| `{family}` | {PUBLISHED.get(family, '')} | {kinds} | {counted(row['GGUF'])} "
            f"| {counted(row['16 bits'])} | {counted(row['generate'])} |"
        )
    lines += ["", "GGUF types among them:", "", "| `model_type` | types |", "|---|---|"]
    lines += [f"| `{family}` | {', '.join(sorted(types[family]))} |" for family in order if types[family]]
    lines += ["", "The checkpoints, by their folders under `tests/golden/data`:", ""]
    lines += [f"- `{family}`: {', '.join(n for n, g in sorted(goldens.items()) if g['architecture'] == family)}" for family in order]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("program")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    made = before + BEGIN + "\n" + tables(run(Path(arguments.program).resolve())) + "\n" + END + after
    if not arguments.check:
        PAGE.write_text(made)
    elif made != page:
        sys.exit(f"{PAGE} is not what the tests say; run: tools/models_table.py {arguments.program}")


if __name__ == "__main__":
    main()
