#!/usr/bin/env python3
"""Compares GGUF models with transformers on random small configurations that no golden has.

    build/reference/bin/python tools/gguf_diff.py [--cases N] [--seed S] [--keep DIR] [FAMILY...]

Each case is a file as llama.cpp's converter would write it: random sizes, features that GGUF can
say, types that fit the rows, one file or several. transformers computes with the values that the
file stands for. Compared as by family_diff.py; needs build/cpu/tests/golden/model_cli.
"""

import random

from transformers import AutoConfig, AutoModelForCausalLM

import make_gguf_goldens
from family_diff import compare_outputs, run
from golden_models import SPECIAL, longrope, rope
from make_goldens import EAGER, fill


def random_golden(family, rng):
    heads = rng.choice([1, 2, 3, 4, 8])
    kv_heads = rng.choice([k for k in range(1, heads + 1) if heads % k == 0])
    head_dim = rng.choice([4, 10, 16, 32, 64])
    hidden = heads * head_dim
    layers = rng.randint(1, 4)
    config = dict(
        vocab_size=len(SPECIAL) + 257,
        hidden_size=hidden,
        intermediate_size=rng.choice([32, 50, 64, 256]),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
        tie_word_embeddings=rng.random() < 0.5,
        rms_norm_eps=rng.choice([1e-5, 1e-6, 1e-3]),
    )
    scaled = rng.choice(
        [
            rope("default", rng.choice([1e4, 5e5])),
            rope("linear", factor=4.0),
            rope("yarn", factor=8.0, original_max_position_embeddings=64),
            rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                 original_max_position_embeddings=32),
        ]
    )  # fmt: skip
    config["rope_parameters"] = scaled
    if scaled["rope_type"] == "linear":
        config["max_position_embeddings"] = 128
    if family == "phi":
        config |= dict(intermediate_size=4 * hidden, num_key_value_heads=heads)
        parts = [part for part in (0.4, 0.5, 1.0) if int(part * head_dim) % 2 == 0]
        config["rope_parameters"] = rope("default", partial_rotary_factor=rng.choice(parts))
    elif family == "phi3":
        trained = rng.choice([16, 100, 512])
        config |= dict(sliding_window=rng.choice([None, 30]), original_max_position_embeddings=trained)
        config["rope_parameters"] = rng.choice([rope("default"), longrope(head_dim // 2)])
    elif family.startswith("gemma"):
        config |= dict(head_dim=head_dim, query_pre_attn_scalar=head_dim, sliding_window=rng.choice([9, 40]))
        config["final_logit_softcapping"] = rng.choice([0.5, 5.0])
        config["rope_parameters"] = rope("default")
        if family == "gemma3_text":
            config["num_hidden_layers"] = rng.randint(1, 8)
            config["rope_parameters"] = dict(
                sliding_attention=rope("default", 1e4),
                full_attention=rng.choice([rope("default", 1e6), rope("linear", 1e6, factor=8.0)]),
            )
        else:
            # The converter leaves out a head of its own.
            config |= dict(attn_logit_softcapping=rng.choice([2.0, 50.0]), tie_word_embeddings=True)
    else:
        config["head_dim"] = rng.choice([head_dim, 2 * head_dim])
        if family in ("llama", "smollm3"):
            config |= dict(attention_bias=rng.random() < 0.4, mlp_bias=rng.random() < 0.4)
        if family in ("qwen3", "qwen3_moe"):
            config["attention_bias"] = rng.random() < 0.4
        if family == "mistral":
            config["sliding_window"] = rng.choice([None, 20])
        if family in ("mixtral", "qwen2_moe", "qwen3_moe"):
            experts = rng.randint(2, 6)
            config |= dict(num_experts_per_tok=rng.randint(1, experts))
            config |= {"num_local_experts" if family == "mixtral" else "num_experts": experts}
            config |= dict(moe_intermediate_size=rng.choice([10, 32]),
                           shared_expert_intermediate_size=rng.choice([20, 32]),
                           norm_topk_prob=family == "qwen3_moe")  # fmt: skip
        if family == "qwen2_moe":
            config.pop("head_dim")
        if family != "llama" and scaled["rope_type"] == "llama3":
            config["rope_parameters"] = rope("default")
    tensors_per_file = rng.choice([0, 0, 5])
    types = make_gguf_goldens.LARGE + make_gguf_goldens.SMALL + ["F32"]
    return make_gguf_goldens.Golden(
        family,
        config,
        types=rng.sample(types, len(types)),
        version=rng.choice([2, 3, 3]),
        # The package writes it in a set's first file only.
        alignment=32 if tensors_per_file else rng.choice([32, 8, 256]),
        tensors_per_file=tensors_per_file,
    )


def make_case(family, seed):
    rng = random.Random(f"gguf {family} {seed}")
    golden = random_golden(family, rng)
    vocab = golden.config["vocab_size"]
    return golden, [rng.randrange(2, vocab) for _ in range(rng.choice([1, 20, 90]))]


def compare(case, seed, folder):
    golden, prompt = case
    config = AutoConfig.for_model(golden.model_type, **golden.config)

    def make():
        return AutoModelForCausalLM.from_config(config, **EAGER).eval()

    model = make()
    fill(model, seed)
    model.tie_weights()
    make_gguf_goldens.write(golden, model, folder, seed)

    def anew():  # without the rope tables that generate() leaves
        other = make()
        other.load_state_dict(model.state_dict())
        return other

    return compare_outputs(anew, folder, prompt)


if __name__ == "__main__":
    run(__doc__, make_case, compare)
