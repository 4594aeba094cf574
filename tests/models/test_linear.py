"""Weights in 8 bits: close to the real ones, and as close as 8 bits can be."""

from __future__ import annotations

import pytest
import torch
from support import GOLDEN, load_golden, load_model

from streamer import DelayModel
from streamer.models.linear import Bf16Linear, Fp8Linear, NativeLinear, make_linear


def relative_error(x: torch.Tensor, exact: torch.Tensor) -> float:
    return float((x - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_an_8_bit_product_is_off_by_what_rounding_explains(rows: int) -> None:
    torch.manual_seed(0)
    size = torch.logspace(-3, 2, 512)
    weight, x = torch.randn(512, 256), torch.randn(rows, 256)
    exact = x @ weight.t()
    torch.testing.assert_close(NativeLinear(weight)(x), exact, rtol=1e-3, atol=1e-3)
    # Three bits of mantissa: a factor is off by up to 2^-4 of itself, by 2.6 % on average; two are off by 3.7 %.
    assert 0.03 < relative_error(Fp8Linear(weight * size[:, None])(x) / size, exact) < 0.045


def test_scales_make_up_for_rows_and_outputs_of_any_size() -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(16, 64), torch.randn(3, 64)
    small = Fp8Linear(weight * 1e-6)(x * 1e6)
    torch.testing.assert_close(small, Fp8Linear(weight)(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(Fp8Linear(weight)(torch.zeros(2, 64)), torch.zeros(2, 16))


def test_a_model_in_8_bits_has_nearly_the_logits_of_the_real_one() -> None:
    real = load_model("delay-nvq4")
    small = DelayModel.from_pretrained(GOLDEN / "delay-nvq4" / "model", weights="fp8")
    rows = load_golden("delay-nvq4").arrays["prompt/continuation"]
    for exact, rounded in zip(real.logits(rows), small.logits(rows), strict=True):
        known = torch.isfinite(exact)
        assert 0.001 < relative_error(rounded[known], exact[known]) < 0.2


def test_formats_are_told_apart() -> None:
    assert isinstance(make_linear(torch.randn(8, 8), "native"), NativeLinear)
    assert isinstance(make_linear(torch.randn(8, 8), "fp8"), Fp8Linear)
    assert isinstance(make_linear(torch.randn(8, 8), "bf16"), Bf16Linear)


def test_a_row_has_the_same_bits_in_any_company() -> None:
    torch.manual_seed(2)
    for n_in, n_out in ((256, 1408), (704, 256)):
        linear, x = Bf16Linear(torch.randn(n_out, n_in)), torch.randn(64, n_in)
        together = linear(x)
        for rows in (1, 2, 3, 16, 33):
            assert torch.equal(linear(x[:rows]), together[:rows])
