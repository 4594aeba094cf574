"""How long steps take, and what fits: one machine measured, one computed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from streamer.engine.step_times import StepWork


@dataclass(frozen=True, slots=True)
class Machine:
    """A model on a machine. All times in seconds; ``note`` says where they come from.

    A step costs ``step_s``, ``row_s`` for each row decoded and ``kv_row_s`` for each row that attention reads; a piece
    of a prompt costs ``piece_s`` and ``prompt_row_s`` for each row, but at least ``least_piece_s``.
    """

    name: str
    note: str
    step_s: float
    row_s: float
    kv_row_s: float
    piece_s: float
    prompt_row_s: float
    least_piece_s: float
    n_vq: int
    n_slots: int
    kv_rows: int
    piece_rows: int
    reference_rows: int
    history_s: float
    text_rows_per_s: float

    def seconds(self, work: StepWork, dice: random.Random) -> float:
        """One step's time: some noise, and now and then twice as long."""
        prompts_s = work.pieces * self.piece_s + work.prefill_rows * self.prompt_row_s
        decode_s = work.decode_steps * self.step_s + work.decode_rows * self.row_s + work.kv_rows * self.kv_row_s
        noise = dice.lognormvariate(0, 0.05) * (2 if dice.random() < 0.01 else 1)
        return (decode_s + max(prompts_s, work.pieces * self.least_piece_s)) * noise


CPU = Machine(
    name="CPU, embedded model",
    note="times fitted to measurements on one core of a shared Xeon",
    step_s=0.009,
    row_s=0.0015,
    kv_row_s=1.0e-6,
    piece_s=0.004,
    prompt_row_s=0.000135,
    least_piece_s=0.0,
    n_vq=8,
    n_slots=16,
    kv_rows=32_768,
    piece_rows=128,
    reference_rows=200,
    history_s=12.0,
    text_rows_per_s=15.0,
)

# As others on the machine take most of it.
BUSY_CPU = replace(
    CPU,
    name="CPU, a third of it",
    note="all times three times as long",
    step_s=3 * CPU.step_s,
    row_s=3 * CPU.row_s,
    kv_row_s=3 * CPU.kv_row_s,
    piece_s=3 * CPU.piece_s,
    prompt_row_s=3 * CPU.prompt_row_s,
)

# 8 B weights and 0.8 B codec weights in bf16 read once a step at 3.0 TB/s, at 1.25 times the floor; a session's codec
# state of 85 MB a frame; 147 kB of KV a row; prefill at half of the 990 TFLOP/s of dense bf16, never below the weights.
_BYTES_PER_S = 3.0e12
_OVER_FLOOR = 1.25
H100 = Machine(
    name="H100, 8 B model",
    note="times computed from bytes and operations, not measured",
    step_s=_OVER_FLOOR * (16.4e9 + 1.6e9) / _BYTES_PER_S,
    row_s=_OVER_FLOOR * 85e6 / _BYTES_PER_S,
    kv_row_s=_OVER_FLOOR * 147e3 / _BYTES_PER_S,
    piece_s=0.0,
    prompt_row_s=2 * 8.2e9 / 495e12,
    least_piece_s=_OVER_FLOOR * 16.4e9 / _BYTES_PER_S,
    n_vq=16,
    n_slots=128,
    kv_rows=340_000,
    piece_rows=256,
    reference_rows=256,
    history_s=60.0,
    text_rows_per_s=5.0,
)
