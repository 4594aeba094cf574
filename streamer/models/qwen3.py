"""A lean Qwen3 decoder over an external, paged KV cache.

Architecture: pre-norm, per-head RMSNorm on queries and keys, rotary embedding, grouped-query attention, SwiGLU; no
biases ("Qwen3 Technical Report", 2025). q/k/v and gate/up are one matrix each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from streamer.models.config import LanguageConfig
from streamer.models.linear import Linear, WeightFormat, make_linear
from streamer_kernels.layer_norms import add_rms_norm, silu_gate
from streamer_kernels.paged_attention import decode_attention, norm_rope_write, plan_decode, prefill_attention

# The CPU's matrix product gives a row the same bits for any number of rows from two up, and its batched product, which
# prefill's attention uses, from three up; fewer rows take another path. So few rows are repeated, and sequences decode
# alike alone and in company, and prefill alike however the prompt is cut.
_LEAST_ROWS = 2
_LEAST_PREFILL_ROWS = 4

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class KVPool:
    """Keys and values of all layers, in blocks that any sequence may hold.

    k, v: (n_layers, n_kv_heads, n_blocks, block_rows, head_dim), allocated once; ``dtype`` may be of fewer bits than
    the model's, down to float8_e4m3fn.
    """

    def __init__(
        self, config: LanguageConfig, n_blocks: int, block_rows: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.n_layers, config.n_kv_heads, n_blocks, block_rows, config.head_dim)
        self.block_rows = block_rows
        self.n_blocks = n_blocks
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)

    def clear(self, blocks: list[int]) -> None:
        """Zero blocks that may hold NaN, which would reach their next owner through rows it has not written yet."""
        # As bytes: few operations know the float8 types.
        self.k.view(torch.uint8)[:, :, blocks] = 0
        self.v.view(torch.uint8)[:, :, blocks] = 0


@dataclass(slots=True)
class _Layer:
    input_norm: torch.Tensor
    qkv: Linear  # hidden to (n_heads + 2 * n_kv_heads) * head_dim
    q_norm: torch.Tensor
    k_norm: torch.Tensor
    out: Linear  # n_heads * head_dim to hidden
    mlp_norm: torch.Tensor
    gate_up: Linear  # hidden to 2 * intermediate
    down: Linear  # intermediate to hidden


class Qwen3Decoder:
    """The layers and the final norm; embeddings and heads belong to the model around it.

    ``watched``: (layer, head) of the attention heads whose queries can be asked for.
    """

    def __init__(
        self,
        config: LanguageConfig,
        tensors: dict[str, torch.Tensor],
        weights: WeightFormat = "native",
        watched: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.config = config
        self._watched: list[list[tuple[int, int]]] = [[] for _ in range(config.n_layers)]
        for place, (layer, head) in enumerate(watched):
            self._watched[layer].append((place, head))
        self._layers = [_take_layer(tensors, f"layers.{i}.", weights) for i in range(config.n_layers)]
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

    def prefill(
        self, x: torch.Tensor, pool: KVPool, table: torch.Tensor, start: int, queries: torch.Tensor | None = None
    ) -> torch.Tensor:
        """C rows of one sequence, from row ``start`` on: (C, hidden) to (C, hidden). table: (n,) int64 blocks.

        queries: (C, watched heads, head_dim), filled in where given, with what the attention itself uses.
        """
        count = x.shape[0]
        x = repeat_last(x, _LEAST_PREFILL_ROWS)
        positions = repeat_last(torch.arange(start, start + count, device=x.device), _LEAST_PREFILL_ROWS)
        pool_rows = table[positions // pool.block_rows] * pool.block_rows + positions % pool.block_rows
        used = table[: (start + count - 1) // pool.block_rows + 1]

        def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return prefill_attention(q, k, v, used, positions)

        return self._run(x, positions, pool, pool_rows, attention, queries)[:count]

    def decode(
        self,
        x: torch.Tensor,
        pool: KVPool,
        tables: torch.Tensor,
        positions: torch.Tensor,
        queries: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One row for each of B sequences. x: (B, hidden); tables: (B, n) int64; positions: (B,) int64 row numbers.

        queries: (B, watched heads, head_dim), filled in where given.
        """
        count = x.shape[0]
        x = repeat_last(x)
        block = tables.gather(1, (positions // pool.block_rows)[:, None])[:, 0]
        pool_rows = repeat_last(block * pool.block_rows + positions % pool.block_rows)
        plan = plan_decode(tables, positions, pool.block_rows)

        def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            # Attention is made for each sequence by itself, so that a repeated row need not have it.
            return repeat_last(decode_attention(q[:count], k, v, plan))

        return self._run(x, repeat_last(positions), pool, pool_rows, attention, queries)[:count]

    def _run(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        pool: KVPool,
        pool_rows: torch.Tensor,
        attention: Attention,
        queries: torch.Tensor | None,
    ) -> torch.Tensor:
        count, eps = x.shape[0], self.config.rms_norm_eps
        angles = positions[:, None].to(torch.float32) * self._inverse_frequencies  # (N, D/2)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        delta = None
        for layer, k, v, watched in zip(self._layers, pool.k, pool.v, self._watched, strict=True):
            x, normed = add_rms_norm(x, delta, layer.input_norm, eps)
            q = norm_rope_write(layer.qkv(normed), layer.q_norm, layer.k_norm, eps, cos, sin, k, v, pool_rows)
            if queries is not None:
                for place, head in watched:
                    queries[:, place] = q[: len(queries), head]
            attended = layer.out(attention(q, k, v).reshape(count, -1))
            x, normed = add_rms_norm(x, attended, layer.mlp_norm, eps)
            delta = layer.down(silu_gate(layer.gate_up(normed)))
        return add_rms_norm(x, delta, self._norm, eps)[1]


def repeat_last(x: torch.Tensor, least: int = _LEAST_ROWS) -> torch.Tensor:
    """The rows of x (N, …), the last one repeated where there are fewer than ``least``."""
    missing = least - x.shape[0]
    return x if missing <= 0 else torch.cat((x, x[-1:].expand(missing, *x.shape[1:])))


def _take_layer(tensors: dict[str, torch.Tensor], prefix: str, weights: WeightFormat) -> _Layer:
    """Move a layer's weights out of ``tensors``, so that at most one layer is held twice while it is rearranged."""

    def take(name: str) -> torch.Tensor:
        return tensors.pop(f"{prefix}{name}.weight")

    def linear(*names: str) -> Linear:
        return make_linear(torch.cat([take(name) for name in names]), weights)

    return _Layer(
        input_norm=take("input_layernorm"),
        qkv=linear(*(f"self_attn.{part}_proj" for part in "qkv")),
        q_norm=take("self_attn.q_norm"),
        k_norm=take("self_attn.k_norm"),
        out=linear("self_attn.o_proj"),
        mlp_norm=take("post_attention_layernorm"),
        gate_up=linear("mlp.gate_proj", "mlp.up_proj"),
        down=linear("mlp.down_proj"),
    )
