"""The parts of a transformer stage that the windowed and the pooled path share.

Activations are flat, (B * S, channels): B streams, each with S consecutive steps.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from streamer.codec.weights import LayerWeights

NORM_EPS = 1e-5


def inverse_frequencies(head_dim: int, max_period: float, device: torch.device) -> torch.Tensor:
    """Radians per step of each RoPE pair (Su et al., 2021); (head_dim / 2,) float64."""
    pairs = torch.arange(head_dim // 2, dtype=torch.float64, device=device)
    return torch.exp(pairs * (-2 * math.log(max_period) / head_dim))


def rotation(positions: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Unit complex numbers that turn the pairs at these positions: (..., S) -> (..., S, 1, 1, F) complex64.

    ``frequencies`` are (F,) or (S, F); the two ones stand for query or key, and for the heads.

    Angles are made in float64: hours into a stream (1e7 steps) a float32 angle is off by half a radian, a
    float64 one by 1e-9, so absolute positions stay exact and keys never have to be turned again.
    """
    angles = positions.unsqueeze(-1) * frequencies
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)[..., None, None, :]


def project_qkv(layer: LayerWeights, x: torch.Tensor, turn: torch.Tensor, n_heads: int) -> torch.Tensor:
    """(B * S, model), (B, S, 1, 1, head_dim / 2) -> (B, S, 3, heads, head_dim), queries and keys turned."""
    normed = F.layer_norm(x, x.shape[-1:], layer.norm1_weight, layer.norm1_bias, NORM_EPS)
    batch, steps, _, _, pairs = turn.shape
    qkv = torch.mm(normed.to(layer.qkv.dtype), layer.qkv)
    exact = qkv.float()  # the same tensor when it is float32 already
    torch.view_as_complex(exact.view(batch, steps, 3, n_heads, pairs, 2))[:, :, :2].mul_(turn)
    return exact.to(x.dtype).view(batch, steps, 3, n_heads, 2 * pairs)


def finish_layer(layer: LayerWeights, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """Both residual branches after attention; (B * S, model), (B, heads, S, head_dim) -> (B * S, model)."""
    attended = attended.transpose(1, 2).reshape(x.shape)
    if layer.out.dtype != x.dtype:
        x = x + torch.mm(attended.to(layer.out.dtype), layer.out)
        normed = F.layer_norm(x, x.shape[-1:], layer.norm2_weight, layer.norm2_bias, NORM_EPS)
        return x + torch.mm(F.gelu(torch.mm(normed.to(layer.up.dtype), layer.up)), layer.down)
    x = torch.addmm(x, attended, layer.out)
    normed = F.layer_norm(x, x.shape[-1:], layer.norm2_weight, layer.norm2_bias, NORM_EPS)
    return torch.addmm(x, F.gelu(torch.mm(normed, layer.up)), layer.down)


def fold_steps(x: torch.Tensor, size: int) -> torch.Tensor:
    """``size`` steps become one: (N, C) -> (N / size, C * size), the channel index running slowest."""
    return x.view(-1, size, x.shape[1]).transpose(1, 2).reshape(-1, x.shape[1] * size)


def unfold_steps(x: torch.Tensor, size: int) -> torch.Tensor:
    """One step becomes ``size``: (N, C) -> (N * size, C / size); undoes :func:`fold_steps`."""
    return x.view(-1, x.shape[1] // size, size).transpose(1, 2).reshape(-1, x.shape[1] // size)
