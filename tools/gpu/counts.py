"""What a llama must move and compute: the bytes of a decode step, the operations of a prefill.

Only what no implementation gets around is counted: each weight is read once for a step, each visible
key and value once for a row, and a product of m rows with {n, k} is 2 m n k operations. Activations,
and rows of logits that nobody wants, are not.
"""

import dataclasses

# Values and bytes of a block, as ggml stores them; one value where a type is not quantised.
BLOCKS = {"f32": (1, 4), "bf16": (1, 2), "f16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18),
          "iq4_nl": (32, 18), "q4_k": (256, 144), "q5_k": (256, 176), "q6_k": (256, 210)}
NORM_BYTES = 4  # of an element: norms stay in f32


@dataclasses.dataclass(frozen=True)
class Shape:
    """As bench/random_shape.cc has it under the same name."""

    name: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool = False

    @property
    def head_dim(self):
        return self.hidden // self.heads

    @property
    def kv_dim(self):
        return self.kv_heads * self.head_dim

    def matrices(self):
        """{rows, columns} of a layer's matrices, one upon the other where they are read together."""
        return [(self.hidden + 2 * self.kv_dim, self.hidden), (self.hidden, self.hidden),
                (2 * self.ffn, self.hidden), (self.hidden, self.ffn)]

    def layer_weights(self):
        return sum(rows * cols for rows, cols in self.matrices())

    def norm_weights(self):
        return (2 * self.layers + 1) * self.hidden

    def parameters(self):
        tables = 1 if self.tied else 2
        return (self.layers * self.layer_weights() + self.norm_weights()
                + tables * self.vocab * self.hidden)


TINYLLAMA_1B = Shape("tinyllama-1.1b", 22, 2048, 5632, 32, 4, 32000)
LLAMA_1B = Shape("llama-3.2-1b", 16, 2048, 8192, 32, 8, 128256, tied=True)
LLAMA_8B = Shape("llama-3.1-8b", 32, 4096, 14336, 32, 8, 128256)
SHAPES = {shape.name: shape for shape in (TINYLLAMA_1B, LLAMA_1B, LLAMA_8B)}


def row_bytes(kind, columns):
    values, size = BLOCKS[kind]
    return -(-columns // values) * size


def table_type(kind):
    """What embedding and head are stored as beside matrices of `kind`."""
    plain = BLOCKS[kind][0] == 1
    return kind if plain or kind == "q8_0" else "q6_k"


def weight_bytes(shape, kind):
    """Of all weights, as they are stored."""
    tables = 1 if shape.tied else 2
    return (_read_by_all(shape, kind)
            + (tables - 1) * shape.vocab * row_bytes(table_type(kind), shape.hidden))


def _read_by_all(shape, kind):
    layer = sum(rows * row_bytes(kind, cols) for rows, cols in shape.matrices())
    head = shape.vocab * row_bytes(table_type(kind), shape.hidden)
    return shape.layers * layer + head + shape.norm_weights() * NORM_BYTES


def kv_token_bytes(shape, kv_kind="bf16"):
    """Keys and values of a token in all layers."""
    return 2 * shape.layers * shape.kv_heads * row_bytes(kv_kind, shape.head_dim)


def decode_bytes(shape, kind, visible, sequences=1, kv_kind="bf16"):
    """Of a step that gives each of `sequences` a token; `visible`: tokens each of them sees, the mean
    over steps where it grows. Weights, a row of the embedding, keys and values read and written."""
    kv = (visible + 1) * kv_token_bytes(shape, kv_kind)
    embedded = row_bytes(table_type(kind), shape.hidden)
    return _read_by_all(shape, kind) + sequences * (kv + embedded)


def mean_visible(depth, tokens):
    """Of `tokens` steps, the first of which sees depth + 1."""
    return depth + (tokens + 1) / 2


def prefill_flops(shape, tokens):
    """Of a prompt's products and attention; logits are wanted of its last row alone. A row sees
    itself and all before it."""
    products = 2 * (tokens * shape.layers * shape.layer_weights() + shape.vocab * shape.hidden)
    seen = tokens * (tokens + 1) // 2
    attention = 2 * 2 * shape.layers * shape.heads * shape.head_dim * seen
    return products + attention
