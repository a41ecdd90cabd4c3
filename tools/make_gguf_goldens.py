#!/usr/bin/env python3
"""Makes the GGUF goldens of tests/golden: tiny random models in GGUF files as llama.cpp's converter
lays them out, and what transformers computes with the values that those files stand for.

    build/reference/bin/python tools/make_gguf_goldens.py [--out tests/golden/data] [NAME...]

Each folder holds model.gguf, or the files of a split set, and reference.safetensors as
make_goldens.py writes it. Matrices are quantised, or made of random blocks for the types that the
`gguf` package cannot quantise to, and dequantised by that package; the reference model gets these
values, in transformers' own order of rows. Where transformers can load the file by itself, its
logits must be the same.
"""

import copy
import os
from dataclasses import dataclass, field
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, GGUFWriter, RopeScalingType, TokenType, get_tensor_name_map
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from transformers import AutoConfig, AutoModelForCausalLM

from dequantize_diff import SCALES, random_blocks
from golden_models import LLAMA3, SPECIAL, longrope, rope
from make_goldens import (
    CHAT_TEMPLATE, EAGER, TOLERANCE, all_logits, byte_characters, fill, random_prompt, run,
    worst_difference, write_reference,
)  # fmt: skip

COMMON = dict(
    vocab_size=len(SPECIAL) + 257,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=512,
    rms_norm_eps=1e-5,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=None,
)
SMALL = "Q8_0 Q5_1 Q4_1 Q8_0 Q5_0 Q4_0 F16 IQ4_NL BF16 MXFP4".split()
LARGE = "Q6_K Q4_K Q5_K IQ4_XS Q3_K Q2_K".split()
ARCHITECTURES = {"mistral": "llama", "mixtral": "llama", "phi": "phi2", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe",
                 "gemma3_text": "gemma3"}  # fmt: skip
PERMUTED = ("llama", "smollm3")


@dataclass
class Golden:
    model_type: str
    config: dict
    types: list = field(default_factory=lambda: SMALL)  # of the matrices, in turn
    version: int = 3
    tensors_per_file: int = 0  # 0: one file
    alignment: int = 32
    # Configurations, each of them this one with a feature off, that must give other logits.
    without: list = field(default_factory=list)
    loads: bool = False  # by transformers, with no difference
    seed: int | None = None  # to start from where few are useful


PLAIN_ROPE = rope("default")
MOE = dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=32)
GEMMA = dict(head_dim=32, num_attention_heads=2, num_key_value_heads=1, sliding_window=16)

GOLDENS = {
    "gguf_llama": Golden(
        "llama",
        dict(attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3),
        without=[dict(rope_parameters=PLAIN_ROPE)],
    ),
    "gguf_llama_k": Golden(
        "llama",
        dict(hidden_size=256, head_dim=64, num_key_value_heads=1, num_hidden_layers=1,
             intermediate_size=256, tie_word_embeddings=True),
        types=LARGE,
        loads=True,
    ),  # fmt: skip
    "gguf_llama_split": Golden(
        "llama",
        dict(num_key_value_heads=4, tie_word_embeddings=True,
             rope_parameters=rope("yarn", factor=8.0, original_max_position_embeddings=64)),
        tensors_per_file=8,
        without=[dict(rope_parameters=PLAIN_ROPE)],
    ),  # fmt: skip
    "gguf_mixtral": Golden(
        "mixtral",
        dict(intermediate_size=32, num_local_experts=5, num_experts_per_tok=2),
        without=[dict(num_experts_per_tok=1)],
    ),
    "gguf_phi": Golden(
        "phi",
        dict(intermediate_size=256, num_key_value_heads=4,
             rope_parameters=PLAIN_ROPE | dict(partial_rotary_factor=0.4)),
        without=[dict(rope_parameters=PLAIN_ROPE | dict(partial_rotary_factor=1.0))],
    ),  # fmt: skip
    "gguf_phi3": Golden(
        "phi3",
        dict(original_max_position_embeddings=40, sliding_window=48,
             rope_parameters=longrope(6) | dict(partial_rotary_factor=0.75)),
        without=[
            dict(original_max_position_embeddings=500),
            dict(sliding_window=None),
        ],
    ),  # fmt: skip
    "gguf_qwen2": Golden(
        "qwen2", dict(tie_word_embeddings=True), version=2, alignment=64, loads=True
    ),
    "gguf_qwen2_moe": Golden("qwen2_moe", MOE | dict(shared_expert_intermediate_size=32)),
    "gguf_qwen3": Golden("qwen3", dict(head_dim=32)),
    "gguf_qwen3_moe": Golden(
        "qwen3_moe",
        MOE | dict(num_experts_per_tok=3, norm_topk_prob=True),
        without=[dict(norm_topk_prob=False)],
    ),
    "gguf_gemma2": Golden(
        "gemma2",
        GEMMA
        | dict(query_pre_attn_scalar=32, attn_logit_softcapping=4.0, final_logit_softcapping=6.0),
        without=[dict(attn_logit_softcapping=None), dict(sliding_window=500)],
    ),
    "gguf_gemma3": Golden(
        "gemma3_text",
        GEMMA
        | dict(
            query_pre_attn_scalar=32,
            num_hidden_layers=6,
            rope_parameters=dict(
                sliding_attention=rope("default", 3000.0),
                full_attention=rope("linear", 50000.0, factor=4.0),
            ),
        ),
        without=[dict(sliding_window=500)],
    ),
    "gguf_smollm3": Golden(
        "smollm3",
        dict(num_hidden_layers=4),
        without=[dict(no_rope_layers=[1] * 4)],
    ),
}


