"""A small Llama in plain PyTorch, written for training speed; saved under transformers' names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

EMBEDDING_STD = 0.3
LAST_GAIN = 0.25


@dataclass(frozen=True)
class Shape:
    """The sizes of the model."""

    vocab: int = 2048
    hidden: int = 192
    layers: int = 5
    heads: int = 6
    kv_heads: int = 2
    ffn: int = 512
    context: int = 2048
    rope_theta: float = 10000.0
    eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


class Norm(nn.Module):
    """Root-mean-square norm."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def _linear(rows: int, cols: int, gain: float) -> nn.Linear:
    layer = nn.Linear(cols, rows, bias=False)
    nn.init.normal_(layer.weight, std=gain * cols**-0.5)
    return layer


class Attention(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        kv = s.kv_heads * s.head_dim
        self.q_proj = _linear(s.hidden, s.hidden, 1.0)
        self.k_proj = _linear(kv, s.hidden, 1.0)
        self.v_proj = _linear(kv, s.hidden, 1.0)
        self.o_proj = _linear(s.hidden, s.hidden, 0.0)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        rows, length, _ = x.shape
        s = self.s
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        qkv = F.linear(x, weight).view(rows, length, s.heads + 2 * s.kv_heads, s.head_dim)
        qk, v = qkv.transpose(1, 2).split([s.heads + s.kv_heads, s.kv_heads], dim=1)
        half = s.head_dim // 2
        turned = torch.cat([-qk[..., half:], qk[..., :half]], dim=-1)
        q, k = (qk * cos + turned * sin).split([s.heads, s.kv_heads], dim=1)
        group = s.heads // s.kv_heads
        out = F.scaled_dot_product_attention(
            q, k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1),
            attn_mask=mask, is_causal=mask is None)
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, s.hidden))


class Mlp(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_proj = _linear(s.ffn, s.hidden, 1.0)
        self.up_proj = _linear(s.ffn, s.hidden, 1.0)
        self.down_proj = _linear(s.hidden, s.ffn, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = F.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight])).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(s.hidden, s.eps)
        self.self_attn = Attention(s)
        self.post_attention_layernorm = Norm(s.hidden, s.eps)
        self.mlp = Mlp(s)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    """Embedding to last norm: ids [rows, length] -> [rows, length, hidden]."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        self.embed_tokens = nn.Embedding(s.vocab, s.hidden)
        # Large, so that the token stays audible beside what the layers add; the last norm's gain
        # brings the logits back to size.
        nn.init.normal_(self.embed_tokens.weight, std=EMBEDDING_STD)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.norm = Norm(s.hidden, s.eps)
        nn.init.constant_(self.norm.weight, LAST_GAIN)
        powers = torch.arange(0, s.head_dim, 2, dtype=torch.float32) / s.head_dim
        angles = torch.outer(torch.arange(s.context, dtype=torch.float32), s.rope_theta**-powers)
        angles = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor, document: Tensor | None = None) -> Tensor:
        """With `document`, a position sees only its own document, else all before it."""
        mask = None
        if document is not None:
            mask = (document[:, None, :, None] == document[:, None, None, :]).tril()
        x = self.embed_tokens(ids)
        cos, sin = self.cos[:ids.shape[1]], self.sin[:ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)


class TinyLlama(nn.Module):
    """The body under the name transformers gives it; the head is the embedding."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        self.model = Body(s)

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the targets that are not -1."""
        wanted = (targets >= 0).flatten().nonzero().squeeze(1)
        logits = F.linear(hidden.flatten(0, 1)[wanted], self.model.embed_tokens.weight)
        return F.cross_entropy(logits, targets.flatten()[wanted])


def config_json(s: Shape, bos: int, eos: list[int]) -> dict[str, object]:
    """What transformers' LlamaConfig reads."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": s.vocab, "hidden_size": s.hidden, "intermediate_size": s.ffn,
        "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "head_dim": s.head_dim,
        "hidden_act": "silu", "max_position_embeddings": s.context, "rms_norm_eps": s.eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": s.rope_theta},
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
        "bos_token_id": bos, "eos_token_id": eos, "torch_dtype": "bfloat16",
    }


def write_config(s: Shape, bos: int, eos: list[int], out: Path) -> None:
    (out / "config.json").write_text(json.dumps(config_json(s, bos, eos), indent=2) + "\n")


def write_weights(model: TinyLlama, out: Path) -> None:
    """model.safetensors in bf16."""
    tensors = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    path = out / "model.safetensors"
    save_file(tensors, str(path), metadata={"format": "pt"})
    path.chmod(0o644)
