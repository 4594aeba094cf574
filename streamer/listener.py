"""Who hears a performance, and what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streamer.engine import FinishReason
from streamer.word_times import WordTime


class ListenerGone(Exception):
    """A listener raises this when nobody hears it any more; the performance then ends quietly."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One audio packet; ``frame`` counts through the whole dialogue, ``last`` marks the end of its turn."""

    payload: bytes
    turn_index: int
    frame: int
    last: bool


@dataclass(frozen=True, slots=True)
class TurnReport:
    """How a turn went.

    ``ttfa_ms`` counts from when it could begin: its first text was there, the turn before it made. ``rtf`` is the time
    spent generating, not waiting for text, by the length of the audio.
    """

    turn: str
    index: int
    frames: int
    audio_ms: int
    ttfa_ms: float | None
    rtf: float | None
    reason: FinishReason


class Listener(Protocol):
    """Who hears a performance. A call that waits holds up this dialogue and no other."""

    async def queued(self, turn: str, position: int) -> None:
        """The turn waits for the engine."""

    async def started(self, turn: str, index: int, speaker: int, first_frame: int) -> None:
        """Audio of this turn follows."""

    async def audio(self, packet: Packet) -> None:
        """The next packet."""

    async def words(self, turn: str, words: Sequence[WordTime]) -> None:
        """Words of a turn that have been said; times count from its first frame."""

    async def completed(self, report: TurnReport) -> None:
        """No audio of this turn follows."""

    async def failed(self, turn: str, code: str, message: str, retry_after_ms: int | None) -> None:
        """Why a turn ends with reason ``error``; comes before its report."""

    async def idle(self) -> None:
        """Every turn so far is completed."""

    async def broken(self) -> None:
        """The performance has ended by a fault of its own and speaks no more."""
