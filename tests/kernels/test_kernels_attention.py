"""decode_attention: the fused version against the plain one, over blocks full of NaN wherever a row is not visible."""

from __future__ import annotations

import os

import pytest
import torch
from kernels.kernel_checks import DEVICE, DTYPES, HAS_GPU, assert_alike, assert_close, naive_and_fused

from streamer_kernels import decode_attention, plan_decode, prefill_attention
from streamer_kernels.paged_attention import naive

fused = pytest.importorskip("streamer_kernels.paged_attention.fused")
BLOCK = 16


class Paged:
    """Sequences of given lengths in scattered blocks; NaN in all rows that are not theirs."""

    def __init__(
        self,
        lengths: list[int],
        n_heads: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        pool_dtype: torch.dtype | None = None,
        spare_blocks: int = 2,
    ) -> None:
        torch.manual_seed(len(lengths) + head_dim)
        width = -(-max(lengths) // BLOCK) + spare_blocks
        order = torch.randperm(len(lengths) * width)
        tables = order.view(len(lengths), width)
        k, v = torch.full((2, n_kv_heads, len(order), BLOCK, head_dim), torch.nan)
        for table, length in zip(tables, lengths, strict=True):
            rows = (table[:, None] * BLOCK + torch.arange(BLOCK)).flatten()[:length]
            for pool in (k, v):
                pool.view(n_kv_heads, -1, head_dim)[:, rows] = torch.randn(n_kv_heads, length, head_dim)
        self.k, self.v = (pool.to(DEVICE, pool_dtype or dtype) for pool in (k, v))
        self.q = torch.randn(len(lengths), n_heads, head_dim).to(DEVICE, dtype)
        self.tables = tables.to(DEVICE)
        self.positions = torch.tensor(lengths, device=DEVICE) - 1

    def attend(self, only: slice = slice(None)) -> torch.Tensor:
        plan = plan_decode(self.tables[only], self.positions[only], BLOCK)
        return decode_attention(self.q[only], self.k, self.v, plan)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n_heads", "n_kv_heads", "head_dim"), [(4, 2, 64), (3, 3, 16), (6, 2, 32), (8, 1, 128), (20, 1, 16)]
)
def test_fused_equals_naive(
    n_heads: int, n_kv_heads: int, head_dim: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    paged = Paged([1, 15, 16, 17, 300], n_heads, n_kv_heads, head_dim, dtype=dtype)
    assert_alike(monkeypatch, paged.attend, dtype)


@pytest.mark.parametrize("lengths", [[5], [255, 256, 257, 600], [2000, 1]])
def test_splits_are_merged(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    paged = Paged(lengths, 2, 1, 16)
    naive_out, fused_out = naive_and_fused(monkeypatch, lambda: attend_in_poisoned_memory(paged))
    assert_close(fused_out, naive_out, torch.float32)


def attend_in_poisoned_memory(paged: Paged) -> torch.Tensor:
    """The fused version's scratch begins as NaN; a split that a short sequence does not have must not be read."""
    is_fused = os.environ["STREAMER_KERNELS"] == "triton"
    torch.use_deterministic_algorithms(is_fused)
    try:
        return paged.attend()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_table_wider_than_all_splits_has_longer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    most_rows = fused._SPLIT_ROWS * fused._MOST_SPLITS
    paged = Paged([most_rows + 100], 1, 1, 16, spare_blocks=40)
    assert_alike(monkeypatch, paged.attend, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_float8_pools_are_read_as_they_are(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    paged = Paged([1, 16, 40], 4, 2, 32, dtype=dtype, pool_dtype=torch.float8_e4m3fn)
    naive_out = assert_alike(monkeypatch, paged.attend, dtype)
    paged.k, paged.v = paged.k.to(dtype), paged.v.to(dtype)
    monkeypatch.setenv("STREAMER_KERNELS", "naive")
    assert_close(naive_out, paged.attend(), dtype)


def test_a_sequence_gets_the_same_bits_alone_and_in_company(monkeypatch: pytest.MonkeyPatch) -> None:
    paged = Paged([1, 40, 390, 77], 4, 2, 16)
    monkeypatch.setenv("STREAMER_KERNELS", "triton")
    together = paged.attend()
    for i in range(4):
        assert torch.equal(paged.attend(slice(i, i + 1))[0], together[i])


def test_large_scores_stay_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    paged = Paged([70, 300], 2, 1, 16)
    paged.q *= 1000
    assert_alike(monkeypatch, paged.attend, torch.float32)


def test_lengths_that_only_the_device_knows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_KERNELS", "naive")
    paged = Paged([1, 16, 17, 300], 6, 2, 32)
    plan = naive.padded_plan(paged.tables, paged.positions, BLOCK)
    assert_close(decode_attention(paged.q, paged.k, paged.v, plan), paged.attend(), torch.float32)


def test_blocks_in_order_give_the_bits_of_scattered_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_KERNELS", "naive")
    paged = Paged([1, 16, 17, 300, 600], 4, 2, 64)
    scattered = paged.attend()
    order = paged.tables.flatten()
    paged.k, paged.v = paged.k[:, order], paged.v[:, order]
    paged.tables = torch.arange(len(order), device=DEVICE).view_as(paged.tables)
    assert torch.equal(paged.attend(), scattered)


def test_prefill_lets_no_unwritten_row_through() -> None:
    paged = Paged([37], 4, 2, 32)
    positions = torch.arange(30, 37, device=DEVICE)
    out = prefill_attention(paged.q.expand(7, -1, -1), paged.k, paged.v, paged.tables[0], positions)
    assert_close(out[-1:], paged.attend(), torch.float32)


@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
def test_a_captured_graph_follows_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    paged = Paged([20, 300], 8, 2, 64, dtype=torch.bfloat16)
    monkeypatch.setenv("STREAMER_KERNELS", "triton")
    paged.attend()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = paged.attend()
    paged.positions.copy_(torch.tensor([12, 149]))
    graph.replay()
    assert torch.equal(captured, paged.attend())
