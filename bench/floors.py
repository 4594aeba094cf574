"""How fast the language model could be at best on a CPU: what it must read and multiply, by what one core can.

The rates are measured with the model's own kind of products: few rows through matrices too large for the core's cache,
and many rows through one that fits. Nothing else is counted, no operation's start, no Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from streamer.models import DelayModel

_N_MATRICES, _SHAPE = 24, (256, 1408)
_REPEATS = 5


def floors(model: DelayModel, prompt_rows: int, new_rows: int, sequences: int) -> dict[str, float]:
    """Rows a second of one turn and of ``sequences`` at once, and milliseconds to a first frame, at the floor.

    A step costs the longer of its reading and its arithmetic; the context is that of the middle of a turn.
    """
    read_gb_s, gflop_s = _rates()
    c, language = model.config, model.config.language
    heads = (language.n_heads + 2 * language.n_kv_heads) * language.head_dim
    layer = language.hidden_size * (heads + language.n_heads * language.head_dim + 3 * language.intermediate_size)
    layers = language.n_layers * layer
    parameters = layers + c.n_vq * (c.audio_vocab_size + 1) * language.hidden_size
    kv_row = 2 * language.n_layers * language.n_kv_heads * language.head_dim * model.dtype.itemsize
    context = (prompt_rows + new_rows / 2) * kv_row

    def step_s(batch: int) -> float:
        n_bytes = parameters * model.dtype.itemsize + batch * context
        return max(n_bytes / read_gb_s, 2 * batch * parameters / gflop_s) / 1e9

    prefill_s = 2 * prompt_rows * layers / gflop_s / 1e9
    whole_s = {batch: new_rows * step_s(batch) + batch * prefill_s for batch in (1, sequences)}
    return {
        "floor_read_gb_s": read_gb_s,
        "floor_gflop_s": gflop_s,
        "floor_rows_per_s_one": new_rows / whole_s[1],
        "floor_rows_per_s_many": sequences * new_rows / whole_s[sequences],
        "floor_first_audio_ms": (prefill_s + c.n_vq * step_s(1)) * 1000,
    }


def _rates() -> tuple[float, float]:
    """(GB/s read by products of two rows, GFLOP/s of products of many): float32, one thread, the best of some runs."""
    matrices = torch.randn(_N_MATRICES, *_SHAPE)
    few, many = torch.randn(2, _SHAPE[0]), torch.randn(512, _SHAPE[0])
    read_s = _best_s(lambda: [few @ matrix for matrix in matrices])
    multiply_s = _best_s(lambda: [many @ matrices[0] for _ in range(4)])
    flop = 4 * 2 * many.shape[0] * _SHAPE[0] * _SHAPE[1]
    return matrices.numel() * 4 / read_s / 1e9, flop / multiply_s / 1e9


def _best_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPEATS):
        began_s = time.thread_time()
        work()
        times.append(time.thread_time() - began_s)
    return min(times)
