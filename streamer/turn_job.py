"""One turn on its way through a performance: the text that waits to be spoken, and what the engine says of it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from streamer.dialogue import Spoken, TurnOptions
from streamer.engine import EngineEvent, Generation
from streamer.text import Turn, is_speakable, merge_neighbours


@dataclass(frozen=True, slots=True)
class TurnName:
    """What a turn is called, its number in the dialogue, and who says it."""

    turn: str
    index: int
    speaker: int


@dataclass(slots=True, eq=False)
class TurnJob:
    """Its text is spoken in parts, each all that waits at the time. All methods belong to one event loop.

    Turns that are spoken in one pass are one job: ``later`` are those whose time has not come, and :meth:`begin_next`
    makes it the next one's. ``text_at_s``: when there first was something to say. ``flushed``: its last packet is on
    its way or sent.
    """

    turn: str
    index: int
    speaker: int
    options: TurnOptions
    later: deque[TurnName] = field(default_factory=deque)
    committed: bool = False
    cancelled: bool = False
    started: bool = False
    flushed: bool = False
    generation: Generation | None = None
    n_parts: int = 0
    n_packets: int = 0
    n_frames: int = 0
    generating_s: float = 0.0
    text_at_s: float | None = None
    ready_at_s: float = 0.0
    first_audio_at_s: float | None = None
    # The entry of the history that is being generated; there is one whenever the engine works for this job.
    spoken: Spoken = field(init=False)
    _waiting: list[Turn] = field(default_factory=list)
    _text: asyncio.Event = field(default_factory=asyncio.Event)
    _events: deque[EngineEvent] = field(default_factory=deque)
    _reader: asyncio.Future[None] | None = None

    def speaks(self, turn: str) -> bool:
        """Whether this is the job of ``turn``."""
        return self.turn == turn or any(name.turn == turn for name in self.later)

    def begin_next(self) -> None:
        """The turn is over, and the next of the same pass begins."""
        name = self.later.popleft()
        self.turn, self.index, self.speaker = name.turn, name.index, name.speaker
        self.n_packets = self.n_frames = 0
        self.generating_s = 0.0
        self.ready_at_s, self.first_audio_at_s = time.monotonic(), None

    def append(self, turns: Sequence[Turn]) -> None:
        """More to say. What holds no letter or digit waits for the next that does."""
        self._waiting += turns
        if self.text_at_s is None and self.has_text:
            self.text_at_s = time.monotonic()
        self._text.set()

    def commit(self) -> None:
        """No more text comes."""
        self.committed = True
        self._text.set()

    def cancel(self) -> None:
        """Nothing more is to be said."""
        self.cancelled = True
        self._text.set()

    @property
    def has_text(self) -> bool:
        """Whether something waits to be said."""
        return any(is_speakable(turn.text) for turn in self._waiting)

    @property
    def is_last_part(self) -> bool:
        """Whether it is known by now that nothing is said after what is being said."""
        return self.committed and not self.has_text

    async def next_text(self) -> list[Turn]:
        """All that waits, as soon as there is anything; nothing when the turn is at its end or cancelled."""
        while not (self.cancelled or self.committed or self.has_text):
            self._text.clear()
            await self._text.wait()
        if self.cancelled or not self.has_text:
            return []
        waiting, self._waiting = self._waiting, []
        return merge_neighbours(waiting)

    def put(self, event: EngineEvent) -> None:
        """Take what the engine said, and wake who waits for it."""
        self._events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def next_event(self) -> EngineEvent:
        """The oldest event not yet read."""
        if not self._events:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._events.popleft()
