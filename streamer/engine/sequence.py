"""What the scheduler's parts speak of: sequences, refusals, what became of slots, and the plan of a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from streamer.engine.blocks import Lease
from streamer.engine.playback import PlaybackClock
from streamer.engine.step_times import StepWork


class Refused(Exception):
    """A request that the engine will not take. ``code`` is stable; ``retry_after_ms`` is set where waiting helps."""

    def __init__(self, code: str, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms


@dataclass(slots=True, eq=False)
class ScheduledSequence:
    """One generation as the scheduler sees it. ``clock`` is its session's, ``resting`` a pause for being ahead."""

    n_prompt_rows: int
    max_rows: int
    prefix_keys: list[bytes]
    clock: PlaybackClock = field(default_factory=PlaybackClock)
    submitted_s: float = 0.0
    touched_s: float = 0.0
    unsent_frames: int = 0
    n_prefilled_rows: int = 0
    n_new_rows: int = 0
    n_frames: int = 0
    resting: bool = False
    slot: int = -1
    lease: Lease = field(default_factory=lambda: Lease([], 0))

    @property
    def prefilled(self) -> bool:
        """Whether all prompt rows are in the cache."""
        return self.n_prefilled_rows == self.n_prompt_rows

    @property
    def n_unread_rows(self) -> int:
        """Prompt rows that are still to be prefilled."""
        return self.n_prompt_rows - self.n_prefilled_rows

    def pieces(self, piece_rows: int) -> Iterator[int]:
        """How many rows each further piece of the prompt has.

        Pieces end at multiples of ``piece_rows``, so that a prompt is cut alike whatever the schedule and however much
        of it is shared: its numbers don't depend on either.
        """
        start = self.n_prefilled_rows
        while start < self.n_prompt_rows:
            end = min((start // piece_rows + 1) * piece_rows, self.n_prompt_rows)
            yield end - start
            start = end


SequenceT = TypeVar("SequenceT", bound=ScheduledSequence)


@dataclass(frozen=True, slots=True)
class Admission(Generic[SequenceT]):
    """Who got or lost a slot. What ``parked`` sequences have in theirs is to be saved before the others use it."""

    parked: list[SequenceT] = field(default_factory=list)
    resumed: list[SequenceT] = field(default_factory=list)
    started: list[SequenceT] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan(Generic[SequenceT]):
    """One engine step: pieces of prompts, (sequence, rows), in this order; then one row for each of ``decode``."""

    pieces: list[tuple[SequenceT, int]]
    decode: list[SequenceT]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do now."""
        return not (self.pieces or self.decode)

    @property
    def work(self) -> StepWork:
        """What the step computes."""
        rows = sum(n for _, n in self.pieces)
        return decode_work(self.decode, pieces=len(self.pieces), prefill_rows=rows)


def decode_work(batch: Sequence[ScheduledSequence], *, pieces: int = 0, prefill_rows: int = 0) -> StepWork:
    """One row for each of ``batch``, beside pieces of prompts."""
    kv_rows = sum(s.n_prompt_rows + s.n_new_rows for s in batch)
    return StepWork(1.0 if batch else 0.0, len(batch), kv_rows, pieces, prefill_rows)
