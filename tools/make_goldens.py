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
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from golden_models import COMMON, GOLDENS, SPECIAL

PROMPT_TOKENS = 64
GREEDY_TOKENS = 256
TOLERANCE = 1e-4  # of a row's max - min; what the test allows
LEAD = TOLERANCE  # of the best token over the second
MATTERS = 50 * TOLERANCE  # what a feature must change
MIN_DISTINCT = 20  # of the greedy tokens

EAGER = dict(attn_implementation="eager", experts_implementation="eager")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content | trim }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


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
