"""What came of a simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.simulation.listeners import Turn


@dataclass(frozen=True, slots=True)
class Results:
    """``ttfa`` of turns asked for in silence, ``border`` silences of turns asked for before; continuity of all turns.

    ``unheard``: share of turns given up after being refused, or without audio when the simulation ended.
    """

    turns: int
    unheard: float
    ttfa_p50_s: float
    ttfa_p95_s: float
    border_p95_s: float
    c50: float
    c100: float
    c200: float
    busy: float
    steps: int

    @classmethod
    def of(cls, turns: Sequence[Turn], *, busy: float, steps: int) -> Results:
        """Summary of all ``turns``; ``busy``: share of the time that the machine computed."""
        heard = [t for t in turns if t.first_audio_s is not None]
        asked_in_silence = [t.ttfa_s or 0.0 for t in heard if t.in_hand_s <= 0]
        borders = [t.silence_s or 0.0 for t in heard if t.in_hand_s > 0]
        return cls(
            turns=len(turns),
            unheard=1 - len(heard) / max(len(turns), 1),
            ttfa_p50_s=percentile(asked_in_silence, 50),
            ttfa_p95_s=percentile(asked_in_silence, 95),
            border_p95_s=percentile(borders, 95),
            c50=continuity(heard, 0.05),
            c100=continuity(heard, 0.1),
            c200=continuity(heard, 0.2),
            busy=busy,
            steps=steps,
        )


def continuity(turns: Sequence[Turn], limit_s: float) -> float:
    """Share of turns whose longest underrun stays under the limit."""
    return sum(t.longest_underrun_s < limit_s for t in turns) / max(len(turns), 1)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank; NaN without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan
