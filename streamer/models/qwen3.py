"""A lean Qwen3 decoder over an external, paged KV cache.

Architecture: pre-norm, per-head RMSNorm on queries and keys, rotary embedding, grouped-query attention, SwiGLU; no
biases ("Qwen3 Technical Report", 2025). Weights are kept (in, out), with q/k/v and gate/up side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from streamer.models.config import LanguageConfig
from streamer_kernels import decode_attention, prefill_attention, write_kv

# (in, out) weights make the CPU's matrix product give a row the same bits for any number of rows from two up, and its
# batched product, which prefill's attention uses, from three up; fewer rows take another path. So few rows are
# repeated, and sequences decode alike alone and in company, and prefill alike however the prompt is cut.
_LEAST_ROWS = 2
_LEAST_PREFILL_ROWS = 4

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class KVPool:
    """Keys and values of all layers, in blocks that any sequence may hold.

    k, v: (n_layers, n_kv_heads, n_blocks, block_rows, head_dim), allocated once.
    """

    def __init__(
        self, config: LanguageConfig, n_blocks: int, block_rows: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.n_layers, config.n_kv_heads, n_blocks, block_rows, config.head_dim)
        self.block_rows = block_rows
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)

    def clear(self, blocks: list[int]) -> None:
        """Zero blocks that may hold NaN, which would reach their next owner through rows it has not written yet."""
        self.k[:, :, blocks] = 0
        self.v[:, :, blocks] = 0


@dataclass(slots=True)
class _Layer:
    input_norm: torch.Tensor
    qkv: torch.Tensor  # (hidden, (n_heads + 2 * n_kv_heads) * head_dim)
    q_norm: torch.Tensor
    k_norm: torch.Tensor
    out: torch.Tensor  # (n_heads * head_dim, hidden)
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor  # (hidden, 2 * intermediate)
    down: torch.Tensor  # (intermediate, hidden)


class Qwen3Decoder:
    """The layers and the final norm; embeddings and heads belong to the model around it."""

    def __init__(self, config: LanguageConfig, tensors: dict[str, torch.Tensor]) -> None:
        self.config = config
        self._layers = [_take_layer(tensors, f"layers.{i}.") for i in range(config.n_layers)]
        self._norm = tensors.pop("norm.weight")
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        self._inverse_frequencies = (1.0 / config.rope_theta**exponents).to(self._norm.device)

    @staticmethod
    def expected_tensors(config: LanguageConfig) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the published checkpoint, below its ``language_model.`` prefix."""
        c, hidden = config, config.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"norm.weight": (hidden,)}
        for i in range(c.n_layers):
            layer = {
                "input_layernorm": (hidden,),
                "self_attn.q_proj": (c.n_heads * c.head_dim, hidden),
                "self_attn.k_proj": (c.n_kv_heads * c.head_dim, hidden),
                "self_attn.v_proj": (c.n_kv_heads * c.head_dim, hidden),
                "self_attn.q_norm": (c.head_dim,),
                "self_attn.k_norm": (c.head_dim,),
                "self_attn.o_proj": (hidden, c.n_heads * c.head_dim),
                "post_attention_layernorm": (hidden,),
                "mlp.gate_proj": (c.intermediate_size, hidden),
                "mlp.up_proj": (c.intermediate_size, hidden),
                "mlp.down_proj": (hidden, c.intermediate_size),
            }
            shapes.update({f"layers.{i}.{name}.weight": shape for name, shape in layer.items()})
        return shapes

    def prefill(self, x: torch.Tensor, pool: KVPool, table: torch.Tensor, start: int) -> torch.Tensor:
        """C rows of one sequence, from row ``start`` on: (C, hidden) to (C, hidden). table: (n,) int64 blocks."""
        count = x.shape[0]
        x = repeat_last(x, _LEAST_PREFILL_ROWS)
        positions = repeat_last(torch.arange(start, start + count, device=x.device), _LEAST_PREFILL_ROWS)
        pool_rows = table[positions // pool.block_rows] * pool.block_rows + positions % pool.block_rows
        used = table[: (start + count - 1) // pool.block_rows + 1]

        def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return prefill_attention(q, k, v, used, positions)

        return self._run(x, positions, pool, pool_rows, attention)[:count]

    def decode(self, x: torch.Tensor, pool: KVPool, tables: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """One row for each of B sequences. x: (B, hidden); tables: (B, n) int64; positions: (B,) int64 row numbers."""
        count = x.shape[0]
        x = repeat_last(x)
        block = tables.gather(1, (positions // pool.block_rows)[:, None])[:, 0]
        pool_rows = repeat_last(block * pool.block_rows + positions % pool.block_rows)
        unseen = torch.arange(tables.shape[1] * pool.block_rows, device=x.device)[None] > positions[:, None]

        def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            # Attention is made for each sequence by itself, so that a repeated row need not have it.
            return repeat_last(decode_attention(q[:count], k, v, tables, unseen))

        return self._run(x, repeat_last(positions), pool, pool_rows, attention)[:count]

    def _run(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        pool: KVPool,
        pool_rows: torch.Tensor,
        attention: Attention,
    ) -> torch.Tensor:
        c = self.config
        count, n_q, n_kv = x.shape[0], c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        angles = positions[:, None].to(torch.float32) * self._inverse_frequencies  # (N, D/2)
        cos, sin = angles.cos().to(x.dtype)[:, None], angles.sin().to(x.dtype)[:, None]
        for i, layer in enumerate(self._layers):
            q, k, v = (rms_norm(x, layer.input_norm, c.rms_norm_eps) @ layer.qkv).split((n_q, n_kv, n_kv), -1)
            q = rotate(rms_norm(q.view(count, c.n_heads, c.head_dim), layer.q_norm, c.rms_norm_eps), cos, sin)
            k = rotate(rms_norm(k.view(count, c.n_kv_heads, c.head_dim), layer.k_norm, c.rms_norm_eps), cos, sin)
            write_kv(pool.k[i], pool_rows, k)
            write_kv(pool.v[i], pool_rows, v.view(count, c.n_kv_heads, c.head_dim))
            x = x + attention(q, pool.k[i], pool.v[i]).reshape(count, n_q) @ layer.out
            gate, up = (rms_norm(x, layer.mlp_norm, c.rms_norm_eps) @ layer.gate_up).chunk(2, -1)
            x = x + (F.silu(gate) * up) @ layer.down
        return rms_norm(x, self._norm, c.rms_norm_eps)


def repeat_last(x: torch.Tensor, least: int = _LEAST_ROWS) -> torch.Tensor:
    """The rows of x (N, …), the last one repeated where there are fewer than ``least``."""
    missing = least - x.shape[0]
    return x if missing <= 0 else torch.cat((x, x[-1:].expand(missing, *x.shape[1:])))


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root-mean-square norm over the last dimension, in float32 as the published model computes it."""
    full = x.float()
    scaled = full * torch.rsqrt(full.square().mean(-1, keepdim=True) + eps)
    return weight * scaled.to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding on the two halves of the last dimension. x: (N, heads, D); cos, sin: (N, 1, D/2)."""
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


def _take_layer(tensors: dict[str, torch.Tensor], prefix: str) -> _Layer:
    """Move a layer's weights out of ``tensors``, so that at most one layer is held twice while it is rearranged."""

    def take(name: str) -> torch.Tensor:
        return tensors.pop(f"{prefix}{name}.weight")

    return _Layer(
        input_norm=take("input_layernorm"),
        qkv=_transposed(*(take(f"self_attn.{part}_proj") for part in "qkv")),
        q_norm=take("self_attn.q_norm"),
        k_norm=take("self_attn.k_norm"),
        out=_transposed(take("self_attn.o_proj")),
        mlp_norm=take("post_attention_layernorm"),
        gate_up=_transposed(take("mlp.gate_proj"), take("mlp.up_proj")),
        down=_transposed(take("mlp.down_proj")),
    )


def _transposed(*weights: torch.Tensor) -> torch.Tensor:
    return torch.cat(weights).t().contiguous()
