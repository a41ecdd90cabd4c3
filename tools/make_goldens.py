#!/usr/bin/env python3
"""Makes the checkpoints and reference outputs of tests/golden: tiny random models, and what
transformers computes with them.

    build/reference/bin/python tools/make_goldens.py [--out tests/golden/data] [NAME...]

Each folder holds a checkpoint as transformers writes it, which a worker can serve (its tokens are
bytes), and reference.safetensors:
    prompt    I32 [64]      token ids, of a text
    logits    F32 [64, V]   of every row of the prompt, computed in f32
    greedy    I32 [256]     the tokens that generate() appends at temperature 0, with its cache
    logprobs  F32 [256]     of these tokens
    bf16_error, f16_error   F32 [3]  how far transformers' logits are from those when it computes in
                            bf16 or f16, in parts of a row's max - min: root mean square of the
                            median row and of all rows, and the mean of the rows' maxima
16-bit checkpoints are widened to f32 before anything is computed. The same versions of torch and
transformers (tools/requirements.txt) write the same bytes again.

A seed is used only if its outputs are worth comparing: the best token leads the second by more than
the tolerance at every greedy step, the tokens do not soon repeat, and each feature that a golden
is there for changes the logits when it is switched off.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

PROMPT_TOKENS = 64
GREEDY_TOKENS = 256
TOLERANCE = 1e-4  # of a row's max - min; what the test allows
LEAD = TOLERANCE  # of the best token over the second
MATTERS = 50 * TOLERANCE  # what a feature must change
MIN_DISTINCT = 20  # of the greedy tokens

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
EAGER = dict(attn_implementation="eager", experts_implementation="eager")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content | trim }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
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


def make_config(golden, **changes):
    return AutoConfig.for_model(golden.model_type, **{**COMMON, **golden.config, **changes})


def fill(model, seed):
    """Random weights large enough that attention, position and every bias and gain matter."""
    generator = torch.Generator().manual_seed(seed)
    kind = model.config.model_type
    for name, tensor in model.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() == 1:
            around_1 = "norm" in name and name.endswith("weight") and "gemma" not in kind
            noise = 1 + 0.3 * noise if around_1 else 0.3 * noise
        elif "embed" in name:
            # Small, or a tied head would only ever repeat the last token.
            noise = 0.2 * noise / (tensor.shape[-1] ** 0.5 if "gemma" in kind else 1)
        else:
            noise = 1.6 * noise / tensor.shape[-1] ** 0.5
        tensor.data = noise


def load(folder, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **EAGER)
    return model.eval()


def all_logits(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0].float()


def worst_difference(a, b):
    """The greatest difference of a row, in parts of that row's range."""
    span = a.max(1).values - a.min(1).values
    return ((a - b).abs().max(1).values / span).max().item()


def generate(model, prompt, tokens=GREEDY_TOKENS):
    """generate()'s tokens, their logprobs, and by how much of the row's range the best led at its
    narrowest."""
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        use_cache=True,
        return_dict_in_generate=True,
        output_logits=True,
    )
    rows = torch.cat(out.logits).float()
    greedy = out.sequences[0, len(prompt) :]
    best = rows.topk(2).values
    lead = ((best[:, 0] - best[:, 1]) / (rows.max(1).values - rows.min(1).values)).min().item()
    logprobs = rows.log_softmax(1).gather(1, greedy[:, None])[:, 0]
    return greedy.tolist(), logprobs, lead


