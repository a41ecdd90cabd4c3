#!/usr/bin/env python3
"""Compares model families with transformers on random small configurations that no golden has.

    build/reference/bin/python tools/family_diff.py [--cases N] [--seed S] [--keep DIR] [FAMILY...]

Each case is a checkpoint with random sizes, features and a random form of config.json, a random
prompt, and what both compute with it in f32: the logits of every row of the prompt, and the tokens
that follow at temperature 0 with their logprobs. Tokens may differ only where transformers' own best
token leads by less than the logits' tolerance. Needs build/cpu/tests/golden/model_cli.
(No case has a window of one token: transformers' cache then keeps what its mask should hide.)
"""

import argparse
import json
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from make_goldens import EAGER, all_logits, fill, load, worst_difference, write_config, write_tokenizer

CLI = Path("build/cpu/tests/golden/model_cli")
TOKENS = 256
TOLERANCE = 1e-4  # of a row's max - min
LOGPROB_TOLERANCE = 1e-3
ACTS = ["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "swish"]


class Case:
    """One random configuration: `config` for transformers, `rewrite` for the file's other forms."""

    def __init__(self, family, rng):
        self.family, self.rng, self.rewrite = family, rng, {}
        self.prompt_length = rng.choice([1, 2, 17, 64, rng.randint(3, 150), rng.randint(500, 2500)])
        self.context = 512 if self.prompt_length < TOKENS else 4096
        heads = rng.choice([1, 2, 3, 4, 6, 8])
        kv_heads = rng.choice([k for k in range(1, heads + 1) if heads % k == 0])
        head_dim = 2 * rng.randint(2, 20)
        self.layers = rng.randint(1, 5)
        self.config = dict(
            vocab_size=rng.randint(259, 700),
            hidden_size=heads * head_dim,
            intermediate_size=rng.randint(8, 150),
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=self.context,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=None,
            tie_word_embeddings=rng.random() < 0.5,
        )
        self.norm_eps = rng.choice([1e-5, 1e-6, 1e-3])
        self.dtype = rng.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16])
        getattr(self, family)()

    def __str__(self):
        return f"{self.config} {self.rewrite} prompt of {self.prompt_length}"

    def maybe(self, **keys):
        for key, values in keys.items():
            if self.rng.random() < 0.6:
                self.config[key] = self.rng.choice(values)

    def own_head_dim(self):
        if self.rng.random() < 0.6:
            self.config["head_dim"] = 2 * self.rng.randint(2, 24)

    def rms(self):
        self.config["rms_norm_eps"] = self.norm_eps

    def head_dim(self):
        c = self.config
        return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]

    def rope(self, part=None, kinds=("default", "linear", "dynamic", "llama3", "yarn")):
        """Random scaling; the file says it in the new way or in the old one."""
        rng, c = self.rng, self.config
        kind = rng.choice(kinds)
        theta = rng.choice([10000.0, 500.0, 1000000.0])
        trained = rng.choice([16, 40, 100, 200, 600])
        factor = float(-(-self.context // trained)) + rng.choice([0, 0.5])
        rope = dict(rope_type=kind)
        if kind in ("linear", "dynamic", "llama3", "yarn"):
            rope["factor"] = factor
        if kind in ("linear", "dynamic"):
            c["max_position_embeddings"] = trained
        if kind in ("llama3", "yarn"):
            rope["original_max_position_embeddings"] = trained
        if kind == "llama3":
            rope |= dict(low_freq_factor=1.0, high_freq_factor=rng.choice([2.0, 4.0]))
        if kind == "yarn":
            extras = dict(beta_fast=16.0, beta_slow=2.0, truncate=False, attention_factor=0.8)
            rope |= {k: v for k, v in extras.items() if rng.random() < 0.3}
            if rng.random() < 0.2:
                rope |= dict(mscale=1.0, mscale_all_dim=0.7)
        if kind == "longrope":
            pairs = int(self.head_dim() * (part or 1)) // 2
            c["original_max_position_embeddings"] = trained
            rope |= dict(
                short_factor=[round(rng.uniform(1, 1.3), 3) for _ in range(pairs)],
                long_factor=[round(rng.uniform(1, 6), 3) for _ in range(pairs)],
                original_max_position_embeddings=trained,
            )
        new = rope | dict(rope_theta=theta)
        outer = {}
        if part is not None:
            new["partial_rotary_factor"] = part
            outer["partial_rotary_factor"] = part
        c["rope_parameters"] = new
        if rng.random() < 0.5:
            old = dict(rope)
            if rng.random() < 0.5:
                old["type"] = old.pop("rope_type")
            scaling = None if kind == "default" else old
            self.rewrite |= dict(rope_parameters=None, rope_theta=theta, rope_scaling=scaling) | outer

    def layer_types(self):
        return [
            self.rng.choice(["full_attention", "sliding_attention"]) for _ in range(self.layers)
        ]

    def llama(self):
        self.rms(), self.own_head_dim()
        self.maybe(attention_bias=[True], mlp_bias=[True], hidden_act=ACTS)
        self.rope()

    def mistral(self):
        self.rms(), self.own_head_dim()
        self.maybe(hidden_act=ACTS)
        self.config["sliding_window"] = self.rng.choice([None, 2, 8, 33, 100])
        self.rope()

    def mixtral(self):
        self.mistral()
        self.config.setdefault("head_dim", self.head_dim())  # transformers' dynamic and yarn want it
        experts = self.rng.randint(2, 9)
        self.config |= dict(
            num_local_experts=experts, num_experts_per_tok=self.rng.randint(1, experts)
        )

    def phi(self):
        self.config["layer_norm_eps"] = self.norm_eps
        self.maybe(qk_layernorm=[True], hidden_act=ACTS)
        self.rope(self.even_part())

    def even_part(self):
        return self.rng.choice(
            [p for p in (0.25, 0.4, 0.5, 0.75, 1.0) if int(self.head_dim() * p) % 2 == 0]
        )

    def phi3(self):
        self.rms()
        self.maybe(hidden_act=ACTS)
        self.config["sliding_window"] = self.rng.choice([None, None, 8, 100])
        self.rope(self.even_part(), ("default", "longrope", "longrope"))

    def qwen2(self):
        self.rms()
        self.maybe(hidden_act=ACTS)
        self.upper_windows()
        self.rope()

    def upper_windows(self):
        if self.rng.random() < 0.6:
            self.config |= dict(use_sliding_window=True, sliding_window=self.rng.choice([2, 9, 40]))
            if self.rng.random() < 0.5:
                self.config["layer_types"] = self.layer_types()
            else:
                self.config["max_window_layers"] = self.rng.randint(0, self.layers)
                self.rewrite["layer_types"] = None

    def qwen3(self):
        self.config["head_dim"] = 2 * self.rng.randint(2, 24)
        self.maybe(attention_bias=[True])
        self.qwen2()

    def moe(self):
        experts = self.rng.randint(2, 9)
        self.config |= dict(
            num_experts=experts,
            num_experts_per_tok=self.rng.randint(1, experts),
            moe_intermediate_size=self.rng.randint(4, 40),
            norm_topk_prob=self.rng.random() < 0.5,
            decoder_sparse_step=self.rng.choice([1, 1, 2, 3]),
            mlp_only_layers=self.rng.choice([[], [], [0], [1, 2]]),
        )

    def qwen2_moe(self):
        self.moe()
        self.config["shared_expert_intermediate_size"] = self.rng.randint(4, 60)
        self.maybe(qkv_bias=[False])
        self.qwen2()

    def qwen3_moe(self):
        self.moe()
        self.rms(), self.own_head_dim()
        self.maybe(attention_bias=[True], hidden_act=ACTS)
        if self.rng.random() < 0.5:
            self.config |= dict(use_sliding_window=True, sliding_window=self.rng.choice([2, 9, 40]))
        self.rope()

    def gemma(self):
        self.rms()
        self.config |= dict(
            head_dim=2 * self.rng.randint(2, 24),
            query_pre_attn_scalar=self.rng.choice([16, 30, 256]),
            sliding_window=self.rng.choice([2, 9, 40]),
        )
        self.maybe(attention_bias=[True], hidden_activation=ACTS)
        self.maybe(attn_logit_softcapping=[None, 2.0, 20.0])
        self.maybe(final_logit_softcapping=[None, 0.3, 5.0])
        if self.rng.random() < 0.5:
            self.config["layer_types"] = self.layer_types()
        else:
            self.rewrite["layer_types"] = None

    def gemma2(self):
        self.gemma()
        self.rope()

    def gemma3_text(self):
        self.gemma()
        full = dict(rope_type="default")
        if self.rng.random() < 0.5:
            full = dict(rope_type="linear", factor=8.0)
        thetas = self.rng.choice([1e6, 5e4]), self.rng.choice([1e4, 2e3])
        self.config["rope_parameters"] = dict(
            full_attention=full | dict(rope_theta=thetas[0]),
            sliding_attention=dict(rope_type="default", rope_theta=thetas[1]),
        )
        if self.rng.random() < 0.5:
            self.rewrite |= dict(
                rope_parameters=None,
                rope_theta=thetas[0],
                rope_local_base_freq=thetas[1],
                rope_scaling=full if "factor" in full else None,
            )

    def smollm3(self):
        self.rms()
        self.maybe(attention_bias=[True], mlp_bias=[True], hidden_act=ACTS)
        if self.rng.random() < 0.5:
            self.config["no_rope_layers"] = [self.rng.randint(0, 1) for _ in range(self.layers)]
        else:
            self.config["no_rope_layer_interval"] = self.rng.randint(1, 4)
        if self.rng.random() < 0.5:
            self.config |= dict(use_sliding_window=True, sliding_window=self.rng.choice([9, 40]))
        self.rewrite["layer_types"] = None
        self.rope()


FAMILIES = [
    "llama", "mistral", "mixtral", "phi", "phi3", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe",
    "gemma2", "gemma3_text", "smollm3",
]


SIZES = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
}


def leave_out(case, folder):
    """Some of the keys that say what transformers assumes without them; sizes must be there."""
    config = json.loads((folder / "config.json").read_text())
    assumed = AutoConfig.for_model(case.family).to_dict()
    for key in sorted(config):
        kept = key in SIZES | {"model_type", "layer_types"} or key.startswith("rope")
        if not kept and key in assumed and assumed[key] == config[key] and case.rng.random() < 0.5:
            case.rewrite[key] = None


def write_checkpoint(case, seed, folder):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(case.family, **case.config))
    fill(model, seed)
    model.tie_weights()
    model.to(case.dtype).save_pretrained(
        folder,
        max_shard_size=case.rng.choice(["1GB", "100KB"]),
        save_original_format=case.rng.random() < 0.8,
    )
    leave_out(case, folder)
    write_config(folder, case.rewrite)
    write_tokenizer(folder)


