"""Speaking one dialogue: its turns one after another, each from prompt to packets, on an event loop.

The loop itself never computes: prompts and packets are made by worker threads, everything else by the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from streamer.audio import Packetizer
from streamer.bridge import packetize
from streamer.dialogue import FRAME_MS, Dialogue, Spoken
from streamer.engine import (
    EngineEvent,
    Finished,
    FinishReason,
    FrameReady,
    Generation,
    GenerationRequest,
    Queued,
    Refused,
    Started,
)
from streamer.speech import Speech
from streamer.text import Turn

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


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
    """How a turn went. ``ttfa_ms`` counts from when it could begin: its text was there, the turn before it made."""

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

    async def completed(self, report: TurnReport) -> None:
        """No audio of this turn follows."""

    async def failed(self, turn: str, code: str, message: str, retry_after_ms: int | None) -> None:
        """Why a turn ends with reason ``error``; comes before its report."""

    async def idle(self) -> None:
        """Every turn so far is completed."""

    async def broken(self) -> None:
        """The performance has ended by a fault of its own and speaks no more."""


@dataclass(slots=True, eq=False)
class _Job:
    turn: str
    index: int
    turns: list[Turn]
    ready_at: float
    cancelled: bool = False
    generation: Generation | None = None
    n_packets: int = 0
    n_frames: int = 0
    first_audio_at: float | None = None
    events: deque[EngineEvent] = field(default_factory=deque)
    reader: asyncio.Future[None] | None = None

    def put(self, event: EngineEvent) -> None:
        """Take what the engine said, and wake who waits for it."""
        self.events.append(event)
        if self.reader is not None and not self.reader.done():
            self.reader.set_result(None)

    async def next_event(self) -> EngineEvent:
        """The oldest event not yet read."""
        if not self.events:
            self.reader = asyncio.get_running_loop().create_future()
            await self.reader
        return self.events.popleft()


class Performance:
    """Speaks the turns given to :meth:`add` in order until :meth:`close`. All methods belong to one event loop."""

    def __init__(self, speech: Speech, dialogue: Dialogue, packetizer: Packetizer, listener: Listener) -> None:
        self._speech = speech
        self._dialogue = dialogue
        self._packetizer = packetizer
        self._listener = listener
        self._stream = speech.engine.open_stream()
        speech.encoders.add(packetizer)
        self._bridge = speech.bridge()
        self._jobs: deque[_Job] = deque()
        self._current: _Job | None = None
        self._n_turns = 0
        self._n_packets = 0
        self._free_since = 0.0
        self._work_in_hand: Future[Any] | None = None
        self._frame_in_hand: asyncio.Future[list[bytes]] | None = None
        self._wake = asyncio.Event()
        self._rest = asyncio.Event()
        self._rest.set()
        self._task = asyncio.create_task(self._run())

    def add(self, turn: str, turns: Sequence[Turn]) -> None:
        """Speak ``turns`` (more than one in script mode) under the id ``turn``, after those added before."""
        self._jobs.append(_Job(turn, self._n_turns, list(turns), time.monotonic()))
        self._n_turns += 1
        self._rest.clear()
        self._wake.set()

    def cancel(self, turn: str | None, played_ms: int | None = None) -> None:
        """Stop one turn or (None) all; ``played_ms`` of the dialogue's audio is what the listener heard.

        Each stopped turn still gets its report, with no audio after it. The history keeps what was heard; without
        ``played_ms`` that is what was sent.
        """
        current = [] if self._current is None else [self._current]
        for job in (*current, *self._jobs):
            if turn is None or job.turn == turn:
                job.cancelled = True
                if job.generation is not None:
                    self._speech.engine.cancel(job.generation)
        if played_ms is not None:
            self._dialogue.keep_heard(played_ms, turn)
            if turn is None:
                self._speech.engine.flushed(self._stream)

    async def wait_idle(self) -> None:
        """Return when no turn is left to speak."""
        await self._rest.wait()

    async def close(self) -> None:
        """Stop speaking and give everything back. Turns not completed get no report. Twice does no harm."""
        self._task.cancel()
        try:
            await asyncio.wait([self._task])
            if self._work_in_hand is not None and not self._work_in_hand.cancel():
                # An encoder must not be closed under the hands of a worker; what became of the work no longer matters.
                with contextlib.suppress(Exception):
                    await asyncio.wrap_future(self._work_in_hand)
            if self._frame_in_hand is not None:
                await asyncio.wait([self._frame_in_hand])
        finally:
            self._speech.engine.close_stream(self._stream)
            if self._packetizer in self._speech.encoders:
                self._speech.encoders.remove(self._packetizer)
                self._packetizer.close()
            self._rest.set()

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._jobs:
                    job = self._current = self._jobs.popleft()
                    job.ready_at = max(job.ready_at, self._free_since)
                    await self._perform(job)
                    self._current = None
                    self._free_since = time.monotonic()
                self._rest.set()
                await self._listener.idle()
        except ListenerGone:
            pass
        except Exception:
            _log.exception("a dialogue can't go on")
            with contextlib.suppress(ListenerGone):
                await self._listener.broken()
        finally:
            self._rest.set()

    async def _perform(self, job: _Job) -> None:
        reason: FinishReason = "cancelled"
        rtf: float | None = None
        if not job.cancelled:
            spoken = self._dialogue.begin(job.turn, job.index, job.turns)
            begun = time.monotonic()
            try:
                request = await self._work(lambda: self._dialogue.request(spoken))
                reason = await self._generate(job, spoken, request)
            except Refused as refusal:
                reason = "error"
                await self._listener.failed(job.turn, refusal.code, refusal.message, refusal.retry_after_ms)
            except ListenerGone:
                raise
            except Exception:
                # One turn fails, not the dialogue: the next may well succeed.
                _log.exception("turn %s failed", job.turn)
                reason = "error"
                await self._listener.failed(job.turn, "internal", "the server failed to speak this turn", None)
            if job.n_frames:
                rtf = (time.monotonic() - begun) * 1000 / (job.n_frames * FRAME_MS)
            whole = reason in ("end", "max_length")
            self._dialogue.end(spoken, whole=whole)
            if not whole:
                self._packetizer.discard()
        ttfa_ms = None if job.first_audio_at is None else (job.first_audio_at - job.ready_at) * 1000
        audio_ms = job.n_frames * FRAME_MS
        await self._listener.completed(TurnReport(job.turn, job.index, job.n_packets, audio_ms, ttfa_ms, rtf, reason))

    async def _generate(self, job: _Job, spoken: Spoken, request: GenerationRequest) -> FinishReason:
        """Run one request through the engine; returns when it is over, whatever way."""
        engine = self._speech.engine
        generation = await self._work(lambda: engine.submit(request, self._stream, self._sink(job)))
        job.generation = generation
        finished = False
        try:
            if job.cancelled:
                engine.cancel(generation)
            while True:
                event = await job.next_event()
                if isinstance(event, Finished):
                    finished = True
                    if event.error is not None:
                        await self._listener.failed(job.turn, "internal", event.error, None)
                    return "cancelled" if job.cancelled else event.reason
                if not job.cancelled:
                    await self._handle(job, spoken, generation, event)
        finally:
            if not finished:
                engine.cancel(generation)

    async def _handle(self, job: _Job, spoken: Spoken, generation: Generation, event: EngineEvent) -> None:
        if isinstance(event, Queued):
            await self._listener.queued(job.turn, event.position)
        elif isinstance(event, Started):
            await self._listener.started(job.turn, job.index, job.turns[0].speaker, self._n_packets)
        elif isinstance(event, FrameReady):
            payloads = await self._payloads(event)
            if job.cancelled:
                return
            spoken.frames.append(event.codes)
            spoken.sent_ms += len(payloads) * self._packetizer.frame_ms
            job.n_frames += 1
            for i, payload in enumerate(payloads):
                await self._send(job, payload, last=event.last and i == len(payloads) - 1)
            self._speech.engine.consumed(generation, 1)

    async def _send(self, job: _Job, payload: bytes, *, last: bool) -> None:
        packet = Packet(payload, job.index, self._n_packets, last)
        # Counted before the wait: a frame number is taken even if the wait is broken off.
        self._n_packets += 1
        job.n_packets += 1
        await self._listener.audio(packet)
        if job.first_audio_at is None:
            job.first_audio_at = time.monotonic()

    async def _payloads(self, event: FrameReady) -> list[bytes]:
        if self._packetizer.light:
            # Less work than handing it to a thread and back.
            return packetize(self._packetizer, event.audio, last=event.last)
        # Shielded: whoever closes the encoder waits until no thread uses it any more.
        self._frame_in_hand = self._bridge.encode(self._packetizer, event.audio, last=event.last)
        return await asyncio.shield(self._frame_in_hand)

    def _sink(self, job: _Job) -> Callable[[EngineEvent], None]:
        post, put = self._bridge.post, job.put
        return lambda event: post(put, event)

    async def _work(self, function: Callable[[], _T]) -> _T:
        work = self._work_in_hand = self._speech.workers.submit(function)
        return await asyncio.wrap_future(work)
