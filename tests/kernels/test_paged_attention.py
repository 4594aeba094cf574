"""Attention over blocks, against dense attention; and the same bits in any company."""

from __future__ import annotations

import pytest
import torch

from streamer_kernels import decode_attention, embed_rows, plan_decode, prefill_attention, write_kv

BLOCK = 16


def make_pool(
    n_kv_heads: int, head_dim: int, lengths: list[int]
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Random keys and values of several sequences in scattered blocks."""
    n_blocks = [-(-length // BLOCK) for length in lengths]
    order = torch.randperm(sum(n_blocks) + 3)
    tables = list(order[: sum(n_blocks)].split(n_blocks))
    k, v = torch.randn(2, n_kv_heads, len(order), BLOCK, head_dim)
    return k, v, tables


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: torch.Tensor, length: int) -> torch.Tensor:
    """The newest of ``length`` rows attends to all of them. q: (n_heads, head_dim)."""
    n_kv_heads, head_dim = k.shape[0], k.shape[-1]
    keys, values = (x[:, table].reshape(n_kv_heads, -1, head_dim)[:, :length] for x in (k, v))
    group = q.shape[0] // n_kv_heads
    keys, values = keys.repeat_interleave(group, 0).double(), values.repeat_interleave(group, 0).double()
    weights = torch.softmax((keys @ q.double()[..., None])[..., 0] * head_dim**-0.5, -1)
    return (weights[:, None] @ values)[:, 0].float()


def pad(tables: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(tables, batch_first=True)


@pytest.mark.parametrize(("n_heads", "n_kv_heads", "head_dim"), [(4, 2, 16), (4, 1, 64), (3, 3, 20), (8, 2, 128)])
def test_decode_equals_dense_attention(n_heads: int, n_kv_heads: int, head_dim: int) -> None:
    torch.manual_seed(0)
    lengths = [1, 15, 16, 17, 100, 257, 700]
    k, v, tables = make_pool(n_kv_heads, head_dim, lengths)
    q = torch.randn(len(lengths), n_heads, head_dim)
    padded = pad(tables)
    out = decode_attention(q, k, v, plan_decode(padded, torch.tensor(lengths) - 1, BLOCK))
    expected = torch.stack([dense(*row) for row in zip(q, [k] * 7, [v] * 7, tables, lengths, strict=True)])
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-4)


def test_prefill_equals_dense_attention_row_by_row() -> None:
    torch.manual_seed(1)
    k, v, (table,) = make_pool(2, 32, [300])
    q = torch.randn(300, 4, 32)
    out = torch.cat(
        [prefill_attention(q[a:b], k, v, table, torch.arange(a, b)) for a, b in ((0, 130), (130, 131), (131, 300))]
    )
    expected = torch.stack([dense(q[i], k, v, table, i + 1) for i in range(300)])
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("n_heads", "n_kv_heads", "head_dim"), [(4, 2, 64), (4, 4, 16), (3, 3, 20), (8, 1, 128)])
def test_a_sequence_gets_the_same_bits_alone_and_in_company(n_heads: int, n_kv_heads: int, head_dim: int) -> None:
    torch.manual_seed(2)
    lengths = [1, 40, 390, 1200, 77]
    k, v, tables = make_pool(n_kv_heads, head_dim, lengths)
    q = torch.randn(len(lengths), n_heads, head_dim)
    padded = pad(tables)
    positions = torch.tensor(lengths) - 1
    together = decode_attention(q, k, v, plan_decode(padded, positions, BLOCK))
    for i, table in enumerate(tables):
        alone = decode_attention(q[i : i + 1], k, v, plan_decode(table[None], positions[i : i + 1], BLOCK))
        assert torch.equal(alone[0], together[i])


def test_write_kv_reaches_the_named_rows_only() -> None:
    pool = torch.zeros(2, 3, BLOCK, 4)
    write_kv(pool, torch.tensor([0, 17, 47]), torch.ones(3, 2, 4))
    filled = pool.view(2, 48, 4)[:, :, 0].nonzero()[:, 1].unique()
    assert filled.tolist() == [0, 17, 47]


def test_embed_rows_sums_text_and_codes() -> None:
    torch.manual_seed(3)
    text, audio = torch.randn(10, 6), torch.randn(3, 5, 6)
    rows = torch.tensor([[4, 0, 1, 4], [9, 4, 4, 4]])
    expected = torch.stack([text[r[0]] + sum(audio[i, c] for i, c in enumerate(r[1:])) for r in rows.tolist()])
    torch.testing.assert_close(embed_rows(rows, text, audio), expected)
