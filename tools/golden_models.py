"""The models of tests/golden: which tiny checkpoints tools/make_goldens.py makes, and what each of them
is there for."""

from dataclasses import dataclass, field

import torch

SPECIAL = ["<bos>", "<eos>", "<pad>"]
COMMON = dict(
    vocab_size=len(SPECIAL) + 256,
    hidden_size=48,
    intermediate_size=72,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=512,
    rms_norm_eps=1e-5,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=None,
)


@dataclass
class Golden:
    model_type: str
    config: dict
    dtype: torch.dtype = torch.float32
    max_shard_size: str = "1GB"
    # Keys of the written config.json replaced (None: removed), to give it the form other writers use.
    rewrite: dict = field(default_factory=dict)
    seed: int | None = None  # to start from where few are useful
    bare_names: bool = False  # saved as the base model, without "model." before each name
    stacked_experts: bool = False
    # Configurations, each of them this one with a feature off, that must give other logits.
    without: list = field(default_factory=list)


def rope(kind, theta=10000.0, **keys):
    return dict(rope_type=kind, rope_theta=theta, **keys)


def longrope(pairs, **keys):
    short = [1.0 + 0.05 * i for i in range(pairs)]
    long = [1.5 + 0.6 * i for i in range(pairs)]
    return rope("longrope", short_factor=short, long_factor=long, **keys)


