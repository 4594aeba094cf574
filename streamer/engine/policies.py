"""Who goes first: the choices that the scheduler leaves open, and the simplest way to make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streamer.engine.sequence import Plan, ScheduledSequence, SequenceT


class Policy(Protocol):
    """Pure decisions over what the scheduler knows, at a time in seconds that it is told."""

    def refusal(self, sequence: ScheduledSequence, n_waiting: int) -> int | None:
        """None to take a new sequence into the queue, or milliseconds after which to ask again."""

    def order(self, waiting: Sequence[SequenceT], parked: Sequence[SequenceT], now_s: float) -> list[SequenceT]:
        """Those who want a slot, most pressing first."""

    def admits(self, sequence: ScheduledSequence, live: Sequence[ScheduledSequence], now_s: float) -> bool:
        """Whether a waiting sequence may join those that live, running or parked."""

    def gives_way(self, running: Sequence[SequenceT], to: ScheduledSequence, now_s: float) -> SequenceT | None:
        """Who of the running may lend its slot to ``to``, none being paused."""

    def rests(self, sequence: ScheduledSequence, now_s: float, *, in_company: bool) -> bool:
        """Whether a sequence is far enough ahead of its listener to pause; ``in_company``: others decode anyway."""

    def wakes_s(self, sequence: ScheduledSequence) -> float:
        """When a resting sequence goes on by itself."""

    def compose(
        self, ready: Sequence[SequenceT], prompts: Sequence[SequenceT], piece_rows: int, now_s: float
    ) -> Plan[SequenceT]:
        """The next step, made of ``ready`` sequences to decode and ``prompts`` to prefill, both in order of arrival."""

    def ended(self, n_waiting: int, now_s: float) -> None:
        """A sequence that had been admitted is over."""


class FirstCome:
    """First come, first served: everyone decodes in every step, a piece of the oldest prompt goes between the rows.

    As fast as possible and blind to listeners: for making files, and as what :class:`Deadlines` is measured against.
    """

    def refusal(self, sequence: ScheduledSequence, n_waiting: int) -> int | None:
        """Never refuses."""
        return None

    def order(self, waiting: Sequence[SequenceT], parked: Sequence[SequenceT], now_s: float) -> list[SequenceT]:
        """Parked ones, then those that wait, oldest first."""
        return [*parked, *waiting]

    def admits(self, sequence: ScheduledSequence, live: Sequence[ScheduledSequence], now_s: float) -> bool:
        """Slots and blocks are the only limit."""
        return True

    def gives_way(self, running: Sequence[SequenceT], to: ScheduledSequence, now_s: float) -> SequenceT | None:
        """Nobody does."""
        return None

    def rests(self, sequence: ScheduledSequence, now_s: float, *, in_company: bool) -> bool:
        """Nobody does."""
        return False

    def wakes_s(self, sequence: ScheduledSequence) -> float:
        """Nobody rests."""
        raise ValueError("no sequence rests under this policy")

    def compose(
        self, ready: Sequence[SequenceT], prompts: Sequence[SequenceT], piece_rows: int, now_s: float
    ) -> Plan[SequenceT]:
        """One piece of the oldest prompt, one row for everyone."""
        pieces = [(prompts[0], next(prompts[0].pieces(piece_rows)))] if prompts else []
        return Plan(pieces, list(ready))

    def ended(self, n_waiting: int, now_s: float) -> None:
        """Nothing is learned from it."""
