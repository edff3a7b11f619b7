"""Llama in plain PyTorch, as it is written where no fused attention exists: scores are materialised.

RMSNorm, rotary positions (half-split), grouped-query attention, SwiGLU, tied or untied head. Parameter names are those
of a Hugging Face LlamaForCausalLM, so its checkpoints load by name. Touvron et al., "LLaMA: open and efficient
foundation language models", 2023; Su et al., "RoFormer", 2021; Ainslie et al., "GQA", 2023.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class LlamaShape:
    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    tied: bool
    head_dim: int = 0  # 0: dim / heads
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    initializer_range: float = 0.02

    def __post_init__(self):
        self.head_dim = self.head_dim or self.dim // self.heads


class RmsNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotary_tables(positions, head_dim, theta):
    """Cosines and sines of shape (..., 1, head_dim / 2) for integer positions of shape (...)."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = positions.to(torch.float32).unsqueeze(-1) * frequencies
    return angles.cos().unsqueeze(-2), angles.sin().unsqueeze(-2)


def rotate(x, cosines, sines):
    """Rotary positions on x (B, T, heads, head_dim), pairing element i with element i + head_dim / 2."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)


def causal_bias(length):
    """(T, T): 0 where a token may look, -inf after it."""
    return torch.full((length, length), -math.inf).triu_(1)


def packed_bias(documents):
    """(B, 1, T, T) causal bias that also keeps tokens inside their document; documents is (B, T) of ids."""
    length = documents.size(1)
    allowed = (documents.unsqueeze(2) == documents.unsqueeze(1)).tril_()
    bias = torch.full((documents.size(0), length, length), -math.inf)
    return bias.masked_fill_(allowed, 0.0).unsqueeze(1)


def eager_attention(q, k, v, bias):
    """softmax(q k^T / sqrt(D) + bias) v with every score in memory.

    q is (B, heads, T, D), k and v (B, kv_heads, T, D), bias (T, T) or (B, 1, T, T). The heads that share a key head are
    stacked along its rows, so keys and values are never repeated.
    """
    batch, heads, length, head_dim = q.shape
    kv_heads = k.size(1)
    q = (q * head_dim**-0.5).reshape(batch * kv_heads, -1, head_dim)
    scores = torch.bmm(q, k.reshape(-1, length, head_dim).transpose(1, 2))
    scores.view(batch, heads, length, length).add_(bias)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
    return torch.bmm(weights, v.reshape(-1, length, head_dim)).view(batch, heads, length, head_dim)


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self.q_proj = nn.Linear(shape.dim, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.dim, shape.kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.dim, shape.kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.dim, bias=False)

    def forward(self, x, rotary, bias):
        batch, length, _ = x.shape
        q = rotate(self.q_proj(x).view(batch, length, self.heads, self.head_dim), *rotary)
        k = rotate(self.k_proj(x).view(batch, length, self.kv_heads, self.head_dim), *rotary)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.head_dim)
        y = eager_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.dim, shape.hidden, bias=False)
        self.up_proj = nn.Linear(shape.dim, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, shape.dim, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.input_layernorm = RmsNorm(shape.dim, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RmsNorm(shape.dim, shape.norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, x, rotary, bias):
        x = x + self.self_attn(self.input_layernorm(x), rotary, bias)
        return x + self.mlp(self.post_attention_layernorm(x))


class Backbone(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.dim)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.dim, shape.norm_eps)


class Llama(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.model = Backbone(shape)
        if not shape.tied:
            self.lm_head = nn.Linear(shape.dim, shape.vocab, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=shape.initializer_range)

    def forward(self, tokens, documents=None):
        """Logits (B, T, vocab) of tokens (B, T).

        documents (B, T) holds ids of packed documents, constant along each document: positions restart at 0 and
        attention stays inside. Without it a row is one document.
        """
        length = tokens.size(1)
        positions = torch.arange(length)
        if documents is None:
            bias = causal_bias(length)
        else:
            bias = packed_bias(documents)
            starts = torch.ones_like(documents, dtype=torch.bool)
            starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
            positions = positions - (positions * starts).cummax(dim=1).values
        rotary = rotary_tables(positions, self.shape.head_dim, self.shape.rope_theta)
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x, rotary, bias)
        head = self.model.embed_tokens.weight if self.shape.tied else self.lm_head.weight
        return F.linear(self.model.norm(x), head)


def loss_sum(logits, targets):
    """Cross-entropy summed over the targets that are not -100; logits (B, T, vocab), targets (B, T)."""
    rows = logits.float().view(-1, logits.size(-1))
    return F.cross_entropy(rows, targets.reshape(-1), ignore_index=-100, reduction="sum")


def decayed_adamw(model, lr, betas, eps, weight_decay, foreach):
    """AdamW with weight decay on every parameter but the norms."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=tuple(betas), eps=eps, foreach=foreach)
