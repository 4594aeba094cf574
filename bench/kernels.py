"""Each op, Triton against plain torch, at the sizes of MOSS-TTSD: ``python -m bench.kernels``.

Microseconds a call, the ratio of the two, and on a GPU the share of the copy bandwidth that the kernel reaches for the
bytes it can't do without. Without a GPU the Triton side is left out (its interpreter's times say nothing), and
``--tiny`` keeps it short.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.machine import describe_machine
from streamer_kernels import (
    DelaySlots,
    SamplingSlots,
    add_rms_norm,
    advance_delay,
    decode_attention,
    embed_rows,
    norm_rope_write,
    plan_decode,
    plan_rows,
    sample_codes,
    sample_text,
    silu_gate,
)
from streamer_kernels.dispatch import ENVIRONMENT_VARIABLE

Work = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """One batch of one model."""

    batch: int
    context_rows: int
    hidden: int = 4096
    intermediate: int = 12_288
    n_heads: int = 32
    n_kv_heads: int = 8
    head_dim: int = 128
    n_vq: int = 16
    n_ids: int = 1025
    vocab: int = 151_936


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line an op, and write all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small sizes and few repeats")
    parser.add_argument("--json", type=Path, help="write the report here as well")
    arguments = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    batches = [(1, 600), (16, 600), (64, 600), (128, 600), (1, 8000)]
    if arguments.tiny:
        batches = [(2, 40)]
    elif device.type == "cpu":
        batches = [(1, 600), (16, 600)]
    bandwidth = copy_gb_s(device)
    found = []
    print(f"{'op':<14}{'batch':>6}{'context':>8}{'torch us':>11}{'triton us':>11}{'ratio':>8}{'of copy':>9}")
    for batch, context in batches:
        sizes = Sizes(batch, context, **(_TINY if arguments.tiny else {}))
        for name, (work, n_bytes) in cases(sizes, device, dtype).items():
            entry = measure(name, sizes, work, n_bytes, bandwidth, device)
            found.append(entry)
            print(_line(entry), flush=True)
    report = {"machine": describe_machine(device), "copy_gb_s": bandwidth, "ops": found}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


_TINY = {"hidden": 64, "intermediate": 96, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "n_vq": 4, "vocab": 320}


def measure(
    name: str, sizes: Sizes, work: Work, n_bytes: float, bandwidth: float, device: torch.device
) -> dict[str, Any]:
    """One op at one size."""
    on_cuda = device.type == "cuda"
    plain_us = time_us(with_kernels("naive", work), device)
    fused_us = time_us(with_kernels("triton", work), device) if on_cuda else None
    return {
        "op": name,
        "batch": sizes.batch,
        "context_rows": sizes.context_rows,
        "torch_us": plain_us,
        "triton_us": fused_us,
        "ratio": None if fused_us is None else plain_us / fused_us,
        "of_copy_bandwidth": None if fused_us is None else n_bytes / fused_us / 1000 / bandwidth,
    }


def cases(s: Sizes, device: torch.device, dtype: torch.dtype) -> dict[str, tuple[Work, float]]:
    """Every op as a call without arguments, and the bytes that it must at least move."""
    generator = torch.Generator(device).manual_seed(0)
    item = dtype.itemsize

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device, generator=generator, dtype=torch.float32).to(dtype)

    slots = torch.arange(s.batch, device=device)
    sampling = _sampling(s, device)
    delay = DelaySlots.allocate(s.batch, s.n_vq, device)
    delay.audio_length[:] = 100
    delay.delayed_length[:] = -1
    delay.step[:] = 100
    delay.tail_at[:] = 10**9
    step = torch.full((s.batch,), 100, device=device)
    first, end = torch.zeros_like(step), torch.full_like(step, s.n_vq)
    forced, pair = torch.full_like(step, -1), torch.tensor([3, 4], device=device)
    rows = torch.randint(0, 300, (s.batch, 1 + s.n_vq), device=device, generator=generator)
    text_table, audio_table = randn(s.vocab, s.hidden), randn(s.n_vq, s.n_ids, s.hidden)
    logits, hidden, delta = randn(s.batch, s.n_vq, s.n_ids).float(), randn(s.batch, s.hidden), randn(s.batch, s.hidden)
    head, weight = randn(2, s.hidden), randn(s.hidden)
    gate_up = randn(s.batch, 2 * s.intermediate)
    n_blocks = -(-s.context_rows // 16)
    pool_shape = (s.n_kv_heads, s.batch * n_blocks, 16, s.head_dim)
    k_pool, v_pool = randn(*pool_shape), randn(*pool_shape)
    tables = torch.randperm(s.batch * n_blocks, device=device, generator=generator).view(s.batch, n_blocks)
    positions = torch.full((s.batch,), s.context_rows - 1, device=device)
    plan, q = plan_decode(tables, positions, 16), randn(s.batch, s.n_heads, s.head_dim)
    qkv = randn(s.batch, (s.n_heads + 2 * s.n_kv_heads) * s.head_dim)
    norm, turn = randn(s.head_dim), randn(s.batch, s.head_dim // 2)
    pool_rows = tables[:, -1] * 16
    width = s.batch * s.hidden * item

    def attend() -> torch.Tensor:
        # On a GPU the plan costs nothing, and belongs to the implementation that is forced.
        made = plan_decode(tables, positions, 16) if device.type == "cuda" else plan
        return decode_attention(q, k_pool, v_pool, made)

    return {
        "embed_rows": (lambda: embed_rows(rows, text_table, audio_table), (2 + s.n_vq) * width),
        "add_rms_norm": (lambda: add_rms_norm(hidden, delta, weight, 1e-6), 4 * width),
        "norm_rope_write": (
            lambda: norm_rope_write(qkv, norm, norm, 1e-6, turn, turn, k_pool, v_pool, pool_rows),
            2 * qkv.numel() * item,
        ),
        "attention": (attend, 2 * s.batch * s.context_rows * s.n_kv_heads * s.head_dim * item),
        "silu_gate": (lambda: silu_gate(gate_up), 1.5 * gate_up.numel() * item),
        "plan_rows": (lambda: plan_rows(slots, delay, s.n_vq, 4, 5), 8.0 * 6 * s.batch),
        "sample_text": (
            lambda: sample_text(hidden, head, pair, slots, sampling, step, forced),
            float(width + 2 * s.hidden * item),
        ),
        "sample_codes": (
            lambda: sample_codes(logits, slots, sampling, step, first, end),
            5.0 * s.batch * s.n_vq * s.n_ids,
        ),
        "advance_delay": (
            lambda: advance_delay(rows, slots, delay, s.n_ids - 1, 4, 5),
            8.0 * s.batch * (3 * s.n_vq + 8),
        ),
    }


def _sampling(s: Sizes, device: torch.device) -> SamplingSlots:
    """The published settings."""
    sampling = SamplingSlots.allocate(s.batch, s.n_vq, s.n_ids, device)
    sampling.temperature[:] = 1.1
    sampling.top_k[:] = 50
    sampling.top_p[:] = 0.9
    sampling.penalty[:] = 1.1
    sampling.history_of[:] = torch.arange(s.n_vq, device=device).clamp(max=1)
    sampling.history[..., ::7] = True
    return sampling


def with_kernels(choice: str, work: Work) -> Work:
    """The same work with one implementation of the ops forced."""

    def forced() -> Any:
        os.environ[ENVIRONMENT_VARIABLE] = choice
        try:
            return work()
        finally:
            del os.environ[ENVIRONMENT_VARIABLE]

    return forced


def time_us(work: Work, device: torch.device) -> float:
    """Microseconds a call: on a GPU the device's own time, calls queued behind each other; else the thread's."""
    for _ in range(3):
        work()
    if device.type != "cuda":
        times = []
        for _ in range(10):
            began = time.thread_time()
            work()
            times.append((time.thread_time() - began) * 1e6)
        return float(np.median(times))
    # A graph holds the launches, so that they are not what is timed.
    graph, repeats = torch.cuda.CUDAGraph(), 20
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            work()
    begin, finish = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    graph.replay()
    begin.record()
    graph.replay()
    finish.record()
    finish.synchronize()
    return float(begin.elapsed_time(finish)) * 1000 / repeats


def copy_gb_s(device: torch.device) -> float:
    """GB/s of a copy within the device's memory, bytes read and written counted."""
    source = torch.zeros(2**28 if device.type == "cuda" else 2**24, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / time_us(lambda: target.copy_(source), device) / 1000


def _line(entry: dict[str, Any]) -> str:
    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        f"{entry['op']:<14}{entry['batch']:>6}{entry['context_rows']:>8}{entry['torch_us']:>11.1f}"
        f"{shown(entry['triton_us'], '.1f'):>11}{shown(entry['ratio'], '.2f'):>8}"
        f"{shown(entry['of_copy_bandwidth'], '.0%'):>9}"
    )


if __name__ == "__main__":
    sys.exit(main())
