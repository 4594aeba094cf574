"""Every limit that session.ready tells holds over a real socket, and costs nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import websockets
from msgspec.structs import replace
from server.http_serving import becomes, http_running
from server.test_http_voices import RECORDING, encoded, form
from serving import LIMITS, WAIT_S, RawClient, raw, running, started
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamer.server import DialogueServer
from streamer.server.http import HttpSettings
from streamer.server.keys import add_key
from streamer_protocol import Limits

TURN: dict[str, Any] = {"turn": "x", "speaker": "S1", "text": "Hello."}
Check = Callable[[Path], Awaitable[None]]
ENFORCED: dict[str, Check] = {}


def limit(name: str) -> Callable[[Check], Check]:
    """This is the check of the limit ``name``."""

    def keep(check: Check) -> Check:
        ENFORCED[name] = check
        return check

    return keep


@pytest.mark.parametrize("name", Limits.__struct_fields__)
async def test_a_limit_that_is_told_is_enforced(name: str, tmp_path: Path) -> None:
    await ENFORCED[name](tmp_path)


async def test_session_ready_tells_every_limit() -> None:
    limits = Limits(
        **{name: n for n, name in enumerate(Limits.__struct_fields__, start=60_000) if name != "max_speakers"}
    )
    async with running(limits) as server, started(server) as client:
        # Without keys, a caller may have all sessions of the engine.
        told = {**json.loads(json.dumps(client.log[0]))["limits"], "max_sessions_per_key": limits.max_sessions_per_key}
        assert told == {name: getattr(limits, name) for name in Limits.__struct_fields__}


@contextlib.asynccontextmanager
async def with_key(server: DialogueServer, credential: str | None, **options: Any) -> AsyncIterator[RawClient]:
    """A raw client that brings an API key, a token or nothing."""
    headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
    async with websockets.connect(server.url, additional_headers=headers, **options) as socket:
        yield RawClient(socket)


async def closed_with(client: RawClient) -> int:
    """The close code that the server sends, after whatever else it says."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await client.receive()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def refuses(client: RawClient, code: str, named: str, kind: str, **fields: Any) -> dict[str, Any]:
    await client.send(kind, **fields)
    error = await client.until("error")
    assert error["code"] == code, error
    assert named in error["message"], error
    return error


@limit("max_message_bytes")
async def _message_bytes(_: Path) -> None:
    async with running(replace(LIMITS, max_message_bytes=200)) as server, started(server) as client:
        await client.socket.send('{"type":"ping","id":"fits"}'.ljust(200))
        await client.until("pong", id="fits")
        await client.socket.send('{"type":"ping"}'.ljust(201))
        assert "max_message_bytes (200)" in (await client.until("error", code="message_too_large"))["message"]
        assert await closed_with(client) == 1009


@limit("max_text_chars")
async def _text_chars(_: Path) -> None:
    async with running(replace(LIMITS, max_text_chars=20)) as server, started(server) as client:
        await refuses(client, "text_too_long", "max_text_chars", "turn.create", **{**TURN, "text": "ä" * 21})
        await refuses(client, "text_too_long", "max_text_chars", "script.append", text="ä" * 21)
        await client.send("turn.append", turn="y", speaker="S1", text="ä" * 15)
        await refuses(client, "text_too_long", "max_text_chars", "turn.append", turn="y", text="ä" * 6)
        await client.send("turn.append", turn="y", text="b" * 5)
        await client.send("turn.commit", turn="y")
        await client.send("turn.create", **{**TURN, "text": "ä" * 20})
        for turn in ("y", "x"):
            await client.spoken(turn)


@limit("max_contexts")
async def _contexts(_: Path) -> None:
    async with running(replace(LIMITS, max_contexts=2)) as server, raw(server) as client, raw(server) as other:
        for name in ("a", "b"):
            await client.send("session.start", context=name)
            await client.until("session.ready", context=name)
        await refuses(client, "too_many_contexts", "max_contexts (2)", "session.start", context="c")
        await other.send("session.start", context="c")
        await other.until("session.ready")
        await client.send("session.close", context="a")
        await client.until("session.closed", context="a")
        await client.send("session.start", context="c")
        await client.until("session.ready", context="c")


