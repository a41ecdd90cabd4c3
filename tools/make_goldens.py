#!/usr/bin/env python3
"""Makes the checkpoints and reference outputs of tests/golden: tiny random models, and what
transformers computes with them.

    build/reference/bin/python tools/make_goldens.py [--out tests/golden/data] [NAME...]

Each folder holds a checkpoint as transformers writes it and reference.safetensors:
    prompt  I32 [64]      token ids
    logits  F32 [64, V]   of every row of the prompt, computed in f32
    greedy  I32 [64]      the tokens that follow at temperature 0
16-bit checkpoints are widened to f32 before anything is computed. The same versions of torch and
transformers (tools/requirements.txt) write the same bytes again.

A seed is used only if its outputs are worth comparing: the best token leads the second by far more
than the tolerance at every greedy step, the tokens do not soon repeat, and each feature that a golden
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
GREEDY_TOKENS = 64
TOLERANCE = 1e-4  # of a row's max - min; what the test allows
LEAD = 10 * TOLERANCE  # of the best token over the second
MATTERS = 100 * TOLERANCE  # what a feature must change
MIN_DISTINCT = 20  # of the greedy tokens

COMMON = dict(
    vocab_size=257,
    hidden_size=48,
    intermediate_size=72,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    bos_token_id=0,
    eos_token_id=1,
)


@dataclass
class Golden:
    model_type: str
    config: dict
    dtype: torch.dtype = torch.float32
    max_shard_size: str = "1GB"
    # Keys of the written config.json replaced (None: removed), to give it the form other writers use.
    rewrite: dict = field(default_factory=dict)
    # Configurations, each of them this one with a feature off, that must give other logits.
    without: list = field(default_factory=list)


LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
YARN = dict(
    rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64
)
PLAIN_ROPE = dict(rope_type="default", rope_theta=10000.0)

GOLDENS = {
    "llama_tied": Golden("llama", dict(tie_word_embeddings=True)),
    "llama_gqa_bias_llama3": Golden(
        "llama",
        dict(
            num_key_value_heads=2,
            attention_bias=True,
            mlp_bias=True,
            rope_parameters=LLAMA3,
            max_position_embeddings=512,
        ),
        without=[dict(rope_parameters=PLAIN_ROPE)],
    ),
    # As transformers 4 wrote it: rope_theta and rope_scaling beside each other, no head_dim.
    "llama_old_keys_linear": Golden(
        "llama",
        dict(
            num_key_value_heads=1,
            rope_parameters=dict(rope_type="linear", rope_theta=5000.0, factor=3.0),
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
    "llama_yarn": Golden(
        "llama",
        dict(num_attention_heads=2, rope_parameters=YARN),
        without=[dict(rope_parameters=PLAIN_ROPE)],
    ),
    "mistral_window": Golden(
        "mistral",
        dict(num_key_value_heads=2, sliding_window=16),
        without=[dict(sliding_window=None), dict(sliding_window=15)],
    ),
    "mistral_no_window": Golden(
        "mistral", dict(num_key_value_heads=2, sliding_window=None, num_hidden_layers=3)
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
    "llama_bf16": Golden("llama", dict(num_key_value_heads=2), dtype=torch.bfloat16),
    "qwen2_f16": Golden("qwen2", dict(num_key_value_heads=1), dtype=torch.float16),
    "llama_sharded": Golden("llama", dict(num_key_value_heads=2), max_shard_size="90KB"),
}


def make_config(golden, **changes):
    return AutoConfig.for_model(golden.model_type, **{**COMMON, **golden.config, **changes})


def fill(model, seed):
    """Random weights large enough that attention, position and every bias and gain matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() == 1:
            noise = 1 + 0.3 * noise if "norm" in name else 0.3 * noise
        elif "embed" in name:
            noise = 0.2 * noise  # or a tied head would only ever repeat the last token
        else:
            noise = 1.6 * noise / tensor.shape[1] ** 0.5
        tensor.data = noise


def load(folder, **changes):
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **changes
    )
    return model.eval()


def all_logits(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0].float()


def worst_difference(a, b):
    """The greatest difference of a row, in parts of that row's range."""
    span = a.max(1).values - a.min(1).values
    return ((a - b).abs().max(1).values / span).max().item()


def greedy_tokens(model, prompt):
    """The tokens, and by how much of the row's range the best led at its narrowest."""
    ids, lead = list(prompt), 1.0
    for _ in range(GREEDY_TOKENS):
        row = all_logits(model, ids)[-1]
        best = row.topk(2).values
        lead = min(lead, ((best[0] - best[1]) / (row.max() - row.min())).item())
        ids.append(int(row.argmax()))
    return ids[len(prompt) :], lead


def write_checkpoint(golden, seed, folder):
    model = AutoModelForCausalLM.from_config(make_config(golden))
    fill(model, seed)
    model.tie_weights()
    model.to(golden.dtype).save_pretrained(folder, max_shard_size=golden.max_shard_size)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in golden.rewrite.items():
        config.pop(key, None)
        if value is not None:
            config[key] = value
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    # A folder is a checkpoint only with a tokenizer; the golden tests use token ids alone.
    tokenizer = dict(version="1.0", model=dict(type="BPE", vocab={}, merges=[]))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer) + "\n")


def make_once(golden, seed, folder):
    """Writes a golden and returns what makes it useless, or None."""
    write_checkpoint(golden, seed, folder)
    model = load(folder)
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(2, COMMON["vocab_size"], (PROMPT_TOKENS,), generator=generator).tolist()
    logits = all_logits(model, prompt)
    greedy, lead = greedy_tokens(model, prompt)
    if lead < LEAD:
        return f"the best token leads by {lead:.1e} only"
    if len(set(greedy)) < MIN_DISTINCT:
        return f"{len(set(greedy))} distinct tokens only"
    for changes in golden.without:
        other = AutoModelForCausalLM.from_config(
            make_config(golden, **changes), attn_implementation="eager"
        )
        other.load_state_dict(model.state_dict())
        difference = worst_difference(logits, all_logits(other.eval(), prompt))
        if difference < MATTERS:
            return f"{changes} changes the logits by {difference:.1e} only"
    save_file(
        dict(
            prompt=torch.tensor(prompt, dtype=torch.int32),
            logits=logits.contiguous(),
            greedy=torch.tensor(greedy, dtype=torch.int32),
        ),
        folder / "reference.safetensors",
    )
    return None


def make(name, out):
    first_seed = sum(name.encode()) * 1000
    for seed in range(first_seed, first_seed + 200):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / name
            reason = make_once(GOLDENS[name], seed, folder)
            if reason is None:
                shutil.rmtree(out / name, ignore_errors=True)
                shutil.copytree(folder, out / name, copy_function=shutil.copyfile)
                size = sum(f.stat().st_size for f in folder.iterdir())
                print(f"{name}: seed {seed}, {size / 1000:.0f} kB")
                return
    raise SystemExit(f"{name}: no seed is useful; the last one: {reason}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("tests/golden/data"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    with torch.no_grad():
        for name in arguments.names or GOLDENS:
            make(name, arguments.out)


if __name__ == "__main__":
    main()
