"""An include against bin -> server -> engine -> model -> ops <- backends does not compile.

Each probe is compiled with the very flags of one file of the layer, from compile_commands.json.
"""

import json
import os
import pathlib
import shlex
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A file of the layer, a header it may include, and headers it may not.
LAYERS = [
    ("base/error.cc", "base/error.h", ["ops/backend.h", "engine/engine.h"]),
    ("ops/shapes.cc", "base/error.h", ["formats/safetensors.h", "model/model.h"]),
    ("formats/safetensors.cc", "ops/backend.h", ["model/model.h", "tokenizer/tokenizer.h"]),
    ("tokenizer/tokenizer.cc", "base/error.h", ["ops/backend.h", "engine/engine.h"]),
    ("model/model.cc", "formats/checkpoint.h", ["engine/engine.h", "server/server.h"]),
    ("engine/engine.cc", "model/model.h", ["server/server.h", "pool/ready_callback.h"]),
    ("server/server.cc", "engine/engine.h", ["pool/ready_callback.h"]),
    ("pool/ready_callback.cc", "base/error.h", ["server/server.h", "engine/engine.h"]),
    ("backends/fake/fake_backend.cc", "ops/backend.h", ["model/model.h", "engine/engine.h"]),
]


def compile_probe(layer_file, header, folder):
    """Compiles `#include "header"` as if it were part of `layer_file`."""
    database = json.loads((pathlib.Path(os.environ["LLORCH_BUILD_DIR"]) /
                           "compile_commands.json").read_text())
    entry = next(e for e in database if e["file"] == str(ROOT / "src" / layer_file))
    probe = folder / "probe.cc"
    probe.write_text(f'#include "{header}"\n')
    command, words = [], iter(shlex.split(entry["command"]))
    for word in words:
        if word in ("-o", "-c", "-MF", "-MT"):
            next(words)
        elif word != "-MD":
            command.append(word)
    return subprocess.run([*command, "-fsyntax-only", str(probe)], cwd=entry["directory"],
                          capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})


@pytest.mark.parametrize("layer_file, header", [(f, allowed) for f, allowed, _ in LAYERS])
def test_an_include_along_the_direction_compiles(layer_file, header, tmp_path):
    done = compile_probe(layer_file, header, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("layer_file, header",
                         [(f, header) for f, _, forbidden in LAYERS for header in forbidden])
def test_an_include_against_the_direction_does_not_compile(layer_file, header, tmp_path):
    assert (ROOT / "src" / header).exists(), "the header exists, only not for this layer"
    done = compile_probe(layer_file, header, tmp_path)
    assert done.returncode != 0
    error = next(line for line in done.stderr.splitlines() if "fatal error:" in line)
    assert header in error and ("No such file" in error or "not found" in error)
