"""What the engine does next: which sequences wait, prefill, decode or pause. No tensors, no clock, no threads."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from streamer.engine.blocks import BlockManager, Lease


class Refused(Exception):
    """A request that the engine will not take. ``code`` is stable; ``retry_after_ms`` is set where waiting helps."""

    def __init__(self, code: str, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms


@dataclass(slots=True, eq=False)
class ScheduledSequence:
    """One generation as the scheduler sees it."""

    n_prompt_rows: int
    max_rows: int
    prefix_keys: list[bytes]
    unsent_frames: int = 0
    n_prefilled_rows: int = 0
    slot: int = -1
    lease: Lease = field(default_factory=lambda: Lease([], 0))

    @property
    def prefilled(self) -> bool:
        """Whether all prompt rows are in the cache."""
        return self.n_prefilled_rows == self.n_prompt_rows


SequenceT = TypeVar("SequenceT", bound=ScheduledSequence)


@dataclass(frozen=True, slots=True)
class Admission(Generic[SequenceT]):
    """Who got or lost a slot. What ``parked`` sequences have in theirs is to be saved before the others use it."""

    parked: list[SequenceT] = field(default_factory=list)
    resumed: list[SequenceT] = field(default_factory=list)
    started: list[SequenceT] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan(Generic[SequenceT]):
    """One engine step: ``n_prefill_rows`` of one sequence, then one row for each of ``decode``."""

    prefill: SequenceT | None
    n_prefill_rows: int
    decode: list[SequenceT]


class Scheduler(Generic[SequenceT]):
    """First come, first served; a prompt is prefilled in pieces between the rows of the running sequences.

    A sequence is admitted when a slot is free and blocks for its prompt and all rows it may decode are: once running,
    it never waits for memory.
    """

    def __init__(
        self,
        blocks: BlockManager,
        *,
        n_slots: int,
        max_waiting: int,
        prefill_chunk_rows: int,
        max_unsent_frames: int,
    ) -> None:
        if prefill_chunk_rows % blocks.block_rows:
            raise ValueError(f"prefill_chunk_rows must be a multiple of {blocks.block_rows}")
        self.blocks = blocks
        self.n_slots = n_slots
        self._max_waiting = max_waiting
        self._prefill_chunk_rows = prefill_chunk_rows
        self._max_unsent_frames = max_unsent_frames
        self._free_slots = list(range(n_slots - 1, -1, -1))
        self.waiting: deque[SequenceT] = deque()
        self.running: list[SequenceT] = []
        self.parked: list[SequenceT] = []

    @property
    def n_held_slots(self) -> int:
        """Slots that some sequence holds."""
        return self.n_slots - len(self._free_slots)

    def submit(self, sequence: SequenceT) -> None:
        """Queue a sequence; raises :class:`Refused` where it could never run or the queue is full."""
        needed = self.blocks.blocks_for(sequence.n_prompt_rows + sequence.max_rows)
        if needed > self.blocks.n_blocks:
            raise Refused(
                "text_too_long",
                f"{sequence.n_prompt_rows} prompt rows and up to {sequence.max_rows} new ones need {needed} KV blocks,"
                f" the pool has {self.blocks.n_blocks}",
            )
        if len(self.waiting) >= self._max_waiting:
            raise Refused("overloaded", f"{len(self.waiting)} turns are waiting already", retry_after_ms=1000)
        self.waiting.append(sequence)

    def admit(self) -> Admission[SequenceT]:
        """Give slots to parked sequences whose readers caught up, then to waiting ones, oldest first.

        With no slot free, a sequence that its reader has paused is parked: it keeps its blocks and lends its slot.
        """
        admission: Admission[SequenceT] = Admission()
        for sequence in [s for s in self.parked if not self._paused(s)]:
            if not self._make_room(admission):
                return admission
            self.parked.remove(sequence)
            self._seat(sequence)
            admission.resumed.append(sequence)
        while self.waiting and self._make_room(admission):
            sequence = self.waiting[0]
            needed = self.blocks.blocks_for(sequence.n_prompt_rows + sequence.max_rows)
            # At least the last prompt row is always computed: its hidden state gives the first new row.
            shareable = sequence.prefix_keys[: (sequence.n_prompt_rows - 1) // self.blocks.block_rows]
            lease = self.blocks.acquire(shareable, needed)
            if lease is None:
                break
            self.waiting.popleft()
            sequence.lease = lease
            sequence.n_prefilled_rows = lease.n_shared * self.blocks.block_rows
            self._seat(sequence)
            admission.started.append(sequence)
        return admission

    def plan(self) -> Plan[SequenceT]:
        """The next step's work; empty where every running sequence is paused by its reader."""
        prefill = next((s for s in self.running if not s.prefilled), None)
        n_rows = 0
        if prefill is not None:
            # Pieces end at multiples of the piece length, so that a prompt is cut alike however much of it is shared.
            start = prefill.n_prefilled_rows
            end = (start // self._prefill_chunk_rows + 1) * self._prefill_chunk_rows
            n_rows = min(end, prefill.n_prompt_rows) - start
        decode = [s for s in self.running if s.prefilled and not self._paused(s)]
        return Plan(prefill, n_rows, decode)

    def prefilled(self, sequence: SequenceT, n_rows: int) -> None:
        """Take note of computed prompt rows and publish the blocks that they complete."""
        first = sequence.n_prefilled_rows // self.blocks.block_rows
        sequence.n_prefilled_rows += n_rows
        last = min(sequence.n_prefilled_rows // self.blocks.block_rows, len(sequence.prefix_keys))
        for i in range(first, last):
            self.blocks.publish(sequence.lease.blocks[i], sequence.prefix_keys[i])

    def remove(self, sequence: SequenceT) -> list[int]:
        """End a sequence in any state; its slot and blocks are free again. Returns the blocks nobody holds."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            return []
        if sequence in self.parked:
            self.parked.remove(sequence)
        else:
            self.running.remove(sequence)
            self._free_slots.append(sequence.slot)
        sequence.slot = -1
        return self.blocks.release(sequence.lease.blocks)

    def _paused(self, sequence: SequenceT) -> bool:
        return sequence.unsent_frames >= self._max_unsent_frames

    def _seat(self, sequence: SequenceT) -> None:
        sequence.slot = self._free_slots.pop()
        self.running.append(sequence)

    def _make_room(self, admission: Admission[SequenceT]) -> bool:
        """Whether a slot is free, if need be after parking a paused sequence that has held its slot all along."""
        if not self._free_slots:
            paused = next((s for s in self.running if self._paused(s)), None)
            if paused is None:
                return False
            self.running.remove(paused)
            self._free_slots.append(paused.slot)
            self.parked.append(paused)
            admission.parked.append(paused)
        return True
