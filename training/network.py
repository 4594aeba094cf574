"""The delay model with gradients. Its parameters go by the published names, so a state dict is a checkpoint.

The server's own forward pass (``streamer.models``) works on a paged cache and has no gradients; a test holds the two
to the same logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from streamer.models import DelayConfig, LanguageConfig

# The head that is taught to look at the word being said, and the layer under it, where words are to have their sounds.
ALIGNMENT_HEAD = (3, 0)
_SOUND_LAYER = ALIGNMENT_HEAD[0] - 1
# There, too, words are to have their voice: the head that is taught to look at the reference of who says them.
REFERENCE_HEAD = (_SOUND_LAYER, 0)


class Forward(NamedTuple):
    """``hidden``: (B, L, hidden), what the heads read. ``words``: (B, L, hidden), what the layer under the alignment
    head puts out. ``alignment_scores`` and ``reference_scores``: (B, L, L), of the two heads that are taught where to
    look, before the softmax; minus infinity where they cannot.
    """

    hidden: torch.Tensor
    words: torch.Tensor
    alignment_scores: torch.Tensor
    reference_scores: torch.Tensor


class DelayNetwork(nn.Module):
    """Qwen3-shaped backbone over summed embeddings, with 1 + n_vq heads."""

    def __init__(self, config: DelayConfig) -> None:
        super().__init__()
        self.config = config
        hidden, codes = config.language.hidden_size, config.audio_vocab_size + 1
        self.language_model = Backbone(config.language)
        self.emb_ext = nn.ModuleList(nn.Embedding(codes, hidden) for _ in range(config.n_vq))
        sizes = (config.language.vocab_size, *[codes] * config.n_vq)
        self.lm_heads = nn.ModuleList(nn.Linear(hidden, size, bias=False) for size in sizes)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, rows: torch.Tensor, positions: torch.Tensor, documents: torch.Tensor) -> Forward:
        """What comes of packed rows (B, L, 1 + n_vq); a row sees earlier rows of its own document.

        ``positions`` and ``documents``: (B, L) int64, the row's place in its document and which document that is.
        """
        x = self.language_model.embed_tokens(rows[..., 0])
        for book, table in enumerate(self.emb_ext, start=1):
            x = x + table(rows[..., book])
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        result: Forward = self.language_model(x, positions, attention_bias(documents, x.dtype))
        return result

    def audio_logits(self, hidden: torch.Tensor, books: Sequence[int]) -> torch.Tensor:
        """(N, hidden) -> (N, len(books), audio_vocab_size + 1) for some codebooks."""
        return torch.stack([self.lm_heads[1 + book](hidden) for book in books], dim=1)


class Backbone(nn.Module):
    """The layers and the final norm."""

    inverse_frequencies: torch.Tensor

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
        self.register_buffer("inverse_frequencies", config.rope_theta**-exponents, persistent=False)

    def forward(self, x: torch.Tensor, positions: torch.Tensor, bias: torch.Tensor) -> Forward:
        angles = positions[..., None].float() * self.inverse_frequencies  # (B, L, D/2)
        cos, sin = angles.cos().to(x.dtype)[:, None], angles.sin().to(x.dtype)[:, None]
        words = x
        alignment_scores = reference_scores = bias[:, 0]
        for index, layer in enumerate(self.layers):
            x, layer_scores = layer(x, cos, sin, bias)
            if index == _SOUND_LAYER:
                words = x
            if index == ALIGNMENT_HEAD[0]:
                alignment_scores = layer_scores[:, ALIGNMENT_HEAD[1]]
            if index == REFERENCE_HEAD[0]:
                reference_scores = layer_scores[:, REFERENCE_HEAD[1]]
        return Forward(normalize(self.norm, x), words, alignment_scores, reference_scores)


class Layer(nn.Module):
    """Pre-norm attention and SwiGLU."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's output and its attention scores (B, heads, L, L)."""
        mixed, scores = self.self_attn(normalize(self.input_layernorm, x), cos, sin, bias)
        x = x + mixed
        return x + self.mlp(normalize(self.post_attention_layernorm, x)), scores


class Attention(nn.Module):
    """Grouped-query attention with per-head norms."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(config.head_dim, eps=config.rms_norm_eps)

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is attended to, (B, L, hidden), and the scores (B, heads, L, L)."""
        batch, length, _ = x.shape
        q, k, v = (
            projection(x).view(batch, length, heads, self.head_dim).transpose(1, 2)
            for projection, heads in (
                (self.q_proj, self.n_heads),
                (self.k_proj, self.n_kv_heads),
                (self.v_proj, self.n_kv_heads),
            )
        )
        q = rotate(normalize(self.q_norm, q), cos, sin)
        k = rotate(normalize(self.k_norm, k), cos, sin)
        group = self.n_heads // self.n_kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        # Two products: on a CPU three times as fast as torch's fused attention with a mask.
        scores = (q * self.head_dim**-0.5) @ k.transpose(-1, -2) + bias
        mixed = torch.softmax(scores, -1, dtype=x.dtype) @ v
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1)), scores


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def normalize(norm: nn.RMSNorm, x: torch.Tensor) -> torch.Tensor:
    """A norm in the type of its input: autocast would go to float32 and back, which takes longer than the norm."""
    return F.rms_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.eps)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding on the two halves of the last dimension. x: (B, heads, L, D); cos, sin: (B, 1, L, D/2)."""
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


def attention_bias(documents: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(B, 1, L, L): 0 where a row may look, minus infinity at later rows and other documents."""
    length = documents.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    seen = earlier & (documents[:, :, None] == documents[:, None, :])
    return torch.zeros(seen.shape, dtype=dtype, device=documents.device).masked_fill_(~seen, -torch.inf)[:, None]
