"""The source without a model: the engine's contract towards its callers, and a recording as its voice."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from serving import AT_REST, raw

from streamer.audio import Packetizer
from streamer.engine import EngineConfig, EngineEvent, Finished, FrameReady, GenerationRequest, Refused, Started
from streamer.models import SamplingParams
from streamer.null_engine import NullConfig, NullEngine
from streamer.server import DialogueServer, ServerConfig
from streamer.speech import Speech, SpeechConfig

WAIT_S = 20.0
N_VQ = 4
CODES = np.arange(3 * N_VQ).reshape(3, N_VQ)
AUDIO = np.linspace(-0.5, 0.5, 3 * 1920, dtype=np.float32).reshape(3, 1920)


class Heard:
    """A sink that keeps what it was told."""

    def __init__(self) -> None:
        self._events: queue.Queue[EngineEvent] = queue.Queue()
        self.log: list[EngineEvent] = []

    def __call__(self, event: EngineEvent) -> None:
        self._events.put(event)

    def until_end(self) -> Finished:
        while not (self.log and isinstance(self.log[-1], Finished)):
            self.log.append(self._events.get(timeout=WAIT_S))
        assert isinstance(self.log[-1], Finished)
        return self.log[-1]

    def frames(self, n: int) -> list[FrameReady]:
        while len([e for e in self.log if isinstance(e, FrameReady)]) < n:
            self.log.append(self._events.get(timeout=WAIT_S))
        return [e for e in self.log if isinstance(e, FrameReady)]


def request(n_frames: int) -> GenerationRequest:
    rows = torch.zeros(2, 1 + N_VQ, dtype=torch.int64)
    return GenerationRequest(rows, SamplingParams(), seed=1, max_rows=n_frames + N_VQ)


@pytest.fixture
def engine() -> Iterator[NullEngine]:
    config = EngineConfig(max_sessions=2, max_unsent_frames=4)
    engine = NullEngine(CODES, AUDIO, config, NullConfig(burst_frames=50)).start()
    yield engine
    engine.stop()


def test_a_turn_is_the_recording_over_and_over_and_ends_with_its_last_frame(engine: NullEngine) -> None:
    heard = Heard()
    stream = engine.open_stream()
    generation = engine.submit(request(5), stream, heard)
    frames = heard.frames(4)
    engine.consumed(generation, 4)
    assert heard.until_end().reason == "end"
    frames = heard.frames(5)
    assert isinstance(heard.log[0], Started)
    assert [f.codes.tolist() for f in frames] == [CODES[i % 3].tolist() for i in range(5)]
    np.testing.assert_array_equal(np.concatenate([f.audio for f in frames]), np.tile(AUDIO, (2, 1))[:5].ravel())
    assert [f.last for f in frames] == [False] * 4 + [True]
    engine.close_stream(stream)
    assert engine.wait_idle(WAIT_S)
    assert engine.holdings() == AT_REST


def test_a_slow_reader_is_waited_for(engine: NullEngine) -> None:
    slow, other = Heard(), Heard()
    waiting = engine.submit(request(9), engine.open_stream(), slow)
    going_on = engine.submit(request(6), engine.open_stream(), other)
    other.frames(4)
    engine.consumed(going_on, 6)
    assert other.until_end().reason == "end"
    # The other began later and is done, so what the slow one may have without reading has come.
    slow.frames(4)
    assert slow._events.empty()
    engine.consumed(waiting, 1)
    assert len(slow.frames(5)) == 5
    engine.consumed(waiting, 9)
    assert slow.until_end().reason == "end"
    assert len(slow.frames(9)) == 9


def test_every_way_to_end_is_told_once_and_leaves_nothing(engine: NullEngine) -> None:
    first, second = Heard(), Heard()
    streams = [engine.open_stream(), engine.open_stream()]
    cancelled = engine.submit(request(1000), streams[0], first)
    engine.submit(request(1000), streams[1], second)
    first.frames(1)
    engine.cancel(cancelled)
    assert first.until_end().reason == "cancelled"
    engine.cancel(cancelled)
    second.frames(1)
    for stream in streams * 2:
        engine.close_stream(stream)
    assert second.until_end().reason == "cancelled"
    assert engine.wait_idle(WAIT_S)
    assert engine.holdings() == AT_REST
    assert first._events.empty()
    with pytest.raises(Refused, match="closed"):
        engine.submit(request(5), streams[0], first)


def test_a_sink_that_raises_ends_its_own_turn_only(engine: NullEngine) -> None:
    def broken(event: EngineEvent) -> None:
        raise ValueError("nobody there")

    heard = Heard()
    engine.submit(request(1000), engine.open_stream(), broken)
    engine.submit(request(3), engine.open_stream(), heard)
    assert heard.until_end().reason == "end"
    assert engine.wait_idle(WAIT_S)


def test_more_sessions_than_allowed_are_refused_and_a_stopped_engine_takes_nothing() -> None:
    engine = NullEngine(CODES, AUDIO, EngineConfig(max_sessions=1)).start()
    heard = Heard()
    stream = engine.open_stream()
    with pytest.raises(Refused, match="1 sessions") as full:
        engine.open_stream()
    assert (full.value.code, full.value.retry_after_ms) == ("overloaded", 1000)
    engine.submit(request(1000), stream, heard)
    heard.frames(1)
    engine.stop()
    assert heard.until_end().reason == "cancelled"
    for refused in (engine.open_stream, lambda: engine.submit(request(5), stream, heard)):
        with pytest.raises(Refused, match="stopping"):
            refused()


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ValueError, match="burst_frames is 0"):
        NullConfig(burst_frames=0)
    with pytest.raises(ValueError, match="3 frames of codes, 2 of audio"):
        NullEngine(CODES, AUDIO[:2], EngineConfig())


async def test_a_server_without_a_model_speaks_a_voices_recording() -> None:
    speech = await asyncio.to_thread(Speech.load, SpeechConfig(null=NullConfig(burst_frames=5)))
    speech.engine.start()
    try:
        async with DialogueServer(speech, ServerConfig(port=0, drain_s=0)) as server, raw(server) as client:
            await client.send("session.start", audio={"format": "pcm_s16le"})
            assert (await client.until("session.ready"))["model"] == "null"
            await client.send("turn.create", turn="x", speaker="S1", text="Hello there.")
            frames = await client.audio(5)
            voice = speech.voices.list()[0]
            recording = speech.codec.decode(voice.codes[:, : speech.model.config.n_vq]).numpy()
            expected = [Packetizer("pcm_s16le").push(a) for a in recording[: 5 * 1920].reshape(5, 1920)]
            assert [[f.payload] for f in frames] == expected
            await client.send("turn.cancel")
            assert (await client.until("turn.completed"))["reason"] == "cancelled"
        assert await asyncio.to_thread(speech.engine.wait_idle, WAIT_S)
        assert speech.engine.holdings() == AT_REST
    finally:
        await asyncio.to_thread(speech.close)
