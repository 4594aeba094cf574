"""What the LiveKit tests share: the plugin in front of a real server, and what it should sound like."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from clients.broken_wires import FAST, GREEDY
from livekit import rtc
from livekit.agents import APIConnectOptions, tts
from livekit.agents.voice import io
from serving import assert_at_rest

from streamer.engine import EngineConfig
from streamer.server import DialogueServer, ServerConfig
from streamer.speech import Speech, SpeechConfig
from streamer_client import Audio, AudioFormat, connect
from streamer_client.livekit import TTS

PCM = AudioFormat(format="pcm_s16le")
QUICK = APIConnectOptions(max_retry=20, retry_interval=0.05, timeout=10.0)


@contextlib.asynccontextmanager
async def plugin(url: str, **options: Any) -> AsyncIterator[TTS]:
    """The plugin, greedy and seeded, so that the same texts sound the same."""
    given = {"voice": "one", "seed": 1, "sampling": GREEDY, "settings": FAST, **options}
    speaker = TTS(url, **given)
    try:
        yield speaker
    finally:
        await speaker.aclose()


@contextlib.asynccontextmanager
async def embedded() -> AsyncIterator[DialogueServer]:
    """A server with the embedded model, which speaks as fast as it can."""
    speech = Speech.load(SpeechConfig(engine=EngineConfig(max_sessions=4, max_lead_s=None)))
    speech.engine.start()
    try:
        async with DialogueServer(speech, ServerConfig(port=0)) as server:
            yield server
        await assert_at_rest(server)
    finally:
        await asyncio.to_thread(speech.close)


async def stream_text(speaker: tts.TTS, *pieces: str, options: APIConnectOptions = QUICK) -> list[tts.SynthesizedAudio]:
    """All frames of one stream that is given these pieces at once."""
    async with speaker.stream(conn_options=options) as stream:
        for piece in pieces:
            stream.push_text(piece)
        stream.end_input()
        return [audio async for audio in stream]


async def spoken(server: DialogueServer, *texts: str) -> list[bytes]:
    """The PCM of these texts, a turn each, by our own client."""

    async def one(text: str) -> AsyncIterator[str]:
        yield text

    heard = []
    async with connect(server.url, voices={"S1": "one"}, audio=PCM, sampling=GREEDY, seed=1) as dialogue:
        for text in texts:
            events = [event async for event in dialogue.say_stream("S1", one(text))]
            heard.append(b"".join(event.payload for event in events if isinstance(event, Audio)))
    return heard


def pcm(frames: list[rtc.AudioFrame]) -> bytes:
    """The samples of frames, each of which must be whole: mono, 24 kHz, as long as it says."""
    for frame in frames:
        assert (frame.sample_rate, frame.num_channels) == (24_000, 1)
        assert len(np.frombuffer(frame.data, np.int16)) == frame.samples_per_channel > 0
    return b"".join(bytes(frame.data) for frame in frames)


def sound(audio: list[tts.SynthesizedAudio]) -> bytes:
    """The samples of one stream, whose last frame alone must be marked as the last."""
    assert [a.is_final for a in audio] == [False] * (len(audio) - 1) + [True]
    return pcm([a.frame for a in audio])


def errors_of(speaker: tts.TTS) -> list[tts.TTSError]:
    """The errors that the plugin tells the framework of, from now on."""
    told: list[tts.TTSError] = []
    speaker.on("error", told.append)
    return told


def assert_same_sound(ours: bytes, expected: bytes) -> None:
    """Sample for sample, but for rounding: the codec computes in batches, whose shapes differ."""
    a, b = (np.frombuffer(samples, np.int16).astype(np.int32) for samples in (ours, expected))
    assert len(a) == len(b)
    assert np.abs(a - b).max() <= 4


class Loudspeaker(io.AudioOutput):
    """The end of the framework's chain: keeps what it is given, a list a segment, and plays it in no time.

    With `slow` it plays on until it is stopped, and has then played `heard_s`.
    """

    def __init__(self, *, slow: bool = False, heard_s: float = 0.0) -> None:
        super().__init__(label="Loudspeaker", capabilities=io.AudioOutputCapabilities(pause=False), sample_rate=24_000)
        self.segments: list[list[rtc.AudioFrame]] = []
        self.slow = slow
        self._heard_s = heard_s
        self._complete = True
        self._playing = False
        self._changed = asyncio.Condition()

    @property
    def given_s(self) -> float:
        """How much audio the newest segment has."""
        return sum(frame.duration for frame in self.segments[-1]) if self.segments else 0.0

    async def given(self, seconds: float) -> None:
        """Return when the newest segment has so much audio."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.given_s >= seconds)

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if self._complete:
            self.segments.append([])
            self.on_playback_started(created_at=time.time())
        self._complete, self._playing = False, True
        self.segments[-1].append(frame)
        async with self._changed:
            self._changed.notify_all()

    def flush(self) -> None:
        super().flush()
        self._complete = True
        if not self.slow:
            self._stop(self.given_s, interrupted=False)

    def clear_buffer(self) -> None:
        self._stop(self._heard_s, interrupted=True)

    def _stop(self, played_s: float, *, interrupted: bool) -> None:
        if self._playing:
            self._playing = False
            self.on_playback_finished(playback_position=played_s, interrupted=interrupted)
