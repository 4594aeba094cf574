"""What HTTP requests for speech are refused for: each mistake has a status, a code and the field's name."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from server.http_serving import LIMITS, HttpServer, becomes, http_running
from server.test_http_speech import SMALL, connection, raw_request, until
from serving import GREEDY, WAIT_S

from streamer.server.http import HttpSettings

WISH: dict[str, Any] = {"model": "any", "input": "Hello there.", "voice": "one", "seed": 3, "sampling": GREEDY}
WRONG: list[tuple[dict[str, Any], str, str | None, str]] = [
    ({"model": None}, "invalid_message", "model", "str"),
    ({"model": 5}, "invalid_message", "model", "int"),
    ({"input": ""}, "invalid_message", "input", "length"),
    ({"input": ["Hello"]}, "invalid_message", "input", "array"),
    ({"input": "?! …"}, "no_speech", "input", "letter"),
    ({"input": "[S1] Hi. [S6] Ho."}, "too_many_speakers", "input", "[S6]"),
    ({"input": "a" * 301}, "text_too_long", "input", "max_text_chars"),
    ({"input": "[S1]a[S2]b[S3]c[S4]d"}, "too_many_speakers", "input", "max_speakers"),
    ({"input": "[S1]a[S2]b[S1]a[S2]b[S1]a"}, "queue_full", "input", "max_queued_turns"),
    ({"voice": None}, "invalid_message", "voice", "null"),
    ({"voice": 3}, "invalid_message", "voice", "int"),
    ({"voice": ""}, "invalid_message", "voice", "length"),
    ({"voice": {}}, "invalid_message", "voice", "S1"),
    ({"voice": {"id": "one", "S2": "two"}}, "invalid_message", "voice", "S1"),
    ({"voice": {"S6": "one"}}, "invalid_message", "voice", "S6"),
    ({"voice": {"S1": 1}}, "invalid_message", "voice", "int"),
    ({"voice": "nobody"}, "unknown_voice", "voice", "nobody"),
    ({"voice": {"S2": "nobody"}}, "unknown_voice", "voice.S2", "nobody"),
    ({"voice": {"id": "nobody"}}, "unknown_voice", "voice.id", "nobody"),
    ({"response_format": "mp3"}, "not_supported", "response_format", "opus, wav, pcm or flac"),
    ({"response_format": "aac"}, "not_supported", "response_format", "opus, wav, pcm or flac"),
    ({"response_format": 1}, "invalid_message", "response_format", "int"),
    ({"stream_format": "ws"}, "not_supported", "stream_format", "audio or sse"),
    ({"speed": 1.5}, "not_supported", "speed", "own speed"),
    ({"speed": "fast"}, "invalid_message", "speed", "str"),
    ({"instructions": "whisper"}, "not_supported", "instructions", "instructions"),
    ({"seed": -1}, "invalid_message", "seed", "0"),
    ({"language": "english please"}, "invalid_message", "language", "regex"),
    ({"sampling": {"volume": 2}}, "invalid_message", "sampling.volume", "volume"),
    ({"sampling": {"audio_top_p": 2}}, "invalid_message", "sampling.audio_top_p", "1"),
    ({"sampling": {"audio_repetition_penalty": 0.01}}, "invalid_message", "sampling", "penalty"),
]


async def test_a_wrong_field_is_named() -> None:
    async with http_running() as server:
        for changes, code, param, names in WRONG:
            error = await server.error("POST", "/v1/audio/speech", 400, json=WISH | changes)
            found = (error["code"], error["param"], error["type"])
            assert found == (code, param, "invalid_request_error"), (changes, error)
            assert names in error["message"], (changes, error)
        assert server.refused == [code for _, code, _, _ in WRONG]
        await assert_speaks(server)


@pytest.mark.parametrize("field", ["model", "input", "voice"])
async def test_a_missing_field_is_named(field: str) -> None:
    async with http_running() as server:
        wish = {key: value for key, value in WISH.items() if key != field}
        error = await server.error("POST", "/v1/audio/speech", 400, json=wish)
        assert (error["code"], error["param"]) == ("invalid_message", field)


async def assert_speaks(server: HttpServer, **changes: Any) -> None:
    async with server.client.post(server.url + "/v1/audio/speech", json=WISH | changes) as answer:
        assert answer.status == 200, await answer.text()
        assert (await answer.read()).startswith(b"OggS")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b"[" * 4000, 400, "invalid_message"),
        (b'{"model":' + b"[" * 4000, 400, "invalid_message"),
        (b"[]", 400, "invalid_message"),
        (b"{}", 400, "invalid_message"),
        (b'{"model":"m","voice":"one","input":"\\ud800"}', 400, "invalid_json"),
        (b'{"model":"' + b"m" * 5000 + b'"}', 413, "message_too_large"),
    ],
)
async def test_a_body_that_is_no_request_is_refused(body: bytes, status: int, code: str) -> None:
    async with http_running() as server:
        error = await server.error("POST", "/v1/audio/speech", status, data=body)
        assert error["code"] == code
        await assert_speaks(server)


async def test_what_openai_has_and_this_server_has_not_is_no_matter_where_it_asks_for_nothing() -> None:
    async with http_running() as server:
        await assert_speaks(server, speed=1, instructions=" ", user="me", stream_format="audio", language="en")
        await assert_speaks(server, speed=None, instructions=None, seed=None, sampling=None, language=None)


async def test_a_long_value_is_not_repeated_whole() -> None:
    async with http_running() as server:
        error = await server.error("POST", "/v1/audio/speech", 400, json=WISH | {"stream_format": "x" * 3000})
        assert len(error["message"]) < 500


async def test_a_server_that_stops_takes_nothing_new_and_finishes_what_runs() -> None:
    async with http_running(SMALL, max_unsent_frames=2) as server, connection(server) as (reader, writer):
        writer.write(raw_request(response_format="pcm"))
        await asyncio.wait_for(reader.readline(), WAIT_S)
        server.draining = True
        error = await server.error("POST", "/v1/audio/speech", 503, json=WISH)
        assert (error["code"], error["type"]) == ("shutting_down", "server_error")
        async with server.client.post(server.url + "/v1/audio/speech", json=WISH) as answer:
            assert int(answer.headers["Retry-After"]) > 0
        idle = asyncio.create_task(server.service.wait_idle())
        assert server.service.n_speaking == 1
        assert not idle.done()
        await until(reader, b"\r\n0\r\n\r\n")
        await asyncio.wait_for(idle, WAIT_S)


async def test_an_engine_that_is_stopped_breaks_the_speech_off() -> None:
    async with http_running(SMALL, max_unsent_frames=2) as server, connection(server) as (reader, writer):
        writer.write(raw_request(response_format="pcm", input="Hello there, how are you today?"))
        await asyncio.wait_for(reader.readline(), WAIT_S)
        await asyncio.to_thread(server.speech.engine.stop)
        body = await asyncio.wait_for(reader.read(), WAIT_S)
        assert not body.endswith(b"0\r\n\r\n")
        error = await server.error("POST", "/v1/audio/speech", 503, json=WISH)
        assert error["code"] == "shutting_down"


async def test_a_full_server_says_when_to_come_back() -> None:
    async with http_running(SMALL, max_sessions=1, max_unsent_frames=2) as server:
        async with connection(server) as (reader, writer):
            writer.write(raw_request(response_format="pcm"))
            await asyncio.wait_for(reader.readline(), WAIT_S)
            async with server.client.post(server.url + "/v1/audio/speech", json=WISH) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
                assert (await answer.json())["error"]["code"] == "overloaded"
        await becomes(lambda: server.service.n_speaking == 0)
        await assert_speaks(server)


async def test_a_key_has_so_many_sessions_and_no_more() -> None:
    async with http_running(SMALL, max_unsent_frames=2) as server:
        server.max_sessions = 1
        async with connection(server) as (reader, writer):
            writer.write(raw_request(response_format="pcm"))
            await asyncio.wait_for(reader.readline(), WAIT_S)
            error = await server.error("POST", "/v1/audio/speech", 429, json=WISH)
            assert (error["code"], error["type"]) == ("rate_limited", "rate_limit_error")
        await becomes(lambda: server.sessions == 0)
        await assert_speaks(server)


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    settings = replace(HttpSettings(limits=LIMITS), body_timeout_s=0.05)
    async with http_running(settings) as server, connection(server) as (reader, writer):
        writer.write(raw_request()[:-5])
        answer = await until(reader, b"}}")
        assert answer.startswith(b"HTTP/1.1 408")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing() -> None:
    async with http_running() as server:
        async with connection(server) as (_, writer):
            writer.write(raw_request()[:-5])
            await writer.drain()
        await assert_speaks(server)
        assert not server.refused
