"""Pipecat pipelines around the TTS service: a transport that plays one chunk after another, and frames on record."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Pipecat's imports, and its dependencies'
    pytest.importorskip("pipecat", reason="Pipecat is not installed (extra `pipecat`)")
    from pipecat.clocks.base_clock import BaseClock
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        ErrorFrame,
        Frame,
        LLMFullResponseEndFrame,
        LLMFullResponseStartFrame,
        LLMTextFrame,
        OutputAudioRawFrame,
        StartFrame,
        TTSAudioRawFrame,
        TTSStartedFrame,
        TTSStoppedFrame,
    )
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.processors.aggregators.llm_context import LLMContext
    from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.services.tts_service import TTSService
    from pipecat.transports.base_output import BaseOutputTransport
    from pipecat.transports.base_transport import TransportParams
    from pipecat.workers.runner import WorkerRunner

from serving import WAIT_S

FrameKind = TypeVar("FrameKind", bound=Frame)
CHUNK_MS = 40


class SoundClock(BaseClock):
    """Time is what has been played."""

    def __init__(self) -> None:
        self.ns = 0

    def get_time(self) -> int:
        return self.ns

    def start(self) -> None:
        self.ns = 0


class Tap(FrameProcessor):
    """Keeps what passes, and lets tests wait for it."""

    def __init__(self) -> None:
        super().__init__(enable_direct_mode=True)
        self.down: list[Frame] = []
        self.up: list[Frame] = []
        self._changed = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        (self.down if direction is FrameDirection.DOWNSTREAM else self.up).append(frame)
        self._changed.set()
        await self.push_frame(frame, direction)

    def of(self, kind: type[FrameKind], context_id: str | None = None) -> list[FrameKind]:
        return [f for f in self.down if isinstance(f, kind) and context_id in (None, getattr(f, "context_id", None))]

    @property
    def errors(self) -> list[ErrorFrame]:
        return [frame for frame in self.up if isinstance(frame, ErrorFrame)]

    async def until(self, true: Callable[[], Any]) -> None:
        """Return when something holds that frames make true."""

        async def wait() -> None:
            while not true():
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(wait(), WAIT_S)


class Loudspeaker(BaseOutputTransport):
    """Plays as many chunks as it is allowed to; the clock goes on with them."""

    def __init__(self, clock: SoundClock, allowed_chunks: int | None = None) -> None:
        params = TransportParams(audio_out_enabled=True, audio_out_end_silence_secs=0, audio_out_write_timeout_secs=60)
        super().__init__(params)
        self.played = bytearray()
        self._clock_of_sound = clock
        self._allowed = asyncio.Semaphore(10**6 if allowed_chunks is None else allowed_chunks)

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        await self._allowed.acquire()
        self.played += frame.audio
        self._clock_of_sound.ns += round(frame.num_frames / frame.sample_rate * 1e9)
        return True

    def allow(self, n_chunks: int) -> None:
        for _ in range(n_chunks):
            self._allowed.release()


def reply_frames(*pieces: str) -> list[Frame]:
    """An LLM's answer, token by token."""
    return [LLMFullResponseStartFrame(), *map(LLMTextFrame, pieces), LLMFullResponseEndFrame()]


class Call:
    """A running pipeline: service, loudspeaker, the assistant's half of an LLM context."""

    def __init__(
        self, tts: TTSService, *, allowed_chunks: int | None = None, params: PipelineParams | None = None
    ) -> None:
        self.tts = tts
        self.clock = SoundClock()
        self.before, self.spoken, self.heard = Tap(), Tap(), Tap()
        self.speaker = Loudspeaker(self.clock, allowed_chunks)
        self.context = LLMContext()
        assistant = LLMContextAggregatorPair(self.context).assistant()
        pipeline = Pipeline([self.before, tts, self.spoken, self.speaker, self.heard, assistant])
        self.worker = PipelineWorker(
            pipeline,
            clock=self.clock,
            params=params or PipelineParams(enable_metrics=True, enable_usage_metrics=True),
            idle_timeout_secs=None,
            enable_rtvi=False,
        )

    async def say(self, *frames: Frame) -> None:
        await self.worker.queue_frames(list(frames))

    async def reply(self, *pieces: str) -> None:
        """What an LLM answers, piece by piece."""
        await self.say(*reply_frames(*pieces))

    async def stopped(self, n: int) -> None:
        """Return when so many turns have been handed to the transport in full."""
        await self.spoken.until(lambda: len(self.spoken.of(TTSStoppedFrame)) >= n)

    async def heard_out(self, n: int) -> None:
        """Return when so many replies have been heard, words and all: the words' clock may lag behind the sound's."""
        await self.heard.until(lambda: len(self.heard.of(LLMFullResponseEndFrame)) >= n)

    @property
    def contexts(self) -> list[str]:
        """The audio contexts that were begun, in order."""
        return [frame.context_id or "" for frame in self.spoken.of(TTSStartedFrame)]

    def audio(self, context_id: str | None = None) -> bytes:
        return b"".join(frame.audio for frame in self.spoken.of(TTSAudioRawFrame, context_id))

    @property
    def assistant_messages(self) -> list[Any]:
        return [m["content"] for m in self.context.get_messages() if isinstance(m, dict) and m["role"] == "assistant"]


@contextlib.asynccontextmanager
async def calling(tts: TTSService, **options: Any) -> AsyncIterator[Call]:
    """A call whose pipeline has started; on exit it is ended, what was said is spoken first."""
    call = Call(tts, **options)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(call.worker)
    running = asyncio.create_task(runner.run())
    try:
        await call.heard.until(lambda: call.heard.of(StartFrame))
        yield call
        call.speaker.allow(10**6)
        await call.say(EndFrame())
        await asyncio.wait_for(asyncio.shield(running), WAIT_S)
        assert call.heard.of(EndFrame)
    finally:
        if not running.done():
            await call.worker.queue_frame(CancelFrame())
            await asyncio.wait_for(running, WAIT_S)