def make_config(golden, **changes):
    return AutoConfig.for_model(golden.model_type, **{**COMMON, **golden.config, **changes})


def architecture(golden):
    return ARCHITECTURES.get(golden.model_type, golden.model_type)


def permute(rows, heads):
    """From the halves of a head one after the other to pairs, as interleaved rope wants them."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows, heads):
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


class Layout:
    """Between a transformers model and the tensors of a file, both ways."""

    def __init__(self, golden, model):
        config = model.config
        self.config, self.model = config, model
        self.arch = architecture(golden)
        key = next(key for key, name in MODEL_ARCH_NAMES.items() if name == self.arch)
        self.names = get_tensor_name_map(key, config.num_hidden_layers)
        self.state = model.state_dict()

    def parts(self):
        """What the file has: its name, the state's, and the part of that (a slice of its rows)."""
        for name in self.state:
            if name == "lm_head.weight" and self.config.tie_word_embeddings:
                continue
            stem, _, suffix = name.rpartition(".")
            if name.endswith("experts.gate_up_proj"):
                half = self.state[name].shape[1] // 2
                for part, rows in (("gate_proj", slice(0, half)), ("up_proj", slice(half, None))):
                    yield self.gguf_name(f"{stem}.{part}", "weight"), name, (slice(None), rows)
            elif name.endswith("experts.down_proj"):
                yield self.gguf_name(name, "weight"), name, (slice(None),)
            else:
                yield self.gguf_name(stem, suffix), name, (slice(None),)

    def gguf_name(self, stem, suffix):
        found = self.names.get_name(stem)
        assert found, f"{stem} has no name in {self.arch}"
        return f"{found}.{suffix}"

    def heads(self, gguf_name):
        """Of a tensor whose rows are permuted, else 0."""
        if self.arch not in PERMUTED:
            return 0
        if ".attn_q." in gguf_name:
            return self.config.num_attention_heads
        return self.config.num_key_value_heads if ".attn_k." in gguf_name else 0

    def shift(self, name):
        return 1 if self.arch.startswith("gemma") and name.endswith("norm.weight") else 0

    def stored(self, gguf_name, name, part):
        values = self.state[name][part].numpy() + np.float32(self.shift(name))
        heads = self.heads(gguf_name)
        return permute(values, heads) if heads else values

    def take_back(self, gguf_name, name, part, values):
        heads = self.heads(gguf_name)
        values = unpermute(values, heads) if heads else values
        self.state[name][part] = torch.from_numpy(values - np.float32(self.shift(name)))