@limit("max_sessions_per_key")
async def _sessions_per_key(folder: Path) -> None:
    path = folder / "keys"
    ann, bob = (add_key(path, "ann", max_sessions=3)[0], add_key(path, "bob")[0])
    limits = replace(LIMITS, max_sessions_per_key=2)
    async with running(limits, settings={"keys_file": path}) as server:
        async with with_key(server, ann) as first, with_key(server, ann) as second, with_key(server, bob) as other:
            for client, name, told in ((first, "a", 3), (first, "b", 3), (second, "main", 3), (other, "main", 2)):
                await client.send("session.start", context=name)
                ready = await client.until("session.ready", context=name)
                # The key's own limit stands in for the server's.
                assert ready["limits"]["max_sessions_per_key"] == told
            error = await refuses(second, "too_many_sessions", "`ann` has 3", "session.start", context="more")
            assert (error["fatal"], error["retry_after_ms"]) == (False, 1000)
            await other.send("session.start", context="more")
            await other.until("session.ready", context="more")
            await refuses(other, "too_many_sessions", "`bob` has 2", "session.start", context="third")
            await first.send("session.close", context="a")
            await first.until("session.closed", context="a")
            await second.send("session.start", context="more")
            await second.until("session.ready", context="more")
            # One that waits to be resumed counts as well.
            first.socket.transport.abort()
            await becomes(lambda: server.state.sessions.waiting == 1)
            await refuses(second, "too_many_sessions", "`ann` has 3", "session.start", context="again")


@limit("max_queued_turns")
async def _queued_turns(_: Path) -> None:
    limits = replace(LIMITS, max_queued_turns=2)
    async with running(limits, max_unsent_frames=1) as server, started(server) as client:
        # The first waits for its text, so those behind it stay in the queue.
        await client.send("turn.append", turn="first", speaker="S1", text="Well")
        await client.send("turn.create", turn="a", speaker="S1", text="Hello.")
        for turn in ("b", "c"):
            await refuses(client, "queue_full", "max_queued_turns (2)", "turn.create", **{**TURN, "turn": turn})
        await refuses(client, "queue_full", "max_queued_turns", "script.append", text="[S1] Hello.")
        await client.send("turn.commit", turn="first")
        await client.spoken("first")
        await client.spoken("a")
        await refuses(client, "queue_full", "max_queued_turns", "script.append", text="[S1] a. [S2] b. [S1] c.")
        await client.send("turn.create", **TURN)
        await client.spoken("x")


@limit("max_turn_audio_ms")
async def _turn_audio(_: Path) -> None:
    limits = replace(LIMITS, max_turn_audio_ms=400)
    async with running(limits) as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S1", text="one two three four five six seven eight nine")
        report = await client.until("turn.completed")
        assert report["reason"] == "max_length"
        # To a frame: the one that the end falls into is finished.
        assert 400 <= report["audio_ms"] <= 480


@limit("max_speakers")
async def _speakers(_: Path) -> None:
    async with running(replace(LIMITS, max_speakers=2)) as server, started(server) as client:
        named = "max_speakers is 2"
        await refuses(client, "too_many_speakers", named, "script.append", text="[S1] a. [S2] b. [S3] c.")
        # Who was refused does not count, and any two may be the ones who speak.
        await client.send("script.append", script="s", text="[S5] a. [S2] b.")
        await client.spoken("s.2")
        await refuses(client, "too_many_speakers", named, "turn.create", **TURN)
        await refuses(client, "too_many_speakers", named, "turn.append", **TURN)
        await client.send("turn.create", **{**TURN, "speaker": "S5"})
        await client.spoken("x")


async def flood(client: RawClient, n: int, size_bytes: int = 0) -> AsyncIterator[str]:
    """Send ``n`` pings at once, and give their answers as they come."""
    for i in range(n):
        await client.socket.send(f'{{"type":"ping","id":"p{i}"}}'.ljust(size_bytes))
    for _ in range(n):
        yield (await client.until("pong"))["id"]


@limit("max_messages_per_s")
async def _messages(_: Path) -> None:
    async with running(replace(LIMITS, max_messages_per_s=500)) as server, started(server) as client:
        assert [name async for name in flood(client, 1000)] == [f"p{i}" for i in range(1000)]
    async with running(replace(LIMITS, max_messages_per_s=30)) as server:
        await _held_back(server, n=90, size_bytes=0, at_once=60, least_s=1.0)


@limit("max_bytes_per_s")
async def _bytes(_: Path) -> None:
    async with running(replace(LIMITS, max_bytes_per_s=20_000, max_messages_per_s=10_000)) as server:
        await _held_back(server, n=30, size_bytes=2_000, at_once=20, least_s=1.0)


async def _held_back(server: DialogueServer, *, n: int, size_bytes: int, at_once: int, least_s: float) -> None:
    """A flood is answered in order and no faster than allowed; who comes meanwhile is served at once."""
    async with raw(server) as client, started(server) as neighbour:
        began_s = time.monotonic()
        answers: list[str] = []
        async for name in flood(client, n, size_bytes):
            answers.append(name)
            if len(answers) == at_once:
                await neighbour.send("turn.create", **TURN)
                await neighbour.spoken("x")
        assert answers == [f"p{i}" for i in range(n)]
        # A machine that is slow only takes longer.
        assert time.monotonic() - began_s >= least_s * 0.99


