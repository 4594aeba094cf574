"""embed_rows: the fused version against the plain one, and one rounding in both."""

from __future__ import annotations

import pytest
import torch
from kernels.kernel_checks import DEVICE, DTYPES, assert_close, naive_and_fused

from streamer_kernels import embed_rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "n_vq", "hidden"), [(1, 1, 5), (3, 4, 700), (2, 16, 512), (2, 32, 33), (0, 4, 8)])
def test_fused_equals_naive(
    count: int, n_vq: int, hidden: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    text = torch.randn(11, hidden, device=DEVICE, dtype=dtype)
    audio = torch.randn(n_vq, 7, hidden, device=DEVICE, dtype=dtype)
    rows = torch.cat((torch.randint(0, 11, (count, 1)), torch.randint(0, 7, (count, n_vq))), 1).to(DEVICE)
    naive, fused = naive_and_fused(monkeypatch, lambda: embed_rows(rows, text, audio))
    assert fused.dtype == dtype
    if count:
        assert_close(fused, naive, dtype)


def test_ids_need_not_lie_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    text, audio = torch.randn(9, 64, device=DEVICE), torch.randn(3, 9, 64, device=DEVICE)
    rows = torch.randint(0, 9, (4, 5), device=DEVICE).t()
    naive, fused = naive_and_fused(monkeypatch, lambda: embed_rows(rows, text, audio))
    expected = torch.stack([text[r[0]] + sum(audio[k, c] for k, c in enumerate(r[1:])) for r in rows.tolist()])
    assert_close(naive, expected, torch.float32)
    assert_close(fused, expected, torch.float32)


def test_half_precision_is_rounded_once() -> None:
    torch.manual_seed(2)
    # Multiples of 1/64: sums of these are exact in float32, so that only the last rounding is left.
    text, audio = (torch.randint(-127, 128, shape) / 64 for shape in ((20, 256), (16, 30, 256)))
    rows = torch.randint(0, 20, (12, 17))
    exact = embed_rows(rows, text, audio)
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(embed_rows(rows, text.to(dtype), audio.to(dtype)), exact.to(dtype))
