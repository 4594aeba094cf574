"""embed_rows in Triton: one program sums a stretch of the hidden dimension of one row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from streamer_kernels.compile_case import CompileCase
from streamer_kernels.jit import jit

_TILE = 512


@jit
def _embed_rows_kernel(
    rows: tl.tensor,
    text_table: tl.tensor,
    audio_table: tl.tensor,
    out: tl.tensor,
    N_VQ: tl.constexpr,
    N_CODES: tl.constexpr,
    HIDDEN: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """One stretch of one row. Grid (N, stretches)."""
    row = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = h < HIDDEN
    ids = rows + row * (1 + N_VQ)
    total = tl.load(text_table + tl.load(ids) * HIDDEN + h, mask=inside, other=0.0).to(tl.float32)
    # Unrolled: the loads depend on nothing but their ids, so all are in flight at once.
    for k in tl.static_range(N_VQ):
        entry = tl.load(ids + 1 + k) + k * N_CODES
        total += tl.load(audio_table + entry * HIDDEN + h, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * HIDDEN + h, total.to(out.dtype.element_ty), mask=inside)


def embed_rows(rows: torch.Tensor, text_table: torch.Tensor, audio_table: torch.Tensor) -> torch.Tensor:
    """See :func:`streamer_kernels.embed_rows`. The tables are contiguous."""
    n_vq, n_codes, hidden = audio_table.shape
    out = torch.empty(rows.shape[0], hidden, dtype=text_table.dtype, device=rows.device)
    grid = (rows.shape[0], triton.cdiv(hidden, _TILE))
    if rows.shape[0]:
        _embed_rows_kernel[grid](
            rows.contiguous(), text_table, audio_table, out, N_VQ=n_vq, N_CODES=n_codes, HIDDEN=hidden, TILE=_TILE
        )
    return out


def compile_cases() -> list[CompileCase]:
    """The most codebooks that a published model has."""
    signature = {"rows": "*i64", **dict.fromkeys(("text_table", "audio_table", "out"), "*bf16")}
    constants: dict[str, object] = {"N_VQ": 32, "N_CODES": 1025, "HIDDEN": 4096, "TILE": _TILE}
    return [CompileCase("embed_rows-32", _embed_rows_kernel, signature, constants)]