def reference(load_model, prompt):
    """Logits of the prompt's rows; tokens, and the row that each was chosen from."""
    out = load_model().generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    # Anew: rope tables of a longer sequence must not be left over.
    return all_logits(load_model(), prompt), out.sequences[0, len(prompt) :], torch.cat(out.logits)


def computed(folder, prompt, vocab):
    done = subprocess.run(
        [CLI, folder, "f32", str(TOKENS)],
        input=struct.pack(f"<{len(prompt)}i", *prompt),
        capture_output=True,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode().strip() or f"exit status {done.returncode}")
    values = torch.frombuffer(bytearray(done.stdout), dtype=torch.float32)
    logits, tokens, logprobs = values.split([len(prompt) * vocab, TOKENS, TOKENS])
    return logits.view(-1, vocab), tokens.view(torch.int32), logprobs


def compare_outputs(load_model, folder, prompt):
    """The worst difference of the logits and what is wrong, or None. `load_model` gives
    transformers' model, new each time."""
    logits, tokens, rows = reference(load_model, prompt)
    got_logits, got_tokens, got_logprobs = computed(folder, prompt, logits.shape[1])
    difference = worst_difference(logits, got_logits)
    if not difference <= TOLERANCE:
        return difference, "the logits differ"
    wanted = rows.float().log_softmax(1)
    for i, (a, b) in enumerate(zip(tokens.tolist(), got_tokens.tolist())):
        if a != b:
            span = (rows[i].max() - rows[i].min()).item()
            lead = (rows[i, a] - rows[i, b]).item() / span
            if lead > TOLERANCE:
                return difference, f"token {i} is {b}, not {a}, which leads by {lead:.1e}"
            return difference, None
        if not abs(wanted[i, a].item() - got_logprobs[i].item()) <= LOGPROB_TOLERANCE:
            return difference, f"the logprob of token {i} differs"
    return difference, None