@limit("max_session_ms")
async def _session_length(_: Path) -> None:
    async with running(replace(LIMITS, max_session_ms=150), max_unsent_frames=1) as server:
        async with raw(server) as client:
            for context in ("a", "b"):
                await client.send("session.start", context=context, audio={"format": "pcm_s16le"})
            # Neither a turn that waits for its text nor an idle session lives longer.
            await client.send("turn.append", context="a", turn="x", speaker="S1", text="Hello.")
            for _context in ("a", "b"):
                assert (await client.until("session.closed"))["reason"] == "session_too_long"
            await client.send("session.start", context="a")
            await client.until("session.ready", context="a")


@limit("idle_timeout_ms")
async def _idle(_: Path) -> None:
    limits = replace(LIMITS, idle_timeout_ms=200, max_messages_per_s=10_000)
    async with running(limits) as server, raw(server) as client:
        await client.send("session.start", context="b")
        # A turn in the works is not idleness, whatever it waits for; pings are no sign of life of a session.
        await client.send("turn.append", context="b", turn="x", speaker="S1", text="Hello there. ")
        await client.send("session.start")
        while client.types[-1:] != ["session.closed"]:
            await client.send("ping")
            closed = await client.receive()
        assert isinstance(closed, dict)
        assert (closed["context"], closed["reason"]) == ("main", "idle_timeout")
        await client.send("turn.commit", context="b", turn="x")
        await client.until("turn.completed", turn="x", reason="end")
        assert (await client.until("session.closed", context="b"))["reason"] == "idle_timeout"
        # A socket without a session is closed after as long.
        await client.until("error", code="handshake_timeout")
        assert await closed_with(client) == 1008


@limit("handshake_timeout_ms")
async def _handshake(_: Path) -> None:
    request = b"GET /v1/dialogue HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    async with running(replace(LIMITS, handshake_timeout_ms=150)) as server:
        for sent in (b"", b"\r\n", request, request[:7]):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent)
            assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
            writer.close()
        async with raw(server) as client:
            # Messages that open no session keep no socket open.
            await client.send("ping")
            await client.until("pong")
            error = await client.until("error", code="handshake_timeout", fatal=True)
            assert "150 ms" in error["message"]
            assert await closed_with(client) == 1008


@limit("resume_grace_ms")
async def _grace(_: Path) -> None:
    async with running(replace(LIMITS, resume_grace_ms=100)) as server:
        async with started(server) as client:
            token = client.log[0]["resume_token"] if isinstance(client.log[0], dict) else ""
            client.socket.transport.abort()
        await asyncio.wait_for(server.state.sessions.wait_none(), WAIT_S)
        async with raw(server) as back:
            await refuses(back, "resume_failed", "ended", "session.start", resume=token)


async def _upload_refused(folder: Path, limits: Limits, recording: bytes, status: int, said: str) -> None:
    async with http_running(HttpSettings(limits=limits, voices_store=folder)) as server:
        error = await server.error("POST", "/v1/voices", status, data=form(recording))
        assert said in error["message"], error
        async with server.client.post(server.url + "/v1/voices", data=form()) as answer:
            assert answer.status == 201, await answer.text()


@limit("max_upload_bytes")
async def _upload_bytes(folder: Path) -> None:
    limits = Limits(max_upload_bytes=len(RECORDING))
    await _upload_refused(folder, limits, RECORDING + b"\0", 413, f"max_upload_bytes ({len(RECORDING)})")


@limit("max_upload_ms")
async def _upload_seconds(folder: Path) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 6 * 8000)
    await _upload_refused(folder, Limits(max_upload_ms=5500), encoded(noise, 8000), 400, "5.5")


async def test_keys_are_asked_for_before_the_handshake(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = add_key(path, "ann")[0]
    async with running(settings={"keys_file": path}) as server:
        for credential in (None, key[:-1] + ("A" if key[-1] != "A" else "B"), "eyJ.x.y"):
            with pytest.raises(InvalidStatus) as refused:
                async with with_key(server, credential):
                    pass
            assert refused.value.response.status_code == 401
            assert json.loads(refused.value.response.body)["error"]["code"] == "unauthorized"
        with pytest.raises(InvalidStatus) as refused:
            async with with_key(server, key, origin="https://elsewhere.example"):
                pass
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body)["error"]["code"] == "forbidden"
        async with with_key(server, key) as client:
            await client.send("session.start")
            await client.until("session.ready")


async def test_a_token_that_runs_out_on_an_open_socket_opens_no_more_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    key = add_key(path, "ann", ("dialogue", "tokens"))[0]
    async with running(settings={"keys_file": path}) as server:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
            async with http.post(f"http://127.0.0.1:{server.port}/v1/tokens", json={"ttl_s": 60}) as answer:
                assert answer.status == 200
                token = (await answer.json())["token"]
        async with with_key(server, token) as client:
            await client.send("session.start")
            await client.until("session.ready")
            later_s = time.time() + 61
            monkeypatch.setattr(time, "time", lambda: later_s)
            await refuses(client, "unauthorized", "expired", "session.start", context="more")
            # What was opened in time goes on; the error is fatal to the socket, as its code says.
            assert await closed_with(client) == 1008