LLAMA3 = rope(
    "llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
PLAIN_ROPE = rope("default")
MOE = dict(
    num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=24
)
GEMMA = dict(
    hidden_size=40,
    head_dim=14,
    num_key_value_heads=2,
    num_hidden_layers=4,
    intermediate_size=36,
    sliding_window=16,
    query_pre_attn_scalar=20,
)
GEMMA3 = GEMMA | dict(
    num_hidden_layers=3,
    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    rope_parameters=dict(
        sliding_attention=rope("default", 3000.0),
        full_attention=rope("linear", 50000.0, factor=4.0),
    ),
)

GOLDENS = {
    "llama_tied": Golden("llama", dict(tie_word_embeddings=True)),
    "llama_gqa_bias_llama3": Golden(
        "llama",
        dict(num_key_value_heads=2, attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3),
        without=[dict(rope_parameters=PLAIN_ROPE)],
    ),
    # As transformers 4 wrote it: rope_theta and rope_scaling beside each other, no head_dim.
    "llama_old_keys_linear": Golden(
        "llama",
        dict(
            num_key_value_heads=1,
            max_position_embeddings=128,
            rope_parameters=rope("linear", 5000.0, factor=3.0),
        ),
        rewrite=dict(
            rope_parameters=None,
            head_dim=None,
            dtype=None,
            rope_theta=5000.0,
            rope_scaling=dict(type="linear", factor=3.0),
            torch_dtype="float32",
        ),
        without=[dict(rope_parameters=PLAIN_ROPE)],
    ),
    "llama_head_dim": Golden(
        "llama",
        dict(head_dim=20, num_key_value_heads=2, hidden_act="gelu_pytorch_tanh"),
        without=[dict(hidden_act="silu")],
    ),
    "llama_gelu": Golden("llama", dict(head_dim=10, num_attention_heads=3, hidden_act="gelu")),
    "llama_yarn": Golden(
        "llama",
        dict(
            num_attention_heads=2,
            rope_parameters=rope("yarn", factor=8.0, original_max_position_embeddings=64),
        ),
        without=[dict(rope_parameters=PLAIN_ROPE)],
    ),
    # The context is longer than max_position_embeddings says.
    "llama_yarn_extends": Golden(
        "llama",
        dict(
            max_position_embeddings=48,
            rope_parameters=rope("yarn", factor=8.0, attention_factor=0.9, beta_fast=16.0),
        ),
        without=[dict(rope_parameters=PLAIN_ROPE)],
    ),
    # Past the trained context in the prompt, and crossing it while decoding.
    "llama_dynamic": Golden(
        "llama",
        dict(max_position_embeddings=40, rope_parameters=rope("dynamic", factor=8.0)),
        without=[dict(rope_parameters=PLAIN_ROPE)],
    ),
    "llama_dynamic_crossing": Golden(
        "llama",
        dict(
            max_position_embeddings=100,
            num_key_value_heads=2,
            rope_parameters=rope("dynamic", factor=4.0),
        ),
        rewrite=dict(rope_parameters=None, rope_scaling=dict(type="dynamic", factor=4.0)),
    ),
    "llama_bf16": Golden("llama", dict(num_key_value_heads=2), dtype=torch.bfloat16),
    "llama_sharded": Golden("llama", dict(num_key_value_heads=2), max_shard_size="90KB"),
    "llama_bare_names": Golden("llama", dict(tie_word_embeddings=True), bare_names=True),
    "mistral_window": Golden(
        "mistral",
        dict(num_key_value_heads=2, sliding_window=16),
        without=[dict(sliding_window=None), dict(sliding_window=15)],
    ),
    "mistral_no_window": Golden(
        "mistral", dict(num_key_value_heads=2, sliding_window=None, num_hidden_layers=3)
    ),
    "mixtral": Golden(
        "mixtral",
        dict(
            num_key_value_heads=2,
            intermediate_size=28,
            num_local_experts=5,
            num_experts_per_tok=2,
            head_dim=10,
        ),
        without=[dict(num_experts_per_tok=1)],
    ),
    "mixtral_window_bf16": Golden(
        "mixtral",
        dict(
            num_key_value_heads=1,
            intermediate_size=24,
            num_local_experts=4,
            num_experts_per_tok=3,
            sliding_window=24,
            tie_word_embeddings=True,
        ),
        dtype=torch.bfloat16,
        without=[dict(sliding_window=None)],
    ),
    "phi": Golden(
        "phi",
        dict(rope_parameters=PLAIN_ROPE | dict(partial_rotary_factor=0.5)),
        rewrite=dict(rope_parameters=None, rope_theta=10000.0, partial_rotary_factor=0.5),
        without=[
            dict(rope_parameters=PLAIN_ROPE | dict(partial_rotary_factor=1.0)),
            dict(hidden_act="relu"),
        ],
    ),
    "phi_qk_layernorm": Golden(
        "phi",
        dict(
            num_attention_heads=3,
            num_key_value_heads=1,
            qk_layernorm=True,
            num_hidden_layers=3,
            tie_word_embeddings=True,
            hidden_act="gelu",
            layer_norm_eps=1e-3,
            rope_parameters=rope("linear", factor=2.0, partial_rotary_factor=0.375),
        ),
        seed=1716052,
        without=[dict(layer_norm_eps=1e-5)],
    ),
    # 9 of 12 dimensions turn, which is rounded up to pairs.
    "phi3": Golden(
        "phi3",
        dict(num_key_value_heads=2, rope_parameters=PLAIN_ROPE | dict(partial_rotary_factor=0.75)),
        without=[dict(rope_parameters=PLAIN_ROPE | dict(partial_rotary_factor=1.0))],
    ),
    "phi3_window_f16": Golden(
        "phi3",
        dict(sliding_window=16, num_hidden_layers=3, tie_word_embeddings=True),
        dtype=torch.float16,
        without=[dict(sliding_window=None)],
    ),
    # Past the trained context in the prompt, and crossing it while decoding.
    "phi3_longrope": Golden(
        "phi3",
        dict(
            num_attention_heads=3,
            original_max_position_embeddings=40,
            rope_parameters=longrope(6) | dict(partial_rotary_factor=0.75),
        ),
        without=[
            dict(original_max_position_embeddings=500),
            dict(rope_parameters=PLAIN_ROPE | dict(partial_rotary_factor=0.75)),
        ],
    ),
    "phi3_longrope_crossing": Golden(
        "phi3",
        dict(
            original_max_position_embeddings=150,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            rope_parameters=longrope(6),
        ),
        rewrite=dict(
            rope_parameters=None,
            rope_theta=10000.0,
            rope_scaling=dict(
                type="su",
                original_max_position_embeddings=150,
                short_factor=longrope(6)["short_factor"],
                long_factor=longrope(6)["long_factor"],
            ),
        ),
    ),
    "qwen2_tied": Golden(
        "qwen2", dict(num_key_value_heads=2, tie_word_embeddings=True, rms_norm_eps=1e-6)
    ),
    # Without layer_types, as older files are: max_window_layers alone says which layers slide.
    "qwen2_window": Golden(
        "qwen2",
        dict(
            num_key_value_heads=4,
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=16,
            max_window_layers=1,
        ),
        rewrite=dict(layer_types=None),
        without=[dict(use_sliding_window=False), dict(max_window_layers=0)],
    ),
    "qwen2_f16": Golden("qwen2", dict(num_key_value_heads=1), dtype=torch.float16),
    "qwen3": Golden(
        "qwen3", dict(num_key_value_heads=2, head_dim=18, attention_bias=True, rms_norm_eps=1e-6)
    ),
    "qwen3_window_tied": Golden(
        "qwen3",
        dict(
            num_key_value_heads=1,
            head_dim=12,
            num_hidden_layers=3,
            tie_word_embeddings=True,
            use_sliding_window=True,
            sliding_window=20,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
        ),
        without=[dict(use_sliding_window=False, layer_types=["full_attention"] * 3)],
    ),
    # A dense layer by the list, one by the step, and one with experts.
    "qwen2_moe": Golden(
        "qwen2_moe",
        MOE
        | dict(
            num_key_value_heads=2,
            num_hidden_layers=4,
            intermediate_size=36,
            decoder_sparse_step=2,
            mlp_only_layers=[1],
        ),
        without=[dict(norm_topk_prob=True)],
    ),
    "qwen2_moe_window": Golden(
        "qwen2_moe",
        MOE
        | dict(
            num_key_value_heads=4,
            norm_topk_prob=True,
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=16,
            max_window_layers=2,
            qkv_bias=False,
            tie_word_embeddings=True,
        ),
        rewrite=dict(layer_types=None),
        without=[dict(norm_topk_prob=False)],
    ),
    # Experts stacked, as transformers 5 holds them in memory.
    "qwen3_moe_stacked": Golden(
        "qwen3_moe",
        dict(
            num_key_value_heads=2,
            head_dim=10,
            num_experts=7,
            num_experts_per_tok=3,
            moe_intermediate_size=20,
            norm_topk_prob=True,
            attention_bias=True,
        ),
        stacked_experts=True,
        without=[dict(norm_topk_prob=False)],
    ),
    "qwen3_moe_window_bf16": Golden(
        "qwen3_moe",
        dict(
            num_key_value_heads=1,
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=20,
            mlp_only_layers=[0],
            use_sliding_window=True,
            sliding_window=20,
        ),
        dtype=torch.bfloat16,
        without=[dict(use_sliding_window=False)],
    ),
    "gemma2": Golden(
        "gemma2",
        GEMMA | dict(attn_logit_softcapping=4.0, final_logit_softcapping=0.4),
        without=[
            dict(attn_logit_softcapping=None),
            dict(final_logit_softcapping=None),
            dict(sliding_window=500),
            dict(query_pre_attn_scalar=14),
        ],
    ),
    "gemma2_untied_bf16": Golden(
        "gemma2",
        GEMMA
        | dict(
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            attention_bias=True,
            tie_word_embeddings=False,
            layer_types=["full_attention", "sliding_attention"] * 2,
        ),
        dtype=torch.bfloat16,
    ),
    "gemma3": Golden(
        "gemma3_text",
        GEMMA3 | dict(final_logit_softcapping=0.4),
        without=[
            dict(sliding_window=500),
            dict(final_logit_softcapping=None),
            dict(
                rope_parameters=dict(
                    sliding_attention=rope("default", 3000.0),
                    full_attention=rope("default", 3000.0),
                )
            ),
        ],
    ),
    # As transformers 4 wrote it.
    "gemma3_old_keys_bf16": Golden(
        "gemma3_text",
        GEMMA3 | dict(num_key_value_heads=1, attention_bias=True, tie_word_embeddings=False),
        dtype=torch.bfloat16,
        rewrite=dict(
            rope_parameters=None,
            rope_theta=50000.0,
            rope_local_base_freq=3000.0,
            rope_scaling=dict(rope_type="linear", factor=4.0),
            layer_types=None,
            sliding_window_pattern=2,
        ),
    ),
    "smollm3": Golden(
        "smollm3",
        dict(num_key_value_heads=2, num_hidden_layers=4, intermediate_size=40),
        without=[dict(no_rope_layers=[1] * 4)],
    ),
    "smollm3_window": Golden(
        "smollm3",
        dict(
            num_key_value_heads=1,
            num_hidden_layers=3,
            no_rope_layers=[0, 1, 1],
            use_sliding_window=True,
            sliding_window=16,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=False,
        ),
        rewrite=dict(layer_types=None),
        without=[dict(use_sliding_window=False, layer_types=["full_attention"] * 3)],
    ),
}
