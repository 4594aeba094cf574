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
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from streamer.audio import Packetizer
from streamer.bridge import packetize
from streamer.dialogue import FRAME_MS, Dialogue, Spoken, Truncated, TurnOptions
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
from streamer.listener import Listener, ListenerGone, Packet, TurnReport
from streamer.reading import Said
from streamer.speech import Speech
from streamer.text import Turn
from streamer.turn_job import TurnJob, TurnName

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_NO_AUDIO: npt.NDArray[np.float32] = np.empty(0, np.float32)
_OPTIONS = TurnOptions()
_NO_SPEECH = "the turn was committed without a letter or digit, so there is nothing to say; send its text before that"


class Performance:
    """Speaks turns in the order of :meth:`add` and :meth:`open`, until :meth:`close`.

    All methods belong to one event loop.
    """

    def __init__(self, speech: Speech, dialogue: Dialogue, packetizer: Packetizer, listener: Listener) -> None:
        self._speech = speech
        self._dialogue = dialogue
        self._packetizer = packetizer
        self._listener = listener
        self._stream = speech.engine.open_stream()
        speech.encoders.add(packetizer)
        self._bridge = speech.bridge()
        self._jobs: deque[TurnJob] = deque()
        self._current: TurnJob | None = None
        self._being_written: dict[str, TurnJob] = {}
        self._n_turns = 0
        self._n_packets = 0
        self._free_since = 0.0
        self._work_in_hand: Future[Any] | None = None
        self._frame_in_hand: asyncio.Future[list[bytes]] | None = None
        self._wake = asyncio.Event()
        self._rest = asyncio.Event()
        self._rest.set()
        self._task = asyncio.create_task(self._run())

    def add(self, turn: str, turns: Sequence[Turn], options: TurnOptions = _OPTIONS) -> None:
        """Speak ``turns`` (more than one in script mode) under the id ``turn``, after those added before."""
        job = self._queue(turn, turns[0].speaker, options)
        job.append(turns)
        job.commit()

    def add_pass(self, names: Sequence[str], turns: Sequence[Turn], options: TurnOptions = _OPTIONS) -> None:
        """Speak ``turns`` in one pass, each under its own name; for a dialogue that follows words.

        To cancel one of them ends the pass.
        """
        job = self._queue(names[0], turns[0].speaker, options)
        for name, turn in zip(names[1:], turns[1:], strict=True):
            job.later.append(TurnName(name, self._n_turns, turn.speaker))
            self._n_turns += 1
        job.append(turns)
        job.commit()

    def open(self, turn: str, speaker: int, options: TurnOptions = _OPTIONS) -> None:
        """Give ``turn`` its place after those added before; its text comes by :meth:`append`, until :meth:`commit`.

        It is spoken as it comes. While it waits for text it holds nothing of the engine's, but the turns after it wait.
        """
        self._being_written[turn] = self._queue(turn, speaker, options)

    def append(self, turn: str, text: str) -> None:
        """The next piece of an opened turn's text, normalised. Comes to nothing when the turn is over or committed."""
        job = self._being_written.get(turn)
        if job is not None:
            job.append([Turn(job.speaker, text)])

    def commit(self, turn: str) -> None:
        """No more text of an opened turn comes. Without anything to say it fails as ``no_speech``."""
        job = self._being_written.pop(turn, None)
        if job is not None:
            job.commit()

    def played(self, played_ms: int) -> None:
        """The listener's report: how much of the dialogue's audio it has heard by now."""
        self._speech.engine.played(self._stream, played_ms)

    def cancel(self, turn: str | None, played_ms: int | None = None) -> list[Truncated]:
        """Stop one turn or (None) all; ``played_ms`` of the dialogue's audio is what the listener heard.

        Each stopped turn still gets its report, with no audio after it. The history keeps what was heard; without
        ``played_ms`` that is what was sent. Returns the turns that it keeps less of than before, also those completed.
        """
        engine = self._speech.engine
        if played_ms is not None:
            engine.played(self._stream, played_ms)
        current = [] if self._current is None else [self._current]
        for job in (*current, *self._jobs):
            if turn is None or job.speaks(turn):
                job.cancel()
                if job.generation is not None:
                    engine.cancel(job.generation)
        truncated = self._dialogue.keep_heard(played_ms, turn)
        # The end of the last turn is all that there was to be heard, too.
        if played_ms is not None and (turn is None or (truncated and self._dialogue.all_heard(played_ms))):
            engine.flushed(self._stream)
        return truncated

    @property
    def at_rest(self) -> bool:
        """Whether no turn is left to speak."""
        return self._rest.is_set()

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

    def _queue(self, turn: str, speaker: int, options: TurnOptions) -> TurnJob:
        job = TurnJob(turn, self._n_turns, speaker, options)
        self._jobs.append(job)
        self._n_turns += 1
        self._rest.clear()
        self._wake.set()
        return job

    async def _perform(self, job: TurnJob) -> None:
        reason = await self._speak(job)
        if reason in ("end", "max_length"):
            await self._send_rest(job)
        if job.cancelled and reason != "error":
            reason = "cancelled"
        if reason in ("cancelled", "error"):
            self._packetizer.discard()
        if self._being_written.get(job.turn) is job:
            del self._being_written[job.turn]
        await self._report(job, reason)
        while job.later:
            job.begin_next()
            await self._report(job, reason)

    async def _report(self, job: TurnJob, reason: FinishReason) -> None:
        audio_ms = job.n_frames * FRAME_MS
        rtf = job.generating_s * 1000 / audio_ms if audio_ms else None
        ttfa_ms = None if job.first_audio_at_s is None else (job.first_audio_at_s - job.ready_at_s) * 1000
        await self._listener.completed(TurnReport(job.turn, job.index, job.n_packets, audio_ms, ttfa_ms, rtf, reason))

    async def _speak(self, job: TurnJob) -> FinishReason:
        """Speak a turn's text, what there is of it at a time, until no more comes."""
        reason: FinishReason = "end"
        while turns := await job.next_text():
            if not self._dialogue.has_room(job.index):
                return "max_length"
            if not job.n_parts and job.text_at_s is not None:
                job.ready_at_s = max(job.text_at_s, self._free_since)
            job.n_parts += 1
            part = await self._speak_part(job, turns)
            if part in ("cancelled", "error"):
                return part
            reason = "max_length" if part == "max_length" else reason
        if job.cancelled:
            return "cancelled"
        if not job.n_parts:
            await self._listener.failed(job.turn, "no_speech", _NO_SPEECH, None)
            return "error"
        return reason

    async def _speak_part(self, job: TurnJob, turns: list[Turn]) -> FinishReason:
        spoken = job.spoken = self._dialogue.begin(job.turn, job.index, turns, job.options)
        begun_s = time.monotonic()
        reason: FinishReason = "error"
        try:
            request = await self._work(self._dialogue.draft(spoken))
            reason = "cancelled" if job.cancelled else await self._generate(job, request)
        except Refused as refusal:
            await self._listener.failed(job.turn, refusal.code, refusal.message, refusal.retry_after_ms)
        except ListenerGone:
            raise
        except Exception:
            # One turn fails, not the dialogue: the next may well succeed.
            _log.exception("turn %s failed", job.turn)
            await self._listener.failed(job.turn, "internal", "the server failed to speak this turn", None)
        job.generating_s += time.monotonic() - begun_s
        self._dialogue.end(job.spoken, whole=reason in ("end", "max_length"))
        return reason

    async def _generate(self, job: TurnJob, request: GenerationRequest) -> FinishReason:
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
                    if job.cancelled:
                        return "cancelled"
                    if event.error is not None:
                        await self._listener.failed(job.turn, "internal", event.error, None)
                    if event.reason in ("end", "max_length") and job.spoken.reading is not None:
                        await self._follow(job, job.spoken.reading.finish())
                    return event.reason
                if not job.cancelled:
                    await self._handle(job, generation, event)
        finally:
            if not finished:
                engine.cancel(generation)

    async def _handle(self, job: TurnJob, generation: Generation, event: EngineEvent) -> None:
        if isinstance(event, Queued):
            await self._listener.queued(job.turn, event.position)
        elif isinstance(event, Started):
            if not job.started:
                job.started = True
                await self._listener.started(job.turn, job.index, job.speaker, self._n_packets)
        elif isinstance(event, FrameReady):
            if event.text_row is not None and job.spoken.reading is not None:
                await self._follow(job, job.spoken.reading.push(event.text_row))
            job.flushed = event.last and job.is_last_part
            payloads = await self._payloads(event.audio, last=job.flushed)
            if job.cancelled:
                return
            job.spoken.frames.append(event.codes)
            job.n_frames += 1
            await self._send(job, job.spoken, payloads)
            self._speech.engine.consumed(generation, 1)

    async def _follow(self, job: TurnJob, said: Sequence[Said]) -> None:
        """Tell what was said, and go over to the next turn of a pass where one ends."""
        for step in said:
            if job.cancelled:
                return
            if step.words:
                before_ms = (job.n_frames - len(job.spoken.frames)) * FRAME_MS
                await self._listener.words(job.turn, [word.later(before_ms) for word in step.words])
            if step.over and not job.cancelled:
                await self._report(job, "end")
                job.spoken = self._dialogue.split(job.spoken, job.later[0].turn, job.later[0].index)
                job.begin_next()
                await self._listener.started(job.turn, job.index, job.speaker, self._n_packets)

    async def _send_rest(self, job: TurnJob) -> None:
        """End the sound of a turn whose last frame was not known to be its last."""
        if job.flushed or job.cancelled or not job.n_frames:
            return
        job.flushed = True
        spoken = self._dialogue.history[-1]
        await self._send(job, spoken, await self._payloads(_NO_AUDIO, last=True))

    async def _send(self, job: TurnJob, spoken: Spoken, payloads: list[bytes]) -> None:
        for i, payload in enumerate(payloads):
            if job.cancelled:
                return
            packet = Packet(payload, job.index, self._n_packets, job.flushed and i == len(payloads) - 1)
            # Counted before the wait: a frame number is taken even if the wait is broken off.
            self._n_packets += 1
            job.n_packets += 1
            spoken.sent_ms += self._packetizer.frame_ms
            await self._listener.audio(packet)
            if job.first_audio_at_s is None:
                job.first_audio_at_s = time.monotonic()

    async def _payloads(self, audio: npt.NDArray[np.float32], *, last: bool) -> list[bytes]:
        if self._packetizer.light:
            # Less work than handing it to a thread and back.
            return packetize(self._packetizer, audio, last=last)
        # Shielded: whoever closes the encoder waits until no thread uses it any more.
        self._frame_in_hand = self._bridge.encode(self._packetizer, audio, last=last)
        return await asyncio.shield(self._frame_in_hand)

    def _sink(self, job: TurnJob) -> Callable[[EngineEvent], None]:
        post, put = self._bridge.post, job.put
        return lambda event: post(put, event)

    async def _work(self, function: Callable[[], _T]) -> _T:
        work = self._work_in_hand = self._speech.workers.submit(function)
        return await asyncio.wrap_future(work)
