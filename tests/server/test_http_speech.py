"""Speech over HTTP: the formats, the streaming, and who speaks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import io
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from server.http_serving import LIMITS, HttpServer, assert_given_back, becomes, http_running
from serving import GREEDY, WAIT_S, RecordingEngine
from support import decode_with_ffmpeg, load_codec

from streamer.server.http import HttpSettings
from streamer.server.http.containers import Flac
from streamer_protocol import Limits

SCRIPT = "[S1] Hello there. [S2] Hi, how are you? [S1] Very well."
WISH: dict[str, Any] = {"model": "any", "input": SCRIPT, "voice": "one", "seed": 3, "sampling": GREEDY}
RATE = 24_000
# A reader that takes little is soon felt.
SMALL = HttpSettings(limits=LIMITS, send_buffer_bytes=1024)


def engine_of(server: HttpServer) -> RecordingEngine:
    assert isinstance(server.speech.engine, RecordingEngine)
    return server.speech.engine


async def spoken(server: HttpServer, **changes: Any) -> bytes:
    async with server.client.post(server.url + "/v1/audio/speech", json=WISH | changes) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.read()


def as_samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768


def assert_same(samples: np.ndarray, others: np.ndarray) -> None:
    """Equal but for the rounding of a batch of another size."""
    np.testing.assert_allclose(samples, others, atol=1e-4)


def events_of(body: bytes) -> list[dict[str, Any]]:
    parts = body.decode().split("\n\n")
    assert parts.pop() == ""
    return [json.loads(part.removeprefix("data: ")) for part in parts]


async def test_each_format_is_the_same_speech_for_a_decoder_that_is_not_ours() -> None:
    async with http_running() as server:
        plain = as_samples(await spoken(server, response_format="pcm"))
        assert len(plain) == sum(report.audio_ms for report in server.reports) * RATE // 1000
        assert np.abs(plain).max() > 0.01
        wav = await spoken(server, response_format="wav")
        assert struct.unpack("<I", wav[40:44]) == (0xFFFFFFFF,)
        for data in (wav, await spoken(server, response_format="flac")):
            assert_same(decode_with_ffmpeg(data, RATE), plain)
        # Opus is the format of who asks for none.
        for changes in ({}, {"response_format": "opus"}, {"response_format": None}):
            decoded = decode_with_ffmpeg(await spoken(server, **changes), RATE)
            assert abs(len(decoded) - len(plain)) <= 312
            n = min(len(decoded), len(plain))
            assert np.corrcoef(decoded[:n], plain[:n])[0, 1] > 0.6
        assert server.sent_bytes > 0


async def test_the_openai_sdk_streams_every_format() -> None:
    async with http_running() as server:
        plain = as_samples(await spoken(server, response_format="pcm"))
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="any", max_retries=0) as client:
            for name, of_wire in (
                ("opus", "audio/ogg"),
                ("wav", "audio/wav"),
                ("pcm", "audio/pcm"),
                ("flac", "audio/flac"),
            ):
                async with client.audio.speech.with_streaming_response.create(
                    model="tts-1",
                    input=SCRIPT,
                    voice="one",
                    response_format=name,  # type: ignore[arg-type]
                    extra_body={"seed": 3, "sampling": GREEDY},
                ) as answer:
                    assert answer.headers["content-type"].startswith(of_wire)
                    assert answer.headers["transfer-encoding"] == "chunked"
                    chunks = [chunk async for chunk in answer.iter_bytes()]
                assert len(chunks) > 1
                data = b"".join(chunks)
                samples = as_samples(data) if name == "pcm" else decode_with_ffmpeg(data, RATE)
                assert abs(len(samples) - len(plain)) <= 312
                if name != "opus":
                    assert_same(samples, plain)


async def test_the_openai_sdk_reads_events_and_errors() -> None:
    async with http_running() as server:
        plain = await spoken(server, response_format="pcm")
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="any", max_retries=0) as client:
            async with client.audio.speech.with_streaming_response.create(
                model="gpt-4o-mini-tts",
                input=SCRIPT,
                voice="one",
                response_format="pcm",
                stream_format="sse",
                extra_body={"seed": 3, "sampling": GREEDY},
            ) as answer:
                assert answer.headers["content-type"] == "text/event-stream"
                events = events_of(await answer.read())
            assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
            pcm = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
            assert_same(as_samples(pcm), as_samples(plain))
            usage = events[-1]["usage"]
            assert events[-1] == {"type": "speech.audio.done", "usage": usage}
            assert usage["output_tokens"] == len(plain) // 3840
            assert usage["input_tokens"] > 0
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
            with pytest.raises(openai.BadRequestError) as refused:
                await client.audio.speech.create(model="tts-1", input="Hello.", voice="one", response_format="mp3")
            assert (refused.value.code, refused.value.param) == ("not_supported", "response_format")


async def test_the_audio_is_what_the_engine_made() -> None:
    async with http_running() as server:
        pcm = as_samples(await spoken(server, response_format="pcm"))
        engine = engine_of(server)
        assert len(engine.requests) == 3
        from server.test_server_dialogue import frames_of

        frames = [frames_of(engine.rows[request.seed]) for request in engine.requests]
        whole = load_codec().decode(np.concatenate([f.numpy() for f in frames])).numpy()
        np.testing.assert_allclose(pcm, whole.clip(-1, 1), atol=1e-4)


async def test_the_first_audio_leaves_while_the_rest_is_not_yet_made() -> None:
    script = "[S1] Hello there, how are you? [S2] Well, thank you, and yourself? [S1] Well too. [S2] Good to hear."
    async with http_running(SMALL, max_unsent_frames=2) as server, connection(server) as (reader, writer):
        writer.write(raw_request(input=script))
        assert (await asyncio.wait_for(reader.readline(), WAIT_S)).startswith(b"HTTP/1.1 200")
        # Others are served while the rest of it waits for its reader.
        others = [await spoken(server, input=script) for _ in range(3)]
        assert len(server.reports) < 16
        await until(reader, b"\r\n0\r\n\r\n")
        assert len(server.reports) == 16
        # Otherwise all of it could lie on the way.
        assert len(others[0]) > 25_000


def test_flac_is_what_the_library_writes_but_for_the_numbers_not_known_yet() -> None:
    pcm = np.random.default_rng(1).integers(-3000, 3000, 20_000).astype("<i2")
    container = Flac()
    pieces = [container.push(pcm[i : i + 1920].tobytes()) for i in range(0, len(pcm), 1920)]
    streamed = b"".join(pieces) + container.close()
    assert container.close() == b""
    file = io.BytesIO()
    soundfile.write(file, pcm, RATE, "PCM_16", format="FLAC")
    whole = file.getvalue()
    # STREAMINFO lies in the first 42 bytes: its frame sizes, length and checksum are 0 for unknown.
    assert streamed[42:] == whole[42:]
    assert streamed[21] & 15 == 0
    assert not any(streamed[22:42])
    assert sum(map(bool, pieces)) >= 4


@contextlib.asynccontextmanager
async def connection(
    server: HttpServer, room_bytes: int = 4096
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection with so little room on the way that the server feels it at once when nobody reads."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_bytes)
    narrow.connect(("127.0.0.1", server.port))
    narrow.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=narrow, limit=room_bytes)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    """All that comes, up to and with ``end``."""
    data = b""
    while not data.endswith(end):
        piece = await asyncio.wait_for(reader.read(2**16), WAIT_S)
        assert piece, data[-200:]
        data += piece
    return data


def raw_request(version: str = "1.1", **changes: Any) -> bytes:
    body = json.dumps(WISH | changes).encode()
    head = f"POST /v1/audio/speech HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_a_client_that_leaves_stops_the_generation() -> None:
    async with http_running(SMALL, max_unsent_frames=2) as server:
        async with connection(server) as (reader, writer):
            writer.write(raw_request(response_format="pcm"))
            await asyncio.wait_for(reader.readline(), WAIT_S)
        await assert_given_back(server)
        assert len(engine_of(server).requests) < 3


async def test_a_client_that_leaves_while_it_waits_is_not_spoken_to() -> None:
    async with http_running() as server:
        engine, gate = engine_of(server), threading.Event()
        with engine._wake:
            # The engine's thread does nothing until it is let through.
            engine._command(functools.partial(_wait, gate))
        try:
            async with connection(server) as (_, writer):
                writer.write(raw_request())
                await becomes(lambda: len(engine.requests) == 1)
            await becomes(lambda: server.service.n_speaking == 0)
        finally:
            gate.set()
        await assert_given_back(server)
        assert len(engine.requests) == 1
        assert not server.sent_bytes


def _wait(gate: threading.Event) -> None:
    gate.wait(WAIT_S)


async def test_a_reader_that_takes_nothing_counts_as_gone() -> None:
    settings = replace(SMALL, stall_timeout_s=0.2)
    async with http_running(settings, max_unsent_frames=2) as server, connection(server) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(raw_request(response_format="pcm", input="[S1] Hello there. [S2] Hi. [S1] Well. [S2] Yes."))
        await becomes(lambda: bool(engine_of(server).requests))
        await assert_given_back(server)
        assert len(engine_of(server).requests) < 4


@contextlib.contextmanager
def broken_model(server: HttpServer) -> Iterator[None]:
    """From the next row on, only NaN comes out of the model."""
    table = server.speech.model._audio_table
    sound = table.clone()
    table.fill_(np.nan)
    try:
        yield
    finally:
        table.copy_(sound)


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
async def test_a_failure_in_the_middle_breaks_the_connection_off(stream_format: str) -> None:
    async with http_running(SMALL, max_unsent_frames=2) as server, connection(server) as (reader, writer):
        writer.write(raw_request(response_format="pcm", stream_format=stream_format))
        await asyncio.wait_for(reader.readline(), WAIT_S)
        with broken_model(server):
            body = await asyncio.wait_for(reader.read(), WAIT_S)
        assert not body.endswith(b"0\r\n\r\n")
        assert (b'"type":"error"' in body) == (stream_format == "sse")
        await assert_given_back(server)


async def test_a_failure_before_the_first_audio_has_a_status() -> None:
    async with http_running() as server:
        with broken_model(server):
            error = await server.error("POST", "/v1/audio/speech", 500, json=WISH)
        assert (error["code"], error["type"]) == ("internal", "server_error")
        assert server.refused == ["internal"]
        assert len(await spoken(server)) > 0


async def test_http_1_0_gets_the_audio_without_chunks_and_a_reset_for_half_of_it() -> None:
    async with http_running(SMALL, max_unsent_frames=2) as server:
        plain = await spoken(server, response_format="pcm")
        async with connection(server) as (reader, writer):
            writer.write(raw_request("1.0", response_format="pcm"))
            head, _, body = (await asyncio.wait_for(reader.read(), WAIT_S)).partition(b"\r\n\r\n")
            assert b"chunked" not in head
            assert_same(as_samples(body), as_samples(plain))
        async with connection(server) as (reader, writer):
            writer.write(raw_request("1.0", response_format="pcm"))
            await asyncio.wait_for(reader.readline(), WAIT_S)
            with broken_model(server), pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(), WAIT_S)


def cast_of(server: HttpServer) -> list[str]:
    """Whose reference codes the newest prompt holds, in order."""
    column = engine_of(server).requests[-1].prompt_rows[:, 1].tolist()
    found = []
    for voice in server.speech.voices.list():
        codes = voice.codes[:, 0].tolist()
        found += [(i, voice.id) for i in range(len(column)) if column[i : i + len(codes)] == codes]
    return [name for _, name in sorted(found)]


@pytest.mark.parametrize(
    ("voice", "cast"),
    [
        ("two", ["two", "two"]),
        ({"id": "two"}, ["two", "two"]),
        ({"S1": "two", "S2": "one"}, ["two", "one"]),
        ({"S2": "one"}, ["one", "one"]),
        ("alloy", ["one", "two"]),
        ("ash", ["two", "two"]),
        ("ballad", ["one", "two"]),
        ({"S1": "ash", "S2": "alloy"}, ["two", "one"]),
    ],
)
async def test_whoever_is_named_speaks_and_the_others_have_voices_of_their_own(voice: Any, cast: list[str]) -> None:
    async with http_running() as server:
        await spoken(server, voice=voice, input="[S1] Hi. [S2] Ho.")
        assert cast_of(server) == cast


async def test_a_seed_makes_speech_repeatable_and_sampling_is_heard() -> None:
    async with http_running() as server:
        warm = {"audio_temperature": 0.9}
        takes = [
            await spoken(server, response_format="pcm", input="Hello there.", seed=seed, sampling=sampling)
            for seed, sampling in ((5, warm), (5, warm), (None, warm), (5, GREEDY))
        ]
    assert takes[0] == takes[1]
    assert takes[0] != takes[2]
    assert takes[0] != takes[3]


async def test_the_limits_of_the_settings_hold_for_a_turn() -> None:
    async with http_running(HttpSettings(limits=Limits(max_turn_audio_ms=400))) as server:
        pcm = await spoken(server, response_format="pcm", input="Hello there, how are you on this fine day?")
        assert 0 < len(pcm) <= 5 * 3840 + 4 * 3840
