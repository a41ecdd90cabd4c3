"""The training loop: Muon for matrices, AdamW for the rest; warm up, hold, decay to zero."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from .corpus import Packer
from .llama import Shape, TinyLlama
from .muon import Muon

MUON_LR, ADAM_LR = 0.009, 3e-3
WARM_UP = 100         # steps
BATCH_TOKENS = 2048   # positions of a step
ROW = 256             # of most of the training; the last part sees whole contexts
LONG_FROM = 0.90      # share of the training after which rows are a whole context long
CHECKPOINT_EVERY = 200


@dataclass
class Plan:
    """How long to train. With minutes, the clock decides the schedule; else the step count."""

    steps: int
    minutes: float | None
    decay: float       # share of the run in which the learning rate falls to zero
    seed: int
    resume: Path | None


def _optimizers(model: TinyLlama) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim < 2 or "embed" in n]
    return [
        Muon(matrices, lr=MUON_LR, momentum=0.95, weight_decay=0.05),
        torch.optim.AdamW(others, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _rate(step: int, progress: float, decay: float) -> float:
    """The learning rate's factor."""
    return min(1.0, (step + 1) / WARM_UP, max(0.0, (1.0 - progress) / decay))


def _save(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    torch.save({"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
                "step": step}, partial)
    partial.replace(path)


def train(tokenizer: Tokenizer, shape: Shape, plan: Plan, work: Path) -> tuple[TinyLlama, dict]:
    """Trains and returns the model and the figures of the run; checkpoints go to `work`."""
    torch.manual_seed(plan.seed)
    model = TinyLlama(shape)
    optimizers = _optimizers(model)
    packer, long_packer = Packer(tokenizer, plan.seed), Packer(tokenizer, plan.seed, long=True)
    first = 0
    if plan.resume:
        saved = torch.load(plan.resume)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        first = saved["step"]
        for _ in range(first):  # the data goes on where it was
            packer.batch(BATCH_TOKENS // ROW, ROW)
    bases = [[MUON_LR], [ADAM_LR]]
    print(f"parameters: {sum(p.numel() for p in model.parameters())}", flush=True)
    started = shown = time.monotonic()
    step, tokens, since, total = first, 0, 0, 0.0
    while True:
        elapsed = time.monotonic() - started
        progress = elapsed / 60 / plan.minutes if plan.minutes else step / plan.steps
        if progress >= 1.0:
            break
        length = shape.context if progress >= LONG_FROM else ROW
        source = packer if length == ROW else long_packer
        batch = source.batch(BATCH_TOKENS // length, length)
        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
        loss = model.loss(model.model(inputs, torch.from_numpy(batch.document)), targets)
        loss.backward()
        factor = _rate(step, progress, plan.decay)
        for optimizer, base in zip(optimizers, bases):
            for group, lr in zip(optimizer.param_groups, base):
                group["lr"] = lr * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step, tokens, since, total = step + 1, tokens + inputs.numel(), since + 1, total + loss.item()
        if step % 20 == 0:
            now = time.monotonic()
            print(f"step {step} {100 * progress:.1f} % loss {total / since:.4f} "
                  f"{since * BATCH_TOKENS / (now - shown):.0f} tokens/s rate {factor:.2f} "
                  f"{(now - started) / 60:.1f} min", flush=True)
            shown, since, total = now, 0, 0.0
        if step % CHECKPOINT_EVERY == 0 and length == ROW:
            _save(work / "checkpoint.pt", model, optimizers, step)
    minutes = (time.monotonic() - started) / 60
    return model, {"steps": step, "tokens": step * BATCH_TOKENS, "minutes": round(minutes, 1)}
