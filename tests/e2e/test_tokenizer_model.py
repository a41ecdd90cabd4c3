"""Contract, section 6: a folder may hold tokenizer.model in place of tokenizer.json. The expected
ids are transformers', from tests/golden/sentencepiece."""

import json
import pathlib
import shutil

import pytest

from test_failed_start import failed_start
from worker import Worker

GOLDENS = pathlib.Path(__file__).parent.parent / "golden/sentencepiece"


@pytest.fixture
def folder(model, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink(missing_ok=True)
    return copy


@pytest.mark.parametrize("kind", ["llama", "llama_added", "gemma"])
def test_tokenizer_model_alone_serves_with_the_references_ids(binary, folder, kind):
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(GOLDENS / kind / name, folder / name)
    cases = json.loads((GOLDENS / kind / "cases.json").read_text())
    with Worker(binary, ["--model", str(folder)]) as worker:
        for case in cases:
            answer = worker.request("POST", "/tokenize", {"prompt": case["text"]})
            assert answer.json()["tokens"] == case["ids"]
            answer = worker.request("POST", "/detokenize", {"tokens": case["ids"]})
            assert answer.status == 200


def test_a_folder_without_a_tokenizer_is_10_and_names_both_files(binary, folder):
    status, line = failed_start(binary, "--model", folder, "--port", "0")
    assert status == 10
    assert "tokenizer.json" in line["message"] and "tokenizer.model" in line["message"]


@pytest.mark.parametrize("content, named", [
    (b"", "tokenizer.model: is empty"),
    (b"\x0a\xff\xff\xff\xff\x0f", "tokenizer.model: byte 6: a field is longer than what is left"),
    (b"\x12\x02\x18\x02", "tokenizer.model: holds no pieces"),
])
def test_a_damaged_tokenizer_model_is_10_and_named(binary, folder, content, named):
    (folder / "tokenizer.model").write_bytes(content)
    status, line = failed_start(binary, "--model", folder, "--port", "0")
    assert status == 10 and named in line["message"]
