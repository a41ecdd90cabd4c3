"""models/tiny as a GGUF file with f32 weights, as llama.cpp lays a Llama out, by the standard
library alone. Knows no other model."""

import array
import json
import struct

BOS = 0  # <|begin|>
ALIGNMENT = 32
U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
NORMAL, USER_DEFINED = 1, 4  # kinds of tokens; the latter are found in any text
# llama.cpp takes some names for control tokens, whatever their kind, and then not out of a text.
RENAMED = {"<|end|>": "<|over|>", "<|endoftext|>": "<|done|>"}

NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm",
         "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def write_gguf(folder, target):
    config = json.loads((folder / "config.json").read_text())
    keys = metadata(config, json.loads((folder / "tokenizer.json").read_text()))
    tensors = list(read_tensors(folder / "model.safetensors", config))
    out = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(keys)), *keys]
    offset = 0
    for name, shape, data in tensors:
        out += [text(name), struct.pack("<I", len(shape)),
                struct.pack("<%dQ" % len(shape), *reversed(shape)), struct.pack("<IQ", 0, offset)]
        offset += padded(len(data))
    head = b"".join(out)
    with open(target, "wb") as file:
        file.write(head.ljust(padded(len(head)), b"\0"))
        for _, _, data in tensors:
            file.write(data.ljust(padded(len(data)), b"\0"))


def padded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def text(value):
    value = value.encode()
    return struct.pack("<Q", len(value)) + value


def metadata(config, tokenizer):
    def key(name, kind, value):
        return text(name) + struct.pack("<I", kind) + value

    def number(name, value):
        return key(name, F32, struct.pack("<f", value)) if isinstance(value, float) else key(
            name, U32, struct.pack("<I", value))

    def items(name, kind, values):
        return key(name, ARRAY, struct.pack("<IQ", kind, len(values)) + b"".join(values))

    special = {token["id"] for token in tokenizer["added_tokens"]}
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    heads = config["num_attention_heads"]
    return [
        key("general.architecture", STRING, text("llama")),
        number("llama.context_length", config["max_position_embeddings"]),
        number("llama.embedding_length", config["hidden_size"]),
        number("llama.block_count", config["num_hidden_layers"]),
        number("llama.feed_forward_length", config["intermediate_size"]),
        number("llama.attention.head_count", heads),
        number("llama.attention.head_count_kv", config["num_key_value_heads"]),
        number("llama.attention.layer_norm_rms_epsilon", config["rms_norm_eps"]),
        number("llama.rope.dimension_count", config["head_dim"]),
        number("llama.rope.freq_base", config["rope_parameters"]["rope_theta"]),
        number("llama.vocab_size", config["vocab_size"]),
        key("tokenizer.ggml.model", STRING, text("gpt2")),
        key("tokenizer.ggml.pre", STRING, text("qwen2")),  # the same words
        items("tokenizer.ggml.tokens", STRING,
              [text(RENAMED.get(token, token)) for token in vocabulary]),
        items("tokenizer.ggml.token_type", I32,
              [struct.pack("<i", USER_DEFINED if i in special else NORMAL)
               for i in range(len(vocabulary))]),
        items("tokenizer.ggml.merges", STRING,
              [text(" ".join(pair)) for pair in tokenizer["model"]["merges"]]),
        number("tokenizer.ggml.bos_token_id", BOS),
        number("tokenizer.ggml.eos_token_id", config["eos_token_id"][0]),
        key("tokenizer.ggml.add_bos_token", BOOL, b"\1"),
    ]


def read_tensors(path, config):
    """(name, shape, bytes of f32) of each."""
    raw = path.read_bytes()
    size, = struct.unpack_from("<Q", raw)
    for name, info in json.loads(raw[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + at for at in info["data_offsets"])
        halves = array.array("H", raw[begin:end])  # bf16 is the upper half of f32
        data = array.array("I", (half << 16 for half in halves)).tobytes()
        layer, _, part = name.removeprefix("model.layers.").partition(".")
        if name.startswith("model.layers."):
            target = "blk.%s.%s" % (layer, NAMES[part.removesuffix(".weight")])
        else:
            target = NAMES[name.removesuffix(".weight")]
        heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(
            target.rpartition(".")[2])
        if heads:
            data = interleaved(data, info["shape"], config[heads])
        yield target + ".weight", info["shape"], data


def interleaved(data, shape, heads):
    """Rope turns rows (i, i + half) of a head together; llama.cpp wants them side by side."""
    row, half = len(data) // shape[0], shape[0] // heads // 2
    rows = [data[i * row:(i + 1) * row] for i in range(shape[0])]
    return b"".join(rows[head * 2 * half + i + part * half]
                    for head in range(heads) for i in range(half) for part in (0, 1))
