"""A real server on loopback around the small random model, with every generated row on record."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import websockets
from support import GOLDEN, load_codec, load_golden, load_model
from websockets.asyncio.client import ClientConnection as Socket

from streamer.engine import (
    CodecStreamHandle,
    Engine,
    EngineConfig,
    EngineEvent,
    Finished,
    Generation,
    GenerationRequest,
    Holdings,
    Sink,
)
from streamer.models import load_tokenizer
from streamer.server import DialogueServer, ServerConfig
from streamer.speech import Speech, SpeechConfig
from streamer.voices import Voice, VoiceRegistry
from streamer_protocol import AudioFrame, Limits

WAIT_S = 20.0
# For text that comes in pieces: a short pause on the wire starts speech.
BRIEF_PAUSE = {"live_text_pause_s": 0.05}
AT_REST = Holdings(slots=0, blocks=0, waiting=0, streams=0, stream_places=0)
LIMITS = Limits(max_text_chars=300, max_contexts=3, max_queued_turns=4, max_turn_audio_ms=2400)
GREEDY = {"audio_temperature": 0, "text_temperature": 0}


class RecordingEngine(Engine):
    """The engine, keeping what it was asked and what rows it made, by the request's seed."""

    requests: list[GenerationRequest]
    rows: dict[int, np.ndarray]

    def submit(self, request: GenerationRequest, stream: CodecStreamHandle, sink: Sink) -> Generation:
        self.requests.append(request)

        def record(event: EngineEvent) -> None:
            if isinstance(event, Finished):
                self.rows[request.seed] = event.rows
            sink(event)

        return super().submit(request, stream, record)


def new_speech(**sizes: Any) -> Speech:
    """The small model ready to speak; its engine runs."""
    config = SpeechConfig(engine=EngineConfig(**{"max_sessions": 12, "max_batch": 8, **sizes}), history_seconds=20)
    arrays = load_golden("delay-nvq4").arrays
    voices = VoiceRegistry(
        Voice(name, arrays[key], "transcript", "random", "CC0-1.0")
        for name, key in (("one", "reference_1"), ("two", "reference_2"))
    )
    model = load_model("delay-nvq4")
    speech = Speech(config, model, load_tokenizer(GOLDEN / "delay-nvq4" / "model"), load_codec(), voices)
    speech.engine = engine = RecordingEngine(model, speech.codec, config.engine)
    engine.requests, engine.rows = [], {}
    engine.start()
    return speech


@contextlib.asynccontextmanager
async def running(
    limits: Limits = LIMITS,
    drain_s: float = 5.0,
    send_buffer_bytes: int = 32 * 2**10,
    replay_bytes: int = 2**20,
    settings: dict[str, Any] | None = None,
    **sizes: Any,
) -> AsyncIterator[DialogueServer]:
    """A server on a free port; on exit nothing may be held any more.

    ``settings``: more of the ServerConfig. Unless they say otherwise, no pause on the wire starts speech: on a busy
    machine there is one anywhere.
    """
    speech = new_speech(**sizes)
    config = ServerConfig(
        port=0,
        limits=limits,
        drain_s=drain_s,
        send_buffer_bytes=send_buffer_bytes,
        replay_bytes=replay_bytes,
        **{"live_text_pause_s": 3600.0, **(settings or {})},
    )
    try:
        async with DialogueServer(speech, config) as server:
            yield server
        await assert_at_rest(server)
    finally:
        await asyncio.to_thread(speech.close)


async def assert_at_rest(server: DialogueServer) -> None:
    """No slot, block, codec stream or encoder is held."""
    engine = server.state.speech.engine
    assert await asyncio.to_thread(engine.wait_idle, WAIT_S)
    assert engine.holdings() == AT_REST
    assert not server.state.speech.encoders
    assert engine.failure is None


class RawClient:
    """A WebSocket that speaks JSON and nothing more: what any client could do, right or wrong."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.log: list[dict[str, Any] | AudioFrame] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def receive(self) -> dict[str, Any] | AudioFrame:
        data = await asyncio.wait_for(self.socket.recv(), WAIT_S)
        message = AudioFrame.unpack(data) if isinstance(data, bytes) else json.loads(data)
        self.log.append(message)
        return message

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next message of this type and with these fields; what comes before it goes to the log."""
        while True:
            message = await self.receive()
            wanted = {"type": kind, **fields}
            if isinstance(message, dict) and wanted.items() <= {k: message.get(k) for k in wanted}.items():
                return message

    async def spoken(self, turn: str) -> dict[str, Any]:
        """The report of a turn that was spoken to its end, be it the model's own or the limit's."""
        report = await self.until("turn.completed", turn=turn)
        assert report["reason"] in ("end", "max_length"), report
        return report

    async def audio(self, n: int) -> list[AudioFrame]:
        """The next ``n`` audio frames."""
        frames: list[AudioFrame] = []
        while len(frames) < n:
            message = await self.receive()
            if isinstance(message, AudioFrame):
                frames.append(message)
        return frames

    @property
    def frames(self) -> list[AudioFrame]:
        return [m for m in self.log if isinstance(m, AudioFrame)]

    @property
    def types(self) -> list[str]:
        """The story so far: message types, each run of audio as one entry."""
        story: list[str] = []
        for m in self.log:
            kind = "audio" if isinstance(m, AudioFrame) else m["type"]
            if kind != "audio" or story[-1:] != ["audio"]:
                story.append(kind)
        return story

    def pcm(self, turn_index: int | None = None) -> np.ndarray:
        """All PCM received so far, or one turn's, as float32."""
        frames = [f for f in self.frames if turn_index is None or f.turn_index == turn_index]
        return np.frombuffer(b"".join(f.payload for f in frames), "<i2").astype(np.float32) / 32768


@contextlib.asynccontextmanager
async def raw(server: DialogueServer) -> AsyncIterator[RawClient]:
    async with websockets.connect(server.url, subprotocols=[websockets.Subprotocol("dialogue.v1")]) as socket:
        yield RawClient(socket)


@contextlib.asynccontextmanager
async def started(server: DialogueServer, **start: Any) -> AsyncIterator[RawClient]:
    """A raw client whose session is ready: PCM, greedy and seeded unless said otherwise."""
    async with raw(server) as client:
        fields = {"audio": {"format": "pcm_s16le"}, "sampling": GREEDY, "seed": 1, **start}
        await client.send("session.start", **fields)
        await client.until("session.ready")
        yield client


def recorded(server: DialogueServer) -> RecordingEngine:
    engine = server.state.speech.engine
    assert isinstance(engine, RecordingEngine)
    return engine
