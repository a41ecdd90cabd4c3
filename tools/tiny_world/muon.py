"""Muon in f32: momentum whose matrices are made nearly orthogonal before they are applied.

torch.optim.Muon works in bf16, which many CPUs only emulate; this one also takes all matrices of
one shape at once.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalised(g: Tensor) -> Tensor:
    """[n, rows, cols] -> the same, singular values near 1."""
    a, b, c = NEWTON_SCHULZ
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, with decoupled weight decay; for matrices only."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float,
                 weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for (rows, cols), params in by_shape.items():
                updates = []
                for p in params:
                    state = self.state[p]
                    if not state:
                        state["velocity"] = torch.zeros_like(p)
                    state["velocity"].lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(state["velocity"], group["momentum"]))
                scale = max(1.0, rows / cols) ** 0.5
                for p, update in zip(params, orthogonalised(torch.stack(updates))):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * scale)
