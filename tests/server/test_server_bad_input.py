"""What a client can do wrong: each mistake is named, and hurts nobody else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import numpy as np
import pytest
import websockets
from serving import LIMITS, RawClient, raw, recorded, running, started
from websockets.exceptions import ConnectionClosed, InvalidStatus


def message(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


TURN: dict[str, Any] = {"turn": "x", "speaker": "S1", "text": "Hello."}
AFTER_START: list[tuple[str, str | bytes, str, str]] = [
    ("unknown type", message("session.begin"), "invalid_message", "session.begin"),
    ("no type", '{"text": "hi"}', "invalid_message", "type"),
    ("unknown field", message("turn.create", **TURN, volume=3), "invalid_message", "volume"),
    ("missing field", message("turn.create", turn="x", text="Hello."), "invalid_message", "speaker"),
    ("wrong type", message("turn.create", **{**TURN, "text": 5}), "invalid_message", "text"),
    ("unknown speaker", message("turn.create", **{**TURN, "speaker": "S6"}), "invalid_message", "speaker"),
    ("not an object", "[1, 2]", "invalid_message", "object"),
    ("not JSON", "{", "invalid_json", "JSON"),
    ("empty", "", "invalid_json", "JSON"),
    ("deeply nested", "[" * 20_000, "invalid_message", "object"),
    ("binary", b"\x00\x01\x02", "binary_not_allowed", "text frames"),
    ("started twice", message("session.start"), "session_already_started", "main"),
    ("no letters", message("turn.create", **{**TURN, "text": "?! 😀 …"}), "no_speech", "text"),
    ("no letters in a script", message("script.append", text="[S1] … [S2] !"), "no_speech", "text"),
    ("six speakers", message("script.append", text="[S1] Hi. [S6] Hello."), "too_many_speakers", "[S6]"),
    (
        "a tag inside a turn",
        message("turn.create", **{**TURN, "text": "Hi. [S2] Ho."}),
        "invalid_script",
        "text",
    ),
    (
        "turn too long",
        message("turn.create", **{**TURN, "text": "a" * 301}),
        "text_too_long",
        "max_text_chars",
    ),
    ("script too long", message("script.append", text="a" * 301), "text_too_long", "max_text_chars"),
    (
        "too many turns",
        message("script.append", text="[S1]a[S2]b[S1]a[S2]b[S1]a"),
        "queue_full",
        "max_queued_turns",
    ),
    ("unknown turn", message("turn.cancel", turn="nobody"), "unknown_turn", "nobody"),
    ("other context", message("turn.create", context="other", **TURN), "session_not_started", "other"),
    ("a first piece of nobody", message("turn.append", turn="x", text="a"), "invalid_message", "speaker"),
    ("a tag in a piece", message("turn.append", turn="x", speaker="S1", text="Hi [S2]"), "invalid_script", "text"),
    ("commit of nothing", message("turn.commit", turn="x"), "unknown_turn", "x"),
    ("playback", message("playback", played_ms=-5), "invalid_message", "played_ms"),
    ("sampling of a turn", message("turn.create", **TURN, sampling={"audio_top_k": 0}), "invalid_message", "top_k"),
    (
        "sampling of a turn, out of the model's range",
        message("turn.create", **TURN, sampling={"audio_repetition_penalty": 0.01}),
        "not_supported",
        "sampling",
    ),
]
AT_START: list[tuple[str, dict[str, Any], str, str]] = [
    ("unknown voice", {"voices": {"S2": "nobody"}}, "unknown_voice", "voices.S2"),
    ("sixth speaker", {"voices": {"S6": "one"}}, "invalid_message", "voices"),
    ("format", {"audio": {"format": "mp3"}}, "invalid_message", "format"),
    ("sample rate", {"audio": {"format": "mulaw", "sample_rate": 16000}}, "invalid_message", "sample_rate"),
    ("frame length", {"audio": {"frame_ms": 10}}, "invalid_message", "frame_ms"),
    ("sampling", {"sampling": {"audio_top_p": 2}}, "invalid_message", "audio_top_p"),
    (
        "sampling out of the model's range",
        {"sampling": {"audio_repetition_penalty": 0.01}},
        "invalid_message",
        "sampling",
    ),
    ("seed", {"seed": -1}, "invalid_message", "seed"),
    ("words", {"words": True}, "not_supported", "words"),
    ("resume", {"resume": "token"}, "resume_failed", "resume"),
    ("language", {"language": "e"}, "invalid_message", "language"),
]


async def expect_error(client: RawClient, code: str, names: str) -> dict[str, Any]:
    error = await client.until("error")
    assert error["code"] == code, error
    assert names in error["message"], error
    return error


@pytest.mark.parametrize(("data", "code", "names"), [c[1:] for c in AFTER_START], ids=[c[0] for c in AFTER_START])
async def test_a_wrong_message_is_named_and_the_session_goes_on(data: str | bytes, code: str, names: str) -> None:
    async with running() as server, started(server) as client:
        await client.socket.send(data)
        error = await expect_error(client, code, names)
        assert not error["fatal"]
        await client.send("turn.create", turn="y", speaker="S1", text="Hello.")
        await client.spoken("y")
        await client.until("session.idle")


@pytest.mark.parametrize(("start", "code", "names"), [c[1:] for c in AT_START], ids=[c[0] for c in AT_START])
async def test_a_refused_start_can_be_tried_again(start: dict[str, Any], code: str, names: str) -> None:
    async with running() as server, raw(server) as client:
        await client.send("session.start", **start)
        await expect_error(client, code, names)
        await client.send("session.start")
        await client.until("session.ready")


@pytest.mark.parametrize("kind", ["turn.create", "script.append", "turn.cancel", "session.close"])
async def test_nothing_can_be_asked_before_session_start(kind: str) -> None:
    async with running() as server, raw(server) as client:
        fields = {"turn.create": TURN, "script.append": {"text": "Hello."}}.get(kind, {})
        await client.send(kind, **fields)
        await expect_error(client, "session_not_started", kind)
        await client.send("session.start")
        await client.until("session.ready")


@pytest.mark.parametrize(
    ("data", "code", "close_code"),
    [
        (b'{"type": "ping", "id": "\xff"}', "invalid_utf8", 1007),
        (b'{"a": "' + b"x" * 5_000_000, "message_too_large", 1009),
    ],
    ids=["invalid UTF-8", "5 MB"],
)
async def test_a_fatal_message_is_answered_before_the_socket_closes(data: bytes, code: str, close_code: int) -> None:
    async with running() as server, started(server) as client:
        await client.send("script.append", text="[S1] Hello there.")
        await client.audio(1)
        async with started(server) as neighbour:
            await client.socket.send(data, text=True)
            error = await client.until("error")
            assert (error["code"], error["fatal"]) == (code, True)
            with pytest.raises(ConnectionClosed) as closed:
                await client.until("pong")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == close_code
            await neighbour.send("script.append", text="[S1] Hello there.")
            await neighbour.until("session.idle")


async def test_a_turn_id_is_used_once() -> None:
    async with running() as server, started(server) as client:
        await client.send("turn.create", **TURN)
        await client.send("turn.create", **TURN)
        await expect_error(client, "duplicate_turn", "x")
        await client.until("session.idle")
        assert len(recorded(server).requests) == 1


async def test_a_refused_script_does_not_touch_a_turn_of_the_same_name() -> None:
    async with running() as server, started(server) as client:
        for turn in ("x", "a"):
            await client.send("turn.create", turn=turn, speaker="S1", text="Hello there.")
        await client.send("script.append", script="a", text="...")
        await expect_error(client, "duplicate_turn", "a")
        await client.send("turn.create", turn="a", speaker="S1", text="Again.")
        await expect_error(client, "duplicate_turn", "a")
        await client.send("turn.create", turn="z", speaker="S1", text="And on.")
        for turn in ("x", "a", "z"):
            await client.spoken(turn)
        await client.until("session.idle")


async def test_brackets_that_are_no_tags_are_text() -> None:
    async with running() as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S2", text="[Sigh] hello [laugh] there")
        await client.spoken("x")


async def test_the_queue_has_an_end_and_works_on() -> None:
    async with running(max_unsent_frames=2) as server, started(server) as client:
        for i in range(8):
            await client.send("turn.create", turn=f"t{i}", speaker="S1", text="Hello there.")
        error = await expect_error(client, "queue_full", "max_queued_turns")
        await client.until("session.idle")
        refused = {m["turn"] for m in client.log if isinstance(m, dict) and m["type"] == "error"}
        spoken = {m["turn"] for m in client.log if isinstance(m, dict) and m["type"] == "turn.completed"}
        assert error["turn"] in refused
        assert len(spoken) >= LIMITS.max_queued_turns
        assert refused | spoken == {f"t{i}" for i in range(8)}
        assert not refused & spoken


async def test_contexts_and_sessions_are_limited() -> None:
    async with running(max_sessions=4) as server, raw(server) as first, raw(server) as second:
        for i in range(4):
            await first.send("session.start", context=f"c{i}")
        await expect_error(first, "too_many_contexts", "max_contexts")
        await second.send("session.start")
        await second.until("session.ready")
        await second.send("session.start", context="more")
        error = await expect_error(second, "overloaded", "4 sessions")
        assert error["retry_after_ms"] > 0
        assert not error["fatal"]
        await first.send("session.close", context="c0")
        await first.until("session.closed")
        await second.send("session.start", context="more")
        await second.until("session.ready", context="more")


async def test_a_peer_that_vanishes_leaves_nothing() -> None:
    async with running() as server:
        async with started(server) as client:
            await client.send("script.append", text="[S1] Hello there. [S2] Hi.")
            await client.audio(1)
            client.socket.transport.abort()
        async with started(server) as neighbour:
            await neighbour.send("script.append", text="[S1] Hello there.")
            await neighbour.until("session.idle")


async def test_half_a_message_and_half_a_handshake_hold_up_nobody() -> None:
    async with running() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /v1/dialogue HTTP/1.1\r\nHost: x\r\nUpgr")
        await writer.drain()
        async with started(server) as client, started(server) as neighbour:
            # The head of a masked 100-byte text frame, and 5 bytes of it.
            client.socket.transport.write(b"\x81\xe4" + b"\0" * 4 + b'{"typ')
            await neighbour.send("script.append", text="[S1] Hello there.")
            await neighbour.until("session.idle")
            client.socket.transport.abort()
        writer.close()
        assert await reader.read() == b""


async def test_the_handshake_says_what_it_wants() -> None:
    async with running() as server:
        with pytest.raises(InvalidStatus) as refused:
            async with websockets.connect(server.url, subprotocols=[websockets.Subprotocol("chat")]):
                pass
        assert refused.value.response.status_code == 400
        assert b"dialogue.v1" in refused.value.response.body
        # No subprotocol at all is taken as ours, for the simplest of clients.
        async with websockets.connect(server.url) as socket:
            await socket.send(message("ping"))
            assert json.loads(await socket.recv())["type"] == "pong"
        async with aiohttp.ClientSession() as http:
            async with http.get(server.url.replace("ws:", "http:")) as answer:
                assert answer.status == 426
                assert (await answer.json())["error"]["code"] == "not_supported"


async def test_a_turn_that_breaks_down_is_reported_and_the_next_one_speaks() -> None:
    async with running() as server, started(server) as client:
        model = server.state.speech.model
        sound = model._audio_table.clone()
        model._audio_table.fill_(np.nan)
        try:
            await client.send("turn.create", **TURN)
            error = await expect_error(client, "internal", "NaN")
            assert (error["turn"], error["fatal"]) == ("x", False)
            await client.until("turn.completed", turn="x", reason="error")
        finally:
            model._audio_table.copy_(sound)
        await client.send("turn.create", turn="y", speaker="S1", text="Hello.")
        await client.spoken("y")
