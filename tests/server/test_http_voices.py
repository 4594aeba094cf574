"""Voices over HTTP: listing them, and a recording's way from an upload to a turn spoken with it."""

from __future__ import annotations

import asyncio
import io
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import soundfile
from server.http_serving import LIMITS, VOICES, HttpServer, becomes, http_running
from server.test_http_speech import WISH, connection

from streamer.engine import Engine, EngineConfig
from streamer.server.http import HttpSettings
from streamer.speech import Speech, SpeechConfig
from streamer.voices.store import VoiceStore

RECORDING = (VOICES / "joe.wav").read_bytes()
FIELDS = {"id": "ann", "transcript": "What is said in it.", "consent": "true"}


@pytest.fixture
def settings(tmp_path: Path) -> HttpSettings:
    return HttpSettings(limits=LIMITS, voices_store=tmp_path / "voices")


def form(recording: bytes | None = RECORDING, **changes: Any) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, value in (FIELDS | changes).items():
        if value is not None:
            data.add_field(name, value, content_type="text/plain")
    if recording is not None:
        data.add_field("file", recording, filename="../../joe.wav", content_type="audio/wav")
    return data


async def upload(server: HttpServer, **changes: Any) -> dict[str, Any]:
    async with server.client.post(server.url + "/v1/voices", data=form(**changes)) as answer:
        assert answer.status == 201, await answer.text()
        voice: dict[str, Any] = await answer.json()
        assert answer.headers["Location"] == f"/v1/voices/{voice['id']}"
        return voice


async def ids(server: HttpServer) -> list[str]:
    async with server.client.get(server.url + "/v1/voices") as answer:
        assert answer.status == 200
        return [voice["id"] for voice in (await answer.json())["data"]]


def kept(settings: HttpSettings) -> list[str]:
    """What lies in the folder of codes."""
    assert settings.voices_store is not None
    return sorted(path.name for path in (settings.voices_store / "codes").iterdir())


async def test_an_uploaded_voice_speaks_survives_a_restart_and_can_be_removed(settings: HttpSettings) -> None:
    before = time.time()
    async with http_running(settings) as server:
        made = await upload(server, language="de", description="calm", name="Joe Example")
        assert made == {
            "id": "ann",
            "language": "de",
            "licence": "",
            "origin": "Joe Example",
            "description": "calm",
            "transcript": "What is said in it.",
            "seconds": made["seconds"],
            "removable": True,
        }
        info = soundfile.info(io.BytesIO(RECORDING))
        assert 0 <= made["seconds"] - info.duration < 0.09
        assert await ids(server) == ["one", "two", "ann"]
        async with server.client.get(server.url + "/v1/voices/ann") as answer:
            assert await answer.json() == made
        assert settings.voices_store is not None
        consent = VoiceStore(settings.voices_store).consent("ann")
        assert consent is not None
        assert consent.given_by == "the-key"
        assert before <= consent.given_at_s <= time.time()
        codes = server.speech.voices.get("ann").codes
    async with http_running(settings) as server:
        assert await ids(server) == ["one", "two", "ann"]
        assert server.speech.voices.get("ann").codes.equal(codes)
        async with server.client.delete(server.url + "/v1/voices/ann") as answer:
            assert answer.status == 204
        assert await ids(server) == ["one", "two"]
        assert kept(settings) == []
        error = await server.error("GET", "/v1/voices/ann", 404)
        assert (error["code"], error["param"]) == ("unknown_voice", "id")
        await server.error("DELETE", "/v1/voices/ann", 404)
        error = await server.error("POST", "/v1/audio/speech", 400, json=WISH | {"voice": "ann"})
        assert error["code"] == "unknown_voice"
        await upload(server)


