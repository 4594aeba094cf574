"""The codec with gradients. Its parameters go by the published names, so a state dict is a checkpoint.

The server's own codec (``streamer.codec``) folds its weights and has no gradients; a test holds the two to the same
codes and samples. Activations are (B, T, C) all the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from streamer.codec.config import CodecConfig, PatchConfig, QuantizerConfig, StageConfig, TransformerConfig


class CodecNetwork(nn.Module):
    """Encoder, quantizer and decoder over whole clips; memory grows with the square of a clip's length."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _stages(config.encoder, upward=False)
        self.quantizer = ResidualQuantizer(config.quantizer)
        self.decoder = _stages(config.decoder, upward=True)

    def latents(self, samples: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        """Samples (B, N) of whole frames -> the quantizer's input (B, frames, channels) float32.

        ``documents`` (B, frames) int64 says which recording a frame belongs to: each is encoded as if it were alone.
        """
        x = samples.unsqueeze(-1)
        for stage in self.encoder:
            x = stage(x, documents)
        return x.float()

    def waveform(self, vectors: torch.Tensor) -> torch.Tensor:
        """The quantizer's output (B, frames, channels) -> samples (B, N) float32."""
        # One stream from the first frame to the last: the server's decoder runs on from turn to turn too.
        documents = torch.zeros(vectors.shape[:2], dtype=torch.int64, device=vectors.device)
        x = vectors
        for stage in self.decoder:
            x = stage(x, documents)
        return x.flatten(1).float()

    @torch.no_grad()
    def encode(self, samples: torch.Tensor, documents: torch.Tensor | None = None) -> torch.Tensor:
        """Samples (B, N) of whole frames -> codes (B, frames, n_codebooks) int64."""
        if documents is None:
            shape = samples.shape[0], samples.shape[1] // self.config.frame_samples
            documents = torch.zeros(shape, dtype=torch.int64, device=samples.device)
        return self.quantizer(self.latents(samples, documents)).codes

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (B, frames, k) of the first k codebooks -> samples (B, N) float32."""
        return self.waveform(self.quantizer.vectors(codes))


class Patch(nn.Module):
    """Channels to time steps (``upward``) or back, the channel index running slowest; no parameters."""

    def __init__(self, size: int, *, upward: bool) -> None:
        super().__init__()
        self.size, self.upward = size, upward

    def forward(self, x: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        batch, steps, channels = x.shape
        if self.upward:
            x = x.view(batch, steps, channels // self.size, self.size).transpose(2, 3)
            return x.reshape(batch, steps * self.size, channels // self.size)
        x = x.view(batch, steps // self.size, self.size, channels).transpose(2, 3)
        return x.reshape(batch, steps // self.size, channels * self.size)


class Stage(nn.Module):
    """A causal transformer with a sliding window."""

    frequencies: torch.Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        model = config.model_dim
        if config.input_dim != model:
            self.input_proj = nn.Linear(config.input_dim, model, bias=False)
        self.transformer = Layers(config)
        if config.output_dim != model:
            self.output_proj = nn.Linear(model, config.output_dim, bias=False)
        pairs = torch.arange(config.head_dim // 2, dtype=torch.float64)
        frequencies = torch.exp(pairs * (-2 * math.log(config.max_period) / config.head_dim)).float()
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        """(B, T, input) -> (B, T, output); ``documents`` are (B, frames)."""
        x = x if not hasattr(self, "input_proj") else self.input_proj(x)
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        angles = torch.arange(x.shape[1], device=x.device)[:, None] * self.frequencies
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        bias = attention_bias(documents, self.config, dtype)
        x = x.float()
        x = self.transformer(x, cos, sin, bias)
        if not hasattr(self, "output_proj"):
            return x
        # In float32 also under autocast: rounding of the samples themselves is heard as noise.
        with torch.autocast(x.device.type, enabled=False):
            return self.output_proj(x)


class Layers(nn.Module):
    """A stage's layers, one after the other."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, cos, sin, bias)
        return x


class Layer(nn.Module):
    """Pre-norm attention and feed-forward, each scaled channel by channel (LayerScale)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        model = config.model_dim
        self.norm1 = nn.LayerNorm(model)
        self.self_attn = Attention(config)
        self.norm2 = nn.LayerNorm(model)
        self.linear1 = nn.Linear(model, config.feedforward_dim, bias=False)
        self.linear2 = nn.Linear(config.feedforward_dim, model, bias=False)
        self.layer_scale_1 = LayerScale(model) if config.has_layer_scale else nn.Identity()
        self.layer_scale_2 = LayerScale(model) if config.has_layer_scale else nn.Identity()

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        x = x + self.layer_scale_1(self.self_attn(self.norm1(x), cos, sin, bias))
        return x + self.layer_scale_2(self.linear2(F.gelu(self.linear1(self.norm2(x)))))


class LayerScale(nn.Module):
    """One learned factor a channel (Touvron et al., 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Attention(nn.Module):
    """Multi-head attention with rotary positions on interleaved pairs."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.n_heads, self.head_dim = config.n_heads, config.head_dim
        self.in_projs = nn.ModuleList([nn.Linear(config.model_dim, 3 * config.model_dim, bias=False)])
        self.out_projs = nn.ModuleList([nn.Linear(config.model_dim, config.model_dim, bias=False)])

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        batch, steps, model = x.shape
        qkv = self.in_projs[0](x).view(batch, steps, 3, self.n_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, head_dim)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        # Two products: on a CPU several times as fast as torch's fused attention with a mask.
        scores = (query * self.head_dim**-0.5) @ key.transpose(-1, -2) + bias
        mixed = torch.softmax(scores, -1, dtype=query.dtype) @ value
        return self.out_projs[0](mixed.transpose(1, 2).reshape(batch, steps, model))


@dataclass(frozen=True, slots=True)
class Quantized:
    """What the quantizer made of (B, T) frames; ``encoded`` is what each stage looked up, (B, T, codebook_dim)."""

    vectors: torch.Tensor  # (B, T, output)
    codes: torch.Tensor  # (B, T, n_codebooks)
    commitment: torch.Tensor  # (), summed over the stages
    codebook: torch.Tensor  # ()
    encoded: tuple[torch.Tensor, ...]


class ResidualQuantizer(nn.Module):
    """Residual LFQ with straight-through gradients; always float32, as the codes hang on small differences."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.input_proj = pointwise(config.input_dim, config.rvq_dim)
        self.output_proj = pointwise(config.rvq_dim, config.output_dim)
        self.quantizers = nn.ModuleList(StageQuantizer(config) for _ in range(config.n_codebooks))

    @property
    def stages(self) -> list[StageQuantizer]:
        """The codebooks in their order."""
        return [stage for stage in self.quantizers if isinstance(stage, StageQuantizer)]

    def forward(self, latents: torch.Tensor, n_books: torch.Tensor | None = None) -> Quantized:
        """(B, T, input); ``n_books`` (B,) codebooks of each item count, the others are left out of sums and losses."""
        with torch.autocast(latents.device.type, enabled=False):
            residual = self.input_proj(latents.float())
            total = torch.zeros_like(residual)
            commitment = codebook = residual.new_zeros(())
            codes, seen = [], []
            for index, stage in enumerate(self.stages):
                encoded = stage.in_proj(residual)
                code = stage.nearest(encoded)
                entry = stage.codebook(code)
                counts = residual.new_ones(len(residual)) if n_books is None else (n_books > index).float()
                commitment = commitment + ((encoded - entry.detach()).square().mean((1, 2)) * counts).mean()
                codebook = codebook + ((encoded.detach() - entry).square().mean((1, 2)) * counts).mean()
                # The value of the entry, the gradient of what was looked up.
                vector = stage.out_proj(encoded + (entry - encoded).detach())
                total = total + vector * counts[:, None, None]
                residual = residual - vector
                codes.append(code)
                seen.append(encoded.detach())
            vectors = self.output_proj(total)
        return Quantized(vectors, torch.stack(codes, -1), commitment, codebook, tuple(seen))

    def vectors(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (B, T, k) of the first k codebooks -> (B, T, output) float32."""
        with torch.autocast(codes.device.type, enabled=False):
            stages = self.stages[: codes.shape[-1]]
            parts = [stage.out_proj(stage.codebook(codes[..., k])) for k, stage in enumerate(stages)]
            return self.output_proj(torch.stack(parts).sum(0))


class StageQuantizer(nn.Module):
    """One codebook: the entry whose direction is nearest."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.in_proj = pointwise(config.rvq_dim, config.codebook_dim)
        self.out_proj = pointwise(config.codebook_dim, config.rvq_dim)
        self.codebook = nn.Embedding(config.codebook_size, config.codebook_dim)

    @torch.no_grad()
    def nearest(self, encoded: torch.Tensor) -> torch.Tensor:
        """(..., codebook_dim) -> (...) int64."""
        directions = F.normalize(self.codebook.weight, dim=-1)
        products = F.normalize(encoded.flatten(0, -2)) @ directions.t()
        return (directions.square().sum(1) - 2 * products).argmin(1).view(encoded.shape[:-1])


class Pointwise(nn.Conv1d):
    """A convolution over one step, on channels that come last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight[..., 0], self.bias)


def pointwise(n_in: int, n_out: int) -> nn.Module:
    """A projection under weight norm, or nothing where the widths agree, as in the published checkpoints."""
    return nn.Identity() if n_in == n_out else weight_norm(Pointwise(n_in, n_out, 1))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns interleaved pairs by their position. x: (B, heads, T, D); cos, sin: (T, D / 2)."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def attention_bias(documents: torch.Tensor, config: TransformerConfig, dtype: torch.dtype) -> torch.Tensor:
    """(B, 1, T, T): 0 where a step may look, minus infinity at later, forgotten and foreign steps."""
    steps = torch.arange(documents.shape[1] * config.steps_per_frame, device=documents.device)
    distance = steps[:, None] - steps
    owner = documents.repeat_interleave(config.steps_per_frame, 1)
    seen = (distance >= 0) & (distance < config.context_steps) & (owner[:, :, None] == owner[:, None, :])
    return torch.zeros(seen.shape, dtype=dtype, device=documents.device).masked_fill_(~seen, -torch.inf)[:, None]


def _stages(configs: Sequence[StageConfig], *, upward: bool) -> nn.ModuleList:
    return nn.ModuleList(
        Patch(config.size, upward=upward) if isinstance(config, PatchConfig) else Stage(config) for config in configs
    )
