"""Contract, section 6: one .gguf file is a model. What is wrong with it is exit 10, named."""

import pytest

from gguf import ARRAY, IQ2_XXS, STRING, GgufFile, tiny_model, u32, u64
from test_failed_start import failed_start
from worker import Worker


def whole():
    return tiny_model().tensor("blk.0.ffn_down.weight", [16, 8])


def refused(binary, folder, data, name="m.gguf"):
    """The message of the error; the exit status is checked."""
    path = folder / name
    path.write_bytes(data)
    status, line = failed_start(binary, "--model", path, "--port", "0")
    assert status == 10
    return line["message"]


def test_a_gguf_file_serves_and_names_itself(binary, tmp_path):
    (tmp_path / "little.gguf").write_bytes(whole().build())
    for model in (tmp_path / "little.gguf", tmp_path):
        with Worker(binary, ["--model", str(model)]) as worker:
            assert worker.health()["architecture"] == "llama"
            assert worker.health()["context_length"] == 64
            if model != tmp_path:
                assert worker.health()["model"] == "little"


@pytest.mark.parametrize("made, named", [
    (lambda: b"GGML" + bytes(60), "does not begin with GGUF"),
    (lambda: b"GGUF" + u32(1) + bytes(60), "GGUF version 1 is not supported"),
    (lambda: b"GGUF" + bytes([0, 0, 0, 3]) + bytes(60), "big-endian"),
    (lambda: whole().build()[:1000], "bytes"),
    (lambda: tiny_model(counts=(2**60, None)).build(), "tensor "),
    (lambda: tiny_model(counts=(None, 2**60)).build(), "key "),
    (lambda: GgufFile().value("a", STRING, u64(2**64 - 1)).build(), "a: needs 18446744073709551615"),
    (lambda: GgufFile().value("a", ARRAY, u32(STRING) + u64(2**61)).build(), "a: needs"),
    (lambda: GgufFile().value("a", 77, u32(0)).build(), "a: has the unknown type 77"),
    (lambda: whole().tensor("x", [4], offset=2**40).build(), "x: has 16 bytes at 1099511627776"),
    (lambda: whole().tensor("x", [2**40, 2**40], size=0).build(), "x: has more elements"),
    (lambda: whole().tensor("x", [4], kind=99).build(), "x: type 99 is unknown"),
    (lambda: GgufFile("gpt2").build(), "unsupported architecture 'gpt2'; supported: llama, "),
    (lambda: GgufFile().build(), "llama.block_count: is missing"),
    (lambda: whole().string("general.type", "mmproj").build(), "general.type: 'mmproj'"),
    (lambda: tiny_model().build(), "blk.0.ffn_down.weight: is missing"),
    (lambda: tiny_model().tensor("blk.0.ffn_down.weight", [8, 8]).build(),
     "blk.0.ffn_down.weight: wrong shape"),
    (lambda: whole().tensor("blk.0.attn_sinks.weight", [8]).build(),
     "blk.0.attn_sinks.weight: is no tensor of the architecture llama"),
    (lambda: tiny_model().tensor("blk.0.ffn_down.weight", [256, 8], kind=IQ2_XXS, size=66 * 8).build(),
     "blk.0.ffn_down.weight: dtype IQ2_XXS is not supported; supported: F32, F16, BF16, Q4_0, "),
    (lambda: whole().number("split.count", 2).build(), "split.count: is 2, but the file's name"),
])
def test_what_is_wrong_is_10_and_named(binary, tmp_path, made, named):
    message = refused(binary, tmp_path, made())
    assert named in message
    assert "m.gguf" in message or "unsupported architecture" in message


def test_a_missing_shard_is_10_and_named(binary, tmp_path):
    data = whole().number("split.no", 0).number("split.count", 2).build()
    message = refused(binary, tmp_path, data, "m-00001-of-00002.gguf")
    assert "m-00002-of-00002.gguf is not there" in message


@pytest.mark.parametrize("key, made", [
    ("tokenizer.ggml.model", lambda: without_tokenizer()),
    ("tokenizer.ggml.token_type", lambda: whole_with_types([3, 3])),
])
def test_a_damaged_tokenizer_is_10_and_named(binary, tmp_path, key, made):
    assert key in refused(binary, tmp_path, made().build())


def without_tokenizer():
    file = whole()
    file.keys = [key for key in file.keys if b"tokenizer.ggml" not in key]
    return file


def whole_with_types(types):
    file = whole()
    file.keys = [key for key in file.keys if b"token_type" not in key]
    return file.numbers("tokenizer.ggml.token_type", types)