def run(description, make_case, compare):
    """The command line of what compares random cases: `make_case(family, seed)`, which prints as
    what it is, and `compare(case, seed, folder)`, which uses the folder and returns as
    compare_outputs()."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=3, help="of each family")
    parser.add_argument("--seed", type=int, default=1, help="of the first case")
    parser.add_argument("--keep", type=Path, help="where to leave the checkpoints that differ")
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="default: all")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    failed = 0
    with torch.no_grad():
        for family in arguments.families or FAMILIES:
            worst = 0.0
            for seed in range(arguments.seed, arguments.seed + arguments.cases):
                case = make_case(family, seed)
                with tempfile.TemporaryDirectory() as temporary:
                    folder = Path(temporary)
                    try:
                        difference, wrong = compare(case, seed, folder)
                    except Exception as error:
                        difference, wrong = 0.0, f"{type(error).__name__}: {error}"
                    worst = max(worst, difference)
                    if wrong:
                        failed += 1
                        print(f"{family} {seed}: {wrong}; logits by {difference:.1e}\n  {case}", flush=True)
                        if arguments.keep:
                            shutil.copytree(folder, arguments.keep / f"{family}-{seed}")
            print(f"{family}: {arguments.cases} cases, logits differ by {worst:.1e} at most", flush=True)
    if failed:
        sys.exit(f"{failed} cases differ")


def compare(case, seed, folder):
    prompt = [case.rng.randrange(2, case.config["vocab_size"]) for _ in range(case.prompt_length)]
    write_checkpoint(case, seed, folder)
    return compare_outputs(lambda: load(folder), folder, prompt)


if __name__ == "__main__":
    run(__doc__, lambda family, seed: Case(family, random.Random(f"{family} {seed}")), compare)
