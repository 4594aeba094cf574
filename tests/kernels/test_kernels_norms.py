"""Residual norm, gate, and the step between a layer's qkv product and its attention: fused, naive, and by formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from kernels.kernel_checks import DEVICE, DTYPES, HAS_GPU, assert_close, naive_and_fused

from streamer_kernels import add_rms_norm, norm_rope_write, silu_gate

EPS = 1e-6
BLOCK = 16
FLOAT8 = torch.float8_e4m3fn


def published_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    full = x.double()
    return weight * (full / (full.square().mean(-1, keepdim=True) + EPS).sqrt()).to(x.dtype)


def published_rotation(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "hidden"), [(1, 5), (3, 300), (2, 1024), (1, 4096)])
@pytest.mark.parametrize("has_delta", [True, False])
def test_add_rms_norm(
    count: int, hidden: int, has_delta: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x, weight = random(count, hidden, dtype=dtype), random(hidden, dtype=dtype)
    delta = random(count, hidden, dtype=dtype) if has_delta else None
    naive, fused = naive_and_fused(monkeypatch, lambda: add_rms_norm(x, delta, weight, EPS))
    total = x if delta is None else x + delta
    for found_total, normed in (naive, fused):
        assert torch.equal(found_total, total)
        assert normed.dtype == dtype
        assert_close(normed, published_norm(total, weight), dtype)


def test_a_row_of_zeros_stays_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.zeros(2, 64, device=DEVICE), torch.ones(64, device=DEVICE)
    for _, normed in naive_and_fused(monkeypatch, lambda: add_rms_norm(x, None, weight, EPS)):
        assert torch.equal(normed, x)


def test_small_values_are_scaled_as_eps_says(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.full((2, 64), 1e-3, device=DEVICE), torch.ones(64, device=DEVICE)
    for _, normed in naive_and_fused(monkeypatch, lambda: add_rms_norm(x, None, weight, EPS)):
        torch.testing.assert_close(normed, torch.full_like(x, 0.5**0.5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "n_gates"), [(1, 3), (3, 1300), (2, 1024)])
def test_silu_gate(count: int, n_gates: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    gate_up = random(count, 2 * n_gates, dtype=dtype)
    naive, fused = naive_and_fused(monkeypatch, lambda: silu_gate(gate_up))
    gate, up = gate_up.double().chunk(2, -1)
    assert_close(naive, F.silu(gate) * up, dtype)
    assert_close(fused, F.silu(gate) * up, dtype)


class Layer:
    """Inputs of one norm_rope_write; pools begin as NaN."""

    def __init__(self, count: int, n_heads: int, n_kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
        torch.manual_seed(2)
        self.sizes = (n_heads, n_kv_heads, head_dim)
        self.qkv = random(count, (n_heads + 2 * n_kv_heads) * head_dim, dtype=dtype)
        self.q_norm, self.k_norm = random(head_dim, dtype=dtype), random(head_dim, dtype=dtype)
        angles = torch.rand(count, head_dim // 2) * 6.3
        self.cos, self.sin = angles.cos().to(DEVICE, dtype), angles.sin().to(DEVICE, dtype)
        self.pool_rows = torch.randperm(5 * BLOCK)[:count].to(DEVICE)

    def run(self, pool_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, and both pools as (rows, n_kv_heads, head_dim) float32."""
        _, n_kv_heads, head_dim = self.sizes
        pools = [torch.full((n_kv_heads, 5, BLOCK, head_dim), torch.nan, device=DEVICE).to(pool_dtype) for _ in "kv"]
        angles = (self.cos, self.sin)
        q = norm_rope_write(self.qkv, self.q_norm, self.k_norm, EPS, *angles, pools[0], pools[1], self.pool_rows)
        k, v = (pool.float().view(n_kv_heads, -1, head_dim).transpose(0, 1) for pool in pools)
        return q, k, v

    def expected(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n_heads, n_kv_heads, head_dim = self.sizes
        q, k, v = self.qkv.view(len(self.qkv), -1, head_dim).split((n_heads, n_kv_heads, n_kv_heads), 1)
        cos, sin = self.cos[:, None], self.sin[:, None]
        q = published_rotation(published_norm(q, self.q_norm), cos, sin)
        return q, published_rotation(published_norm(k, self.k_norm), cos, sin), v


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("count", "n_heads", "n_kv_heads", "head_dim"), [(1, 1, 1, 16), (3, 6, 2, 32), (2, 4, 2, 64), (2, 4, 1, 128)]
)
def test_norm_rope_write(
    count: int, n_heads: int, n_kv_heads: int, head_dim: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Layer(count, n_heads, n_kv_heads, head_dim, dtype)
    expected_q, expected_k, expected_v = layer.expected()
    for q, k, v in naive_and_fused(monkeypatch, lambda: layer.run(dtype)):
        assert q.dtype == dtype
        assert_close(q, expected_q, dtype)
        assert_close(k[layer.pool_rows], expected_k, dtype)
        assert torch.equal(v[layer.pool_rows], expected_v.float())
        written = set(layer.pool_rows.tolist())
        others = [row for row in range(5 * BLOCK) if row not in written]
        assert bool(k[others].isnan().all()) and bool(v[others].isnan().all())


def test_a_float8_pool_gets_the_nearest_values_it_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer(3, 4, 2, 32, torch.float32)
    layer.k_norm *= 400
    values = torch.randn(3, 2 * 32, device=DEVICE).mul_(100).to(FLOAT8).float()
    values[0, :3] = torch.tensor([1e6, -449.0, torch.nan])
    layer.qkv[:, -2 * 32 :] = values
    keys = layer.expected()[1].clamp(-448, 448)
    assert float(keys.max()) == 448.0
    naive, fused = naive_and_fused(monkeypatch, lambda: layer.run(FLOAT8))
    expected = values.clamp(-448, 448).view(3, 2, 32)
    held = expected.isfinite()
    for _, _, v in (naive, fused):
        assert torch.equal(v[layer.pool_rows][held], expected[held])
    # The interpreter's own rounding to float8 loses carries and NaN, so that only hardware is held to it.
    for _, k, v in (naive, fused) if HAS_GPU else (naive,):
        assert bool(v[layer.pool_rows][~held].isnan().all())
        # Three bits of fraction: half a step is a sixteenth.
        torch.testing.assert_close(k[layer.pool_rows], keys, rtol=1 / 16 + 1e-4, atol=2**-10)


@pytest.mark.parametrize("head_dim", [8, 20])
def test_heads_that_tiles_cannot_have_are_refused(head_dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_KERNELS", "triton")
    layer = Layer(2, 2, 1, head_dim, torch.float32)
    with pytest.raises(ValueError, match=f"head_dim: {head_dim}.*STREAMER_KERNELS=naive"):
        layer.run(torch.float32)


def test_rows_get_the_same_bits_in_any_number_from_two_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_KERNELS", "naive")
    layer = Layer(33, 4, 2, 64, torch.float32)
    x, delta, weight, gate_up = random(33, 256), random(33, 256), random(256), random(33, 2 * 704)
    together = (*layer.run(torch.float32), *add_rms_norm(x, delta, weight, EPS), silu_gate(gate_up))
    rows = layer.pool_rows
    for count in (17, 8, 3, 2):
        layer.qkv, layer.cos, layer.sin = layer.qkv[:count], layer.cos[:count], layer.sin[:count]
        layer.pool_rows = rows[:count]
        q, k, v = layer.run(torch.float32)
        few = (q, k[rows[:count]], v[rows[:count]], *add_rms_norm(x[:count], delta[:count], weight, EPS))
        many = (together[0][:count], *(pool[rows[:count]] for pool in together[1:3]), *together[3:5])
        assert all(torch.equal(a, b[:count]) for a, b in zip(few, many, strict=True))
        assert torch.equal(silu_gate(gate_up[:count]), together[5][:count])
