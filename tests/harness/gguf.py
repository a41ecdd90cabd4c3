"""GGUF files made by hand, honest or not. Python's standard library only."""

import struct

UINT32, FLOAT32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
F32, IQ2_XXS = 0, 16


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def text(value):
    data = value.encode()
    return u64(len(data)) + data


class GgufFile:
    """`counts`: of tensors and of keys, where the file shall lie about them."""

    def __init__(self, architecture="llama", version=3, counts=(None, None)):
        self.version, self.counts = version, counts
        self.keys, self.infos, self.data = [], [], b""
        self.string("general.architecture", architecture)

    def value(self, key, kind, data):
        self.keys.append(text(key) + u32(kind) + data)
        return self

    def string(self, key, value):
        return self.value(key, STRING, text(value))

    def number(self, key, value):
        return self.value(key, UINT32, u32(value))

    def real(self, key, value):
        return self.value(key, FLOAT32, struct.pack("<f", value))

    def strings(self, key, values):
        return self.value(key, ARRAY, u32(STRING) + u64(len(values)) + b"".join(map(text, values)))

    def numbers(self, key, values):
        return self.value(key, ARRAY, u32(UINT32) + u64(len(values)) + b"".join(map(u32, values)))

    def tensor(self, name, dims, kind=F32, size=None, offset=None):
        """Of zeros; `dims` innermost first."""
        if size is None:
            size = 4
            for dim in dims:
                size *= dim
        offset = len(self.data) if offset is None else offset
        self.infos.append(text(name) + u32(len(dims)) + b"".join(map(u64, dims)) + u32(kind)
                          + u64(offset))
        self.data += bytes(size + -size % 32)
        return self

    def build(self):
        tensors, keys = self.counts
        head = b"GGUF" + u32(self.version)
        head += u64(len(self.infos) if tensors is None else tensors)
        head += u64(len(self.keys) if keys is None else keys)
        head += b"".join(self.keys) + b"".join(self.infos)
        return head + bytes(-len(head) % 32) + self.data


def tiny_model(**made):
    """A llama of one layer that loads: 8 dimensions, 2 heads, the 256 bytes and two specials."""
    file = GgufFile(**made)
    arch = "llama."
    for key, value in (("block_count", 1), ("embedding_length", 8), ("feed_forward_length", 16),
                       ("context_length", 64), ("attention.head_count", 2)):
        file.number(arch + key, value)
    file.real(arch + "attention.layer_norm_rms_epsilon", 1e-5)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {**{byte: chr(byte) for byte in printable},
             **{byte: chr(256 + i) for i, byte in enumerate(others)}}
    tokens = ["<s>", "</s>"] + [names[byte] for byte in range(256)] + [names[ord(" ")] + "t"]
    file.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "gpt-2")
    file.strings("tokenizer.ggml.tokens", tokens)
    file.numbers("tokenizer.ggml.token_type", [3, 3] + [1] * 257)
    file.strings("tokenizer.ggml.merges", [names[ord(" ")] + " t"])
    file.number("tokenizer.ggml.bos_token_id", 0).number("tokenizer.ggml.eos_token_id", 1)
    file.tensor("token_embd.weight", [8, len(tokens)])
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        file.tensor(name + ".weight", [8])
    for name, dims in (("attn_q", [8, 8]), ("attn_k", [8, 8]), ("attn_v", [8, 8]),
                       ("attn_output", [8, 8]), ("ffn_gate", [8, 16]), ("ffn_up", [8, 16])):
        file.tensor("blk.0.%s.weight" % name, dims)
    return file
