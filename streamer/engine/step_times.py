"""How long a step will take, learned from those that were measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one step computes, or many steps together: the model of its time is linear, so that both are asked alike.

    ``decode_steps``: steps that decode anything; ``decode_rows``: new rows; ``kv_rows``: rows that attention reads for
    them; ``pieces`` and ``prefill_rows``: of prompts.
    """

    decode_steps: float = 0.0
    decode_rows: float = 0.0
    kv_rows: float = 0.0
    pieces: float = 0.0
    prefill_rows: float = 0.0

    def scaled(self) -> tuple[float, float, float, float, float]:
        """In units that make their costs alike in size."""
        return self.decode_steps, self.decode_rows / 16, self.kv_rows / 8192, self.pieces, self.prefill_rows / 128


# Seconds for a unit of each, before anything was measured: a small model on a CPU, which a GPU is not slower than.
_FIRST_GUESS: Final = np.array((0.008, 0.016, 0.008, 0.004, 0.016))
# What the first guess weighs, in steps; and how long a step is remembered.
_GUESS_WEIGHT: Final = 0.5
_FORGETTING: Final = 0.99
# One step that took longer (another process, a page fault) says little about the next.
_OUTLIER: Final = 3.0
_WARM_UP_STEPS: Final = 3


class StepTimes:
    """Least squares with exponential forgetting over :class:`StepWork`, no coefficient below zero.

    What has not occurred for long is forgotten towards the present estimate, not towards ignorance, so that the
    estimate stays bounded however one-sided the work is.
    """

    def __init__(self, first_guess_s: np.ndarray = _FIRST_GUESS) -> None:
        self._costs_s = first_guess_s.astype(np.float64)
        self._cost_list_s: list[float] = self._costs_s.tolist()
        self._moments = np.eye(len(self._costs_s)) * _GUESS_WEIGHT
        self._targets = self._moments @ self._costs_s
        self.n_measured = 0

    def seconds(self, work: StepWork) -> float:
        """Predicted time."""
        # Asked for hundreds of times a step: sums of five numbers are faster than arrays of them.
        return sum(x * cost_s for x, cost_s in zip(work.scaled(), self._cost_list_s, strict=True))

    def measured(self, work: StepWork, seconds: float) -> None:
        """Learn from a step. The first few, which warm caches and allocators up, are left out."""
        self.n_measured += 1
        if self.n_measured <= _WARM_UP_STEPS:
            return
        x = np.array(work.scaled())
        seconds = min(seconds, _OUTLIER * self.seconds(work))
        prior = np.eye(len(x)) * (_GUESS_WEIGHT * (1 - _FORGETTING))
        self._moments = _FORGETTING * self._moments + np.outer(x, x) + prior
        self._targets = _FORGETTING * self._targets + x * seconds + prior @ self._costs_s
        self._costs_s = np.maximum(np.linalg.solve(self._moments, self._targets), 0.0)
        self._cost_list_s = self._costs_s.tolist()
