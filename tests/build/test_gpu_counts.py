"""Bytes and operations that figures of a GPU are held against (tools/gpu/counts.py)."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from gpu import counts  # noqa: E402

TINY = counts.Shape("toy", layers=2, hidden=64, ffn=96, heads=4, kv_heads=2, vocab=100)


@pytest.mark.parametrize("shape, parameters", [
    # As their publishers and transformers count them.
    (counts.LLAMA_8B, 8_030_261_248), (counts.LLAMA_1B, 1_235_814_400),
    (counts.TINYLLAMA_1B, 1_100_048_384)])
def test_shapes_are_those_that_people_know(shape, parameters):
    assert shape.parameters() == parameters


def test_shapes_are_those_of_random_models():
    source = (ROOT / "bench" / "random_shape.cc").read_text()
    for shape in (counts.LLAMA_8B, counts.LLAMA_1B):
        line = next(line for line in source.splitlines() if '"%s"' % shape.name in line)
        sizes = line[line.index(", {") + 3:line.index("}")].split(", ")
        assert sizes == [str(x) for x in (shape.layers, shape.hidden, shape.ffn, shape.heads,
                                          shape.kv_heads, shape.vocab, 131072)] + [
                                              str(shape.tied).lower()]


@pytest.mark.parametrize("kind, bits", [("f32", 32), ("bf16", 16), ("q8_0", 8.5), ("q4_0", 4.5),
                                        ("iq4_nl", 4.5), ("q4_k", 4.5), ("q5_k", 5.5),
                                        ("q6_k", 6.5625)])
def test_rows_take_the_bits_that_ggml_gives_a_weight(kind, bits):
    assert counts.row_bytes(kind, 4096) * 8 == 4096 * bits


def test_a_step_reads_every_weight_but_the_embedding_once():
    shape = counts.LLAMA_8B
    read = counts.decode_bytes(shape, "bf16", visible=0)
    matrices = shape.parameters() - shape.vocab * shape.hidden - shape.norm_weights()
    new_token = 2 * 2 * shape.layers * shape.kv_dim
    assert read == 2 * matrices + 4 * shape.norm_weights() + 2 * shape.hidden + new_token
    assert read == pytest.approx(15.0e9, rel=0.01)


def test_tied_weights_are_read_as_a_head():
    assert counts.decode_bytes(counts.LLAMA_1B, "bf16", 0) == pytest.approx(
        2 * counts.LLAMA_1B.parameters(), rel=1e-3)
    assert counts.weight_bytes(counts.LLAMA_1B, "bf16") == pytest.approx(
        2 * counts.LLAMA_1B.parameters(), rel=1e-3)
    assert counts.weight_bytes(counts.LLAMA_8B, "bf16") == pytest.approx(
        2 * counts.LLAMA_8B.parameters(), rel=1e-3)


def test_tables_beside_four_bits_have_more():
    shape = counts.LLAMA_8B
    layers = shape.layers * shape.layer_weights()
    assert counts.decode_bytes(shape, "q4_0", 0) == pytest.approx(
        layers * 4.5 / 8 + shape.vocab * shape.hidden * 6.5625 / 8, rel=1e-3)
    assert counts.table_type("q8_0") == "q8_0" and counts.table_type("bf16") == "bf16"


def test_each_sequence_reads_its_own_keys_and_values():
    one, more, many = (counts.decode_bytes(TINY, "bf16", 10, 1), counts.decode_bytes(TINY, "bf16", 11, 1),
                       counts.decode_bytes(TINY, "bf16", 10, 5))
    token = 2 * TINY.layers * TINY.kv_heads * TINY.head_dim * 2
    assert more - one == token
    assert many - one == 4 * (11 * token + TINY.hidden * 2)
    assert counts.kv_token_bytes(counts.LLAMA_8B) == 131_072


def test_the_mean_of_what_steps_see():
    seen = [7 + i + 1 for i in range(5)]
    assert counts.mean_visible(7, 5) == sum(seen) / 5


def test_operations_of_a_prefill_one_by_one():
    tokens, operations = 13, 0
    for row in range(tokens):
        for _ in range(TINY.layers):
            for rows, cols in TINY.matrices():
                operations += 2 * rows * cols
            for _ in range(TINY.heads):
                for _ in range(row + 1):
                    operations += 2 * TINY.head_dim  # score
                    operations += 2 * TINY.head_dim  # its share of the value
    operations += 2 * TINY.vocab * TINY.hidden
    assert counts.prefill_flops(TINY, tokens) == operations
    assert sum(rows * cols for rows, cols in TINY.matrices()) == (
        64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 96 * 64)