def error_of(model, prompt, logits):
    """Of transformers itself: `model` computes in 16 bits, `logits` are those of f32."""
    span = logits.max(1).values - logits.min(1).values
    error = (all_logits(model, prompt) - logits) / span[:, None]
    rows = error.pow(2).mean(1).sqrt().sort().values
    worst = error.abs().max(1).values.mean()
    return torch.stack([rows[len(rows) // 2], error.pow(2).mean().sqrt(), worst])


def byte_characters():
    """The byte-level alphabet: what a byte is called in tokenizer.json."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable}
    return names | {byte: chr(256 + i) for i, byte in enumerate(others)}


def write_tokenizer(folder):
    names = byte_characters()
    added = [
        dict(
            id=i, content=text, single_word=False, lstrip=False, rstrip=False, normalized=False,
            special=True,
        )
        for i, text in enumerate(SPECIAL)
    ]
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer = dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=added,
        normalizer=None,
        pre_tokenizer=byte_level,
        post_processor=None,
        decoder=byte_level,
        model=dict(
            type="BPE",
            vocab={names[byte]: len(SPECIAL) + byte for byte in range(256)},
            merges=[],
        ),
    )
    config = dict(
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        pad_token=SPECIAL[2],
        chat_template=CHAT_TEMPLATE,
    )
    for name, content in (("tokenizer", tokenizer), ("tokenizer_config", config)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def write_config(folder, rewrite):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in rewrite.items():
        config.pop(key, None)
        if value is not None:
            config[key] = value
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_checkpoint(golden, seed, folder):
    model = AutoModelForCausalLM.from_config(make_config(golden))
    fill(model, seed)
    model.tie_weights()
    model.to(golden.dtype)
    saved = model.model if golden.bare_names else model
    saved.save_pretrained(
        folder,
        max_shard_size=golden.max_shard_size,
        save_original_format=not golden.stacked_experts,
    )
    write_config(folder, golden.rewrite)
    write_tokenizer(folder)


def random_prompt(seed):
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(32, 127, (PROMPT_TOKENS,), generator=generator)
    return (text + len(SPECIAL)).tolist()


def write_reference(model, narrowed, without, seed, folder):
    """Writes what `model` computes, or returns what makes it useless. `narrowed(dtype)` gives the
    model in 16 bits; `without` has configurations that must give other logits."""
    prompt = random_prompt(seed)
    logits = all_logits(model, prompt)
    greedy, logprobs, lead = generate(model, prompt)
    if lead < LEAD:
        return f"the best token leads by {lead:.1e} only"
    if len(set(greedy)) < MIN_DISTINCT:
        return f"{len(set(greedy))} distinct tokens only"
    for changes, config in without:
        other = AutoModelForCausalLM.from_config(config, **EAGER).eval()
        other.load_state_dict(model.state_dict())
        difference = worst_difference(logits, all_logits(other, prompt))
        if difference < MATTERS:
            return f"{changes} changes the logits by {difference:.1e} only"
    save_file(
        dict(
            prompt=torch.tensor(prompt, dtype=torch.int32),
            logits=logits.contiguous(),
            greedy=torch.tensor(greedy, dtype=torch.int32),
            logprobs=logprobs.contiguous(),
            bf16_error=error_of(narrowed(torch.bfloat16), prompt, logits),
            f16_error=error_of(narrowed(torch.float16), prompt, logits),
        ),
        folder / "reference.safetensors",
    )
    return None


def make_once(golden, seed, folder):
    """Writes a golden and returns what makes it useless, or None."""
    write_checkpoint(golden, seed, folder)
    without = [(changes, make_config(golden, **changes)) for changes in golden.without]
    return write_reference(load(folder), lambda dtype: load(folder, dtype), without, seed, folder)


def make(name, golden, make_once, out):
    first_seed = golden.seed or sum(name.encode()) * 1000
    for seed in range(first_seed, first_seed + 200):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / name
            folder.mkdir()
            reason = make_once(golden, seed, folder)
            if reason is None:
                shutil.rmtree(out / name, ignore_errors=True)
                shutil.copytree(folder, out / name, copy_function=shutil.copyfile)
                size = sum(f.stat().st_size for f in folder.iterdir())
                print(f"{name}: seed {seed}, {size / 1000:.0f} kB")
                return
    raise SystemExit(f"{name}: no seed is useful; the last one: {reason}")


def run(description, goldens, make_once):
    """The command line of what makes `goldens`."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("tests/golden/data"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    with torch.no_grad():
        for name in arguments.names or goldens:
            make(name, goldens[name], make_once, arguments.out)


if __name__ == "__main__":
    run(__doc__, GOLDENS, make_once)