async def test_a_voice_made_with_another_codec_is_left_out_and_can_be_removed(
    settings: HttpSettings, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings.voices_store is not None
    async with http_running(settings) as server:
        await upload(server)
        assert server.speech.voices.get("ann").codec == server.speech.codec.fingerprint != ""
    with closing(sqlite3.connect(settings.voices_store / "voices.sqlite3")) as index, index:
        index.execute("UPDATE voices SET codec = 'another'")
    async with http_running(settings) as server:
        assert await ids(server) == ["one", "two"]
        assert "voice ann: made with another codec" in caplog.text
        async with server.client.delete(server.url + "/v1/voices/ann") as answer:
            assert answer.status == 204
        await upload(server)


async def test_an_uploaded_voice_is_heard(settings: HttpSettings) -> None:
    # The random model knows fewer codes than its codec has, so this takes the embedded ones.
    speech = await asyncio.to_thread(Speech.load, SpeechConfig(engine=EngineConfig(max_sessions=2, max_batch=2)))
    assert isinstance(speech.engine, Engine)
    speech.engine.start()
    async with http_running(settings, speech) as server:
        await upload(server)
        takes = []
        for voice in ("heart", "ann", "ann"):
            wish = WISH | {"voice": voice, "input": "Hi.", "response_format": "pcm"}
            async with server.client.post(server.url + "/v1/audio/speech", json=wish) as answer:
                assert answer.status == 200
                takes.append(await answer.read())
        assert takes[1] == takes[2]
        assert takes[0] != takes[1]


async def test_the_servers_own_voices_stay(settings: HttpSettings) -> None:
    async with http_running(settings) as server:
        async with server.client.get(server.url + "/v1/voices/one") as answer:
            assert not (await answer.json())["removable"]
        error = await server.error("DELETE", "/v1/voices/one", 403)
        assert error["code"] == "voice_not_removable"
        assert await ids(server) == ["one", "two"]


def encoded(samples: np.ndarray, rate: int = 24_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


def wrong_uploads() -> Iterator[tuple[aiohttp.FormData, int, str, str | None]]:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 6 * 8000)
    yield form(consent=None), 400, "invalid_message", "consent"
    yield form(consent="false"), 400, "invalid_message", "consent"
    yield form(consent="yes"), 400, "invalid_message", "consent"
    yield form(id=None), 400, "bad_voice_id", "id"
    yield form(id="../ann"), 400, "bad_voice_id", "id"
    yield form(id="Ann"), 400, "bad_voice_id", "id"
    yield form(id="ann\n"), 400, "bad_voice_id", "id"
    yield form(id="alloy"), 400, "bad_voice_id", "id"
    yield form(id="one"), 409, "voice_exists", "id"
    yield form(transcript=None), 400, "invalid_message", "transcript"
    yield form(transcript="..."), 400, "no_speech", "transcript"
    yield form(transcript="a" * 3000), 400, "invalid_message", "transcript"
    yield form(transcript="a" * 70_000), 413, "message_too_large", "transcript"
    yield form(language="English!"), 400, "invalid_message", "language"
    yield form(colour="blue"), 400, "invalid_message", "colour"
    yield form(None), 400, "invalid_message", "file"
    yield form(b""), 400, "bad_recording", "file"
    yield form(b"not a recording"), 400, "bad_recording", "file"
    yield form(encoded(noise[:4000], 8000)), 400, "bad_recording", "file"
    yield form(encoded(noise, 8000)), 400, "bad_recording", "file"
    yield form(encoded(np.zeros(48_000))), 400, "bad_recording", "file"
    yield form(bytes(500_000)), 413, "message_too_large", "file"
    twice = form()
    twice.add_field("file", RECORDING, filename="b.wav")
    yield twice, 400, "invalid_message", "file"
    twice = form()
    twice.add_field("id", "bob")
    yield twice, 400, "invalid_message", "id"


async def test_a_wrong_upload_is_named_and_leaves_nothing(settings: HttpSettings) -> None:
    async with http_running(settings) as server:
        for number, (data, status, code, param) in enumerate(wrong_uploads()):
            error = await server.error("POST", "/v1/voices", status, data=data)
            assert (error["code"], error["param"]) == (code, param), (number, error)
        assert await ids(server) == ["one", "two"]
        assert kept(settings) == []
        await upload(server)


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"Content-Type": "application/json"}, b"{}", 415, "not_multipart"),
        ({"Content-Type": "multipart/mixed; boundary=x"}, b"--x--", 415, "not_multipart"),
        ({"Content-Type": "multipart/form-data"}, b"--x--", 400, "invalid_message"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"no boundary at all", 400, "invalid_message"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"", 400, "invalid_message"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n\r\nv\r\n--x--\r\n", 400, "invalid_message"),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b'--x\r\nContent-Disposition: form-data; name="id"\r\n\r\n\xff\r\n--x--\r\n',
            400,
            "invalid_message",
        ),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b'--x\r\nContent-Disposition: form-data; name="id"\r\n'
            b"Content-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\n\r\n--y--\r\n--x--\r\n",
            400,
            "invalid_message",
        ),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b'--x\r\nContent-Disposition: form-data; name="id"\r\n\r\nhalf',
            400,
            "invalid_message",
        ),
    ],
)
async def test_a_body_that_is_no_form_is_refused(
    settings: HttpSettings, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    async with http_running(settings) as server:
        error = await server.error("POST", "/v1/voices", status, data=body, headers=headers)
        assert error["code"] == code


async def test_an_upload_that_stops_half_way_leaves_nothing(settings: HttpSettings) -> None:
    async with http_running(replace(settings, upload_timeout_s=0.1, max_uploads=1)) as server:
        head = (
            f"POST /v1/voices HTTP/1.1\r\nHost: x\r\nContent-Length: {len(RECORDING)}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            'Content-Disposition: form-data; name="file"\r\n\r\n'
        ).encode()
        async with connection(server) as (reader, writer):
            writer.write(head + RECORDING[:2000])
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        async with connection(server) as (_, writer):
            writer.write(head + RECORDING[:2000])
            await writer.drain()
        await becomes(lambda: server.refused[-1:] == ["request_timeout"])
        assert kept(settings) == []


async def test_only_so_many_recordings_are_taken_in_at_once(settings: HttpSettings) -> None:
    async with http_running(replace(settings, max_uploads=2)) as server:
        statuses: list[int] = []

        async def one(number: int) -> None:
            async with server.client.post(server.url + "/v1/voices", data=form(id=f"v{number}")) as answer:
                statuses.append(answer.status)
                if answer.status == 503:
                    assert (await answer.json())["error"]["code"] == "overloaded"
                    assert answer.headers["Retry-After"] == "2"

        await asyncio.gather(*(one(number) for number in range(4)))
        assert sorted(statuses) == [201, 201, 503, 503]
        await upload(server)
        assert len(kept(settings)) == 3


async def test_of_two_uploads_of_one_id_one_wins(settings: HttpSettings) -> None:
    async with http_running(settings) as server:
        statuses = []

        async def one() -> None:
            async with server.client.post(server.url + "/v1/voices", data=form()) as answer:
                statuses.append(answer.status)

        await asyncio.gather(one(), one())
        assert sorted(statuses) == [201, 409]
        assert len(kept(settings)) == 1


async def test_a_server_without_a_folder_and_one_that_stops_take_no_uploads(settings: HttpSettings) -> None:
    async with http_running() as server:
        error = await server.error("POST", "/v1/voices", 501, data=form())
        assert error["code"] == "no_voice_store"
        await server.error("DELETE", "/v1/voices/one", 501)
        assert await ids(server) == ["one", "two"]
    async with http_running(settings) as server:
        server.draining = True
        error = await server.error("POST", "/v1/voices", 503, data=form())
        assert error["code"] == "shutting_down"


async def test_an_upload_changes_nobodys_default_voice(settings: HttpSettings) -> None:
    async with http_running(settings) as server:
        before = server.speech.default_voices()
        await upload(server)
        assert server.speech.default_voices() == before


async def test_a_full_disk_is_said_and_the_server_goes_on(
    settings: HttpSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        index = connect(*arguments, **options)
        index.execute("PRAGMA max_page_count = 1")
        return index

    async with http_running(settings) as server:
        before = await ids(server)
        with monkeypatch.context() as patch:
            # SQLite takes its size at that moment for the most it may have; the first upload finds room in it.
            patch.setattr(sqlite3, "connect", small)
            await upload(server, id="first", transcript="long " * 390)
            error = await server.error("POST", "/v1/voices", 507, data=form(transcript="long " * 390))
        assert (error["code"], error["type"]) == ("storage_full", "server_error")
        assert await ids(server) == [*before, "first"]
        assert len(kept(settings)) == 1
        await upload(server)
