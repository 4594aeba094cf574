"""What the engine does next: which sequences wait, prefill, decode or pause. No tensors, no clock, no threads.

The books are kept here; who goes first is up to a policy, :class:`FirstCome` or :class:`Deadlines`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Generic

from streamer.engine.blocks import BlockManager
from streamer.engine.policies import FirstCome, Policy
from streamer.engine.sequence import Admission, Plan, Refused, ScheduledSequence, SequenceT

__all__ = ["Admission", "Plan", "Refused", "ScheduledSequence", "Scheduler"]


class Scheduler(Generic[SequenceT]):
    """Queue, slots and memory. Times are in seconds on any clock that does not go back; the latest one holds.

    A sequence is admitted when the policy lets it, a slot is free and blocks for its prompt and all rows it may decode
    are: once running, it never waits for memory. One that is paused, by its reader or for being far ahead of its
    listener, costs nothing: it keeps its blocks and lends its slot.
    """

    def __init__(
        self,
        blocks: BlockManager,
        policy: Policy | None = None,
        *,
        n_slots: int,
        max_waiting: int,
        prefill_chunk_rows: int,
        max_unsent_frames: int,
        frame_s: float = 0.08,
    ) -> None:
        if prefill_chunk_rows % blocks.block_rows:
            raise ValueError(f"prefill_chunk_rows must be a multiple of {blocks.block_rows}")
        self.blocks = blocks
        self.policy: Policy = policy or FirstCome()
        self.n_slots = n_slots
        self.frame_s = frame_s
        self._max_waiting = max_waiting
        self._prefill_chunk_rows = prefill_chunk_rows
        self._max_unsent_frames = max_unsent_frames
        self._free_slots = list(range(n_slots - 1, -1, -1))
        self._now_s = -math.inf
        self.waiting: deque[SequenceT] = deque()
        self.running: list[SequenceT] = []
        self.parked: list[SequenceT] = []

    @property
    def n_held_slots(self) -> int:
        """Slots that some sequence holds."""
        return self.n_slots - len(self._free_slots)

    def submit(self, sequence: SequenceT, now_s: float) -> None:
        """Queue a sequence; raises :class:`Refused` where it could never run, or would wait too long."""
        needed = self._blocks_for(sequence)
        if needed > self.blocks.n_blocks:
            raise Refused(
                "text_too_long",
                f"{sequence.n_prompt_rows} prompt rows and up to {sequence.max_rows} new ones need {needed} KV blocks,"
                f" the pool has {self.blocks.n_blocks}",
            )
        n_waiting = len(self.waiting)
        # Those for whom a slot is free wait for no other turn's end.
        n_behind = max(n_waiting - len(self._free_slots), 0)
        retry_after_ms = 1000 if n_waiting >= self._max_waiting else self.policy.refusal(sequence, n_behind)
        if retry_after_ms is not None:
            raise Refused("overloaded", f"{n_waiting} turns are waiting already", retry_after_ms)
        sequence.submitted_s = sequence.touched_s = now_s
        self.waiting.append(sequence)

    def admit(self, now_s: float) -> Admission[SequenceT]:
        """Give slots to those who want one, most pressing first, until one of them can't have it.

        With no slot free, a paused sequence is parked, or one that the policy says can do without.
        """
        self._tick(now_s)
        admission: Admission[SequenceT] = Admission()
        resumable = [s for s in self.parked if not self._paused(s)]
        if not (resumable or self.waiting):
            return admission
        held_up = False
        for sequence in self.policy.order(list(self.waiting), resumable, now_s):
            if sequence.lease.blocks:
                if not self._resume(sequence, admission):
                    break
            else:
                # None overtakes another in the queue, or the largest would wait for memory for ever.
                held_up = held_up or not self._start(sequence, admission)
        return admission

    def plan(self, now_s: float) -> Plan[SequenceT]:
        """The next step's work; empty where every running sequence is paused."""
        self._tick(now_s)
        prompts = [s for s in self.running if not s.prefilled]
        ready = [s for s in self.running if s.prefilled and not self._paused(s)]
        if not (prompts or ready):
            return Plan([], [])
        return self.policy.compose(ready, prompts, self._prefill_chunk_rows, now_s)

    def wakes_s(self) -> float | None:
        """When a resting sequence goes on by itself, the first of them; None where only others can bring work."""
        resting = [s for s in (*self.running, *self.parked) if s.resting and not self._reader_is_behind(s)]
        return min((self.policy.wakes_s(s) for s in resting), default=None)

    def prefilled(self, sequence: SequenceT, n_rows: int) -> None:
        """Take note of computed prompt rows and publish the blocks that they complete."""
        first = sequence.n_prefilled_rows // self.blocks.block_rows
        sequence.n_prefilled_rows += n_rows
        sequence.touched_s = self._now_s
        last = min(sequence.n_prefilled_rows // self.blocks.block_rows, len(sequence.prefix_keys))
        for i in range(first, last):
            self.blocks.publish(sequence.lease.blocks[i], sequence.prefix_keys[i])

    def decoded(self, batch: Sequence[SequenceT]) -> None:
        """Take note of a new row for each."""
        for sequence in batch:
            sequence.n_new_rows += 1

    def frame_made(self, sequence: SequenceT, now_s: float) -> float:
        """Take note of a frame on its way; returns for how many seconds its listener has waited in mid-turn."""
        late_s = sequence.clock.late_s(now_s) if sequence.n_frames else 0.0
        sequence.clock.add(self.frame_s, now_s)
        sequence.n_frames += 1
        sequence.unsent_frames += 1
        return late_s

    def remove(self, sequence: SequenceT, *, heard: bool = True) -> list[int]:
        """End a sequence in any state; its slot and blocks are free again. Returns the blocks nobody holds.

        ``heard`` False: what is in the listener's hand of it will not be played.
        """
        if not heard:
            sequence.clock.flush(sequence.n_frames * self.frame_s, self._now_s)
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            return []
        if sequence in self.parked:
            self.parked.remove(sequence)
        else:
            self.running.remove(sequence)
            self._free_slots.append(sequence.slot)
        sequence.slot = -1
        self.policy.ended(len(self.waiting), self._now_s)
        return self.blocks.release(sequence.lease.blocks)

    def _tick(self, now_s: float) -> None:
        self._now_s = max(now_s, self._now_s)
        rests = self.policy.rests
        for sequence in (*self.running, *self.parked):
            sequence.resting = sequence.prefilled and rests(sequence, self._now_s, in_company=False)
        if any(s.prefilled and not self._paused(s) for s in self.running):
            for sequence in self.running:
                sequence.resting = sequence.resting and rests(sequence, self._now_s, in_company=True)

    def _paused(self, sequence: SequenceT) -> bool:
        return sequence.resting or self._reader_is_behind(sequence)

    def _reader_is_behind(self, sequence: SequenceT) -> bool:
        return sequence.unsent_frames >= self._max_unsent_frames

    def _blocks_for(self, sequence: SequenceT) -> int:
        return self.blocks.blocks_for(sequence.n_prompt_rows + sequence.max_rows)

    def _resume(self, sequence: SequenceT, admission: Admission[SequenceT]) -> bool:
        if not self._make_room(self._lender(sequence, admission), admission):
            return False
        self.parked.remove(sequence)
        self._seat(sequence)
        admission.resumed.append(sequence)
        return True

    def _start(self, sequence: SequenceT, admission: Admission[SequenceT]) -> bool:
        lender = self._lender(sequence, admission)
        if lender is None and not self._free_slots:
            return False
        if not self.policy.admits(sequence, [*self.running, *self.parked], self._now_s):
            return False
        # At least the last prompt row is always computed: its hidden state gives the first new row.
        shareable = sequence.prefix_keys[: (sequence.n_prompt_rows - 1) // self.blocks.block_rows]
        # Before anyone is parked: nobody gives a slot up for one that then waits for memory.
        lease = self.blocks.acquire(shareable, self._blocks_for(sequence))
        if lease is None:
            return False
        self._make_room(lender, admission)
        self.waiting.remove(sequence)
        sequence.lease = lease
        sequence.n_prefilled_rows = lease.n_shared * self.blocks.block_rows
        self._seat(sequence)
        admission.started.append(sequence)
        return True

    def _seat(self, sequence: SequenceT) -> None:
        sequence.slot = self._free_slots.pop()
        self.running.append(sequence)

    def _lender(self, candidate: SequenceT, admission: Admission[SequenceT]) -> SequenceT | None:
        """Who could be parked for ``candidate`` where no slot is free: one that is paused, or that the policy names."""
        if self._free_slots:
            return None
        settled = [s for s in self.running if s not in admission.resumed and s not in admission.started]
        paused = next((s for s in settled if self._paused(s)), None)
        return paused or self.policy.gives_way(settled, candidate, self._now_s)

    def _make_room(self, lender: SequenceT | None, admission: Admission[SequenceT]) -> bool:
        """Whether a slot is free, after parking the lender if there is one."""
        if lender is not None:
            self.running.remove(lender)
            self._free_slots.append(lender.slot)
            self.parked.append(lender)
            admission.parked.append(lender)
        return bool(self._free_slots)
