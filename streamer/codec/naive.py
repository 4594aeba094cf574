"""The whole sequence at once, written as plainly as possible: what every fast path is tested against.

Memory grows with the square of the length; use it for short clips only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from streamer.codec.config import PatchConfig, TransformerConfig
from streamer.codec.weights import CodecWeights, LayerWeights, QuantizerWeights, Stage, StageWeights


def naive_decode(weights: CodecWeights, codes: torch.Tensor) -> torch.Tensor:
    """Codes (frames, k) -> samples (frames * frame_samples,)."""
    vectors = _codes_to_vectors(weights.quantizer, codes)
    return _run(weights.decoder, vectors, upward=True).flatten()


def naive_encode_latents(weights: CodecWeights, samples: torch.Tensor) -> torch.Tensor:
    """Samples, a whole number of frames -> the quantizer's input (frames, channels)."""
    return _run(weights.encoder, samples[:, None], upward=False)


def _codes_to_vectors(weights: QuantizerWeights, codes: torch.Tensor) -> torch.Tensor:
    size = weights.directions.shape[1]
    vectors = torch.stack([weights.decoded[k * size + codes[:, k]] for k in range(codes.shape[1])]).sum(0)
    return vectors if weights.output_proj is None else weights.output_proj(vectors)


def _run(stages: Sequence[Stage], x: torch.Tensor, *, upward: bool) -> torch.Tensor:
    """(T, C) -> (T', C')."""
    for stage in stages:
        if not isinstance(stage, PatchConfig):
            x = _transformer(stage, x)
        elif upward:
            x = torch.stack(x.split(stage.size, dim=1), dim=2).flatten(0, 1)
        else:
            x = torch.stack(x.split(stage.size)).permute(0, 2, 1).flatten(1)
    return x


def _transformer(stage: StageWeights, x: torch.Tensor) -> torch.Tensor:
    if stage.input_proj is not None:
        x = x @ stage.input_proj
    for layer in stage.layers:
        x = x + _attention(layer, _norm(x, layer.norm1_weight, layer.norm1_bias), stage.config)
        x = x + F.gelu(_norm(x, layer.norm2_weight, layer.norm2_bias) @ layer.up) @ layer.down
    return x if stage.output_proj is None else x @ stage.output_proj


def _norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * weight + bias


def _attention(layer: LayerWeights, x: torch.Tensor, config: TransformerConfig) -> torch.Tensor:
    steps = x.shape[0]
    query, key, value = (x @ layer.qkv).view(steps, 3, config.n_heads, -1).unbind(1)
    query, key = _rope(query, config.max_period), _rope(key, config.max_period)
    scores = torch.einsum("qhd,khd->hqk", query, key) / config.head_dim**0.5
    distance = torch.arange(steps)[:, None] - torch.arange(steps)
    visible = (distance >= 0) & (distance < config.context_steps)
    scores = scores.masked_fill(~visible.to(scores.device), float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).flatten(1) @ layer.out


def _rope(x: torch.Tensor, max_period: float) -> torch.Tensor:
    """Turns the interleaved pairs of (T, heads, head_dim) by their position."""
    steps, _, head_dim = x.shape
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    angle = torch.arange(steps, dtype=torch.float64)[:, None] / max_period**exponent
    cos, sin = (wave.to(x)[:, None] for wave in (angle.cos(), angle.sin()))
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