def encode(values, kind, rng):
    """The bytes of a tensor, and the values that they stand for."""
    block_values, block_bytes = GGML_QUANT_SIZES[kind]
    shape = values.shape
    if kind in (Type.F32, Type.F16):
        data = quantize(values, kind)
    else:
        try:
            data = quantize(values, kind)
        except NotImplementedError:
            blocks = random_blocks(kind, 2 * (values.size // block_values), rng)[1::2]
            spread = dequantize(blocks, kind).std()
            for at in SCALES[kind]:
                scale = blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32)
                scale *= values.std() / spread
                blocks[:, at : at + 2] = scale.astype(np.float16).view(np.uint8)
            data = blocks.reshape(*shape[:-1], -1)
    return data, dequantize(data, kind).astype(np.float32).reshape(shape)


def add_metadata(writer, golden, config):
    arch = writer.arch
    writer.add_name("golden")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_quantization_version(2)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if arch == "phi2":
        writer.add_layer_norm_eps(config.layer_norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if arch not in ("phi2", "phi3"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    add_rope(writer, config, head_dim)
    if arch in ("gemma2", "gemma3", "phi3") or getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window or 0)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if golden.model_type in ("mixtral", "qwen2_moe", "qwen3_moe"):
        writer.add_expert_count(getattr(config, "num_experts", 0) or config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if arch in ("qwen2moe", "qwen3moe"):
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if arch == "qwen2moe":
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    add_tokenizer(writer)


def add_rope(writer, config, head_dim):
    given = config.rope_parameters
    keys = given.get("full_attention", given)
    if writer.arch not in ("gemma2", "phi2"):  # which leave it to the default
        writer.add_rope_freq_base(keys["rope_theta"])
    part = keys.get("partial_rotary_factor", 1.0)
    writer.add_rope_dimension_count(int(part * head_dim))
    if "sliding_attention" in given:
        writer.add_rope_freq_base_swa(given["sliding_attention"]["rope_theta"])
    kind = keys["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(kind))
        writer.add_rope_scaling_factor(keys["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(keys["original_max_position_embeddings"])
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(keys, head_dim))
    if kind == "longrope":
        trained = config.original_max_position_embeddings
        scale = config.max_position_embeddings / trained
        writer.add_rope_scaling_orig_ctx_len(trained)
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(scale) / np.log(trained))))
        for name in ("long", "short"):
            factors = np.array(keys[f"{name}_factor"], np.float32)
            writer.add_tensor(f"rope_factors_{name}.weight", factors)


def llama3_factors(keys, head_dim):
    trained = keys["original_max_position_embeddings"]
    low, high = keys["low_freq_factor"], keys["high_freq_factor"]
    freqs = 1.0 / keys["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    factors = []
    for length in (2 * torch.pi / freqs).tolist():
        smooth = min(max((trained / length - low) / (high - low), 0), 1)
        factors.append(1 / ((1 - smooth) / keys["factor"] + smooth))
    return np.array(factors, np.float32)


def add_tokenizer(writer):
    names = byte_characters()
    tokens = SPECIAL + [names[byte] for byte in range(256)] + [names[32] + "t"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * len(SPECIAL) + [TokenType.NORMAL] * 257)
    writer.add_token_merges([names[32] + " t"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write(golden, model, folder, seed):
    """Writes the file, and gives the model the values that are in it."""
    layout = Layout(golden, model)
    writer = GGUFWriter(
        folder / "model.gguf", layout.arch, split_max_tensors=golden.tensors_per_file
    )
    if golden.alignment != 32:
        writer.add_custom_alignment(golden.alignment)
    add_metadata(writer, golden, model.config)
    rng = np.random.default_rng(seed)
    matrices = 0
    for gguf_name, name, part in list(layout.parts()):
        values = layout.stored(gguf_name, name, part)
        kind = Type.F32
        if values.ndim > 1 and "gate_inp" not in gguf_name:
            # The next type whose blocks fit the rows.
            kinds = [Type[name] for name in golden.types + ["F32"]]
            kinds = kinds[matrices % len(golden.types) :] + kinds
            kind = next(k for k in kinds if values.shape[-1] % GGML_QUANT_SIZES[k][0] == 0)
            matrices += 1
        data, values = encode(values, kind, rng)
        writer.add_tensor(gguf_name, data, raw_dtype=kind)
        layout.take_back(gguf_name, name, part, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model.load_state_dict(layout.state)
    model.tie_weights()
    if golden.version != 3:  # a version 2 file of little-endian numbers is laid out as version 3
        for path in folder.glob("*.gguf"):
            data = bytearray(path.read_bytes())
            data[4] = golden.version
            path.write_bytes(data)


def narrowed(model, dtype):
    """As from_pretrained() makes it: weights alone are in `dtype`, not the rope's frequencies."""
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data = parameter.data.to(dtype)
    return other


def make_once(golden, seed, folder):
    """Writes a golden and returns what makes it useless, or None."""
    model = AutoModelForCausalLM.from_config(make_config(golden), **EAGER).eval()
    fill(model, seed)
    if "gemma" in golden.model_type:  # which multiplies it, and would repeat the last token
        embed = model.get_input_embeddings().weight
        embed.data *= 0.2 / embed.shape[1] ** 0.5 / embed.std()
    model.tie_weights()
    write(golden, model, folder, seed)
    without = [(changes, make_config(golden, **changes)) for changes in golden.without]
    reason = write_reference(model, lambda dtype: narrowed(model, dtype), without, seed, folder)
    if reason is None and golden.loads:
        other = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file="model.gguf", dtype=torch.float32, **EAGER
        )
        prompt = random_prompt(seed)
        difference = worst_difference(all_logits(model, prompt), all_logits(other.eval(), prompt))
        if difference > TOLERANCE:
            raise SystemExit(f"{folder.name}: transformers' loader differs by {difference:.1e}")
    return reason


if __name__ == "__main__":
    run(__doc__, GOLDENS, make_once)
