"""One stream through a chain of stages, a window of steps at a time: exact, in bounded memory.

Attention reaches back ``context_steps`` positions, so each layer keeps the keys and values of the last
``context_steps - 1`` of them; with these a window computes what the whole sequence would.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from streamer.codec.config import PatchConfig
from streamer.codec.transformer import (
    finish_layer,
    fold_steps,
    inverse_frequencies,
    project_qkv,
    rotation,
    unfold_steps,
)
from streamer.codec.weights import Stage, StageWeights


class WindowedStage:
    """A transformer stage and what it remembers of one stream."""

    def __init__(self, weights: StageWeights) -> None:
        config, sample = weights.config, weights.layers[0].qkv
        self._weights = weights
        self._frequencies = inverse_frequencies(config.head_dim, config.max_period, sample.device)
        self._position = 0
        # Per layer (1, P, 2, heads, head_dim): keys and values of the last P <= context_steps - 1 positions.
        self._past = [sample.new_empty(1, 0, 2, config.n_heads, config.head_dim)] * config.n_layers

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """The next S steps of the stream: (S, input_dim) -> (S, output_dim)."""
        weights, config = self._weights, self._weights.config
        steps, past = x.shape[0], self._past[0].shape[1]
        bias = window_bias(steps, past, config.context_steps, x)
        positions = torch.arange(self._position, self._position + steps, device=x.device)
        turn = rotation(positions, self._frequencies).unsqueeze(0)
        forget = max(0, past + steps - (config.context_steps - 1))
        x = x if weights.input_proj is None else torch.mm(x, weights.input_proj)
        for index, layer in enumerate(weights.layers):
            qkv = project_qkv(layer, x, turn, config.n_heads)
            known = torch.cat([self._past[index], qkv[:, :, 1:]], dim=1)
            query, key, value = (part.transpose(1, 2) for part in (qkv[:, :, 0], known[:, :, 0], known[:, :, 1]))
            x = finish_layer(layer, x, F.scaled_dot_product_attention(query, key, value, attn_mask=bias))
            self._past[index] = known[:, forget:]
        self._position += steps
        return x if weights.output_proj is None else torch.mm(x, weights.output_proj)


class WindowedChain:
    """The encoder's or the decoder's stages for one stream; not thread-safe, one owner at a time."""

    def __init__(self, stages: Sequence[Stage], *, upward: bool) -> None:
        """``upward``: patching turns channels into steps (the decoder) rather than steps into channels."""
        self._patch = unfold_steps if upward else fold_steps
        self._stages = [stage if isinstance(stage, PatchConfig) else WindowedStage(stage) for stage in stages]

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """The stream's next window, whole frames: (S, C) -> (S', C')."""
        for stage in self._stages:
            x = self._patch(x, stage.size) if isinstance(stage, PatchConfig) else stage.run(x)
        return x


def window_bias(steps: int, past: int, context: int, like: torch.Tensor) -> torch.Tensor:
    """(steps, past + steps): 0 where a query may look, else (later or out of reach) minus infinity."""
    query = torch.arange(past, past + steps, device=like.device)[:, None]
    key = torch.arange(past + steps, device=like.device)
    hidden = (key > query) | (key <= query - context)
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, float("-inf"))
