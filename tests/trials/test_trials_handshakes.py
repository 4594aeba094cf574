"""Handshakes that never finish, and bytes that come one by one: neither is anybody else's trouble."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import numpy as np
from msgspec.structs import replace
from serving import GREEDY, LIMITS, running
from trials.company import SIZES, allow_many_files, assert_all_gone, becomes, neighbours, open_files
from trials.wire import Wire, connected

from streamer.server import DialogueServer

N_HANDSHAKES = 500
# Long enough for all to be there at once.
HANDSHAKE_MS = 2000


async def begin(server: DialogueServer, number: int, begun: asyncio.Semaphore) -> None:
    """Go a part of the way into a session, then wait to be thrown out."""
    async with connected(server) as wire:
        request = wire.request()
        if number % 3 == 1:
            await wire.send(request[: number % len(request)])
        elif number % 3 == 2:
            await wire.send(request)
            await wire.read_until_open()
        begun.release()
        with contextlib.suppress(ConnectionResetError):
            while not wire.ended:
                await wire.read()
        errors = [error["code"] for error in wire.of("error")]
        assert errors == (["handshake_timeout"] if number % 3 == 2 else [])


async def test_five_hundred_handshakes_that_never_finish_end_by_themselves() -> None:
    allow_many_files()
    async with running(replace(LIMITS, handshake_timeout_ms=HANDSHAKE_MS), **SIZES) as server:
        await neighbours(server, asyncio.create_task(asyncio.sleep(0)))
        await assert_all_gone(server)
        n_files = open_files()
        begun = asyncio.Semaphore(0)

        async def crowd() -> None:
            await asyncio.gather(*(begin(server, number, begun) for number in range(N_HANDSHAKES)))

        waiting = asyncio.create_task(crowd())
        for _ in range(N_HANDSHAKES):
            await begun.acquire()
        assert open_files() >= n_files + N_HANDSHAKES
        await neighbours(server, waiting)
        await assert_all_gone(server, n_files)


def conversation(wire: Wire) -> bytes:
    """All that a client says from its first byte on, right and wrong, none of which depends on when it arrives."""
    start = {"audio": {"format": "pcm_s16le"}, "sampling": GREEDY, "seed": 3}
    return b"".join(
        [
            wire.request(),
            wire.frame("ping", id="before"),
            wire.frame("turn.create", turn="x", speaker="S1", text="Too early."),
            wire.frame("session.start", **start, voices={"S1": "nobody"}),
            wire.text(b"{"),
            wire.frame("session.start", **start),
            wire.frame("script.append", script="s", text="[S1] Hello there. [S2] Hi, how are you?"),
            wire.frame("turn.create", turn="s.1", speaker="S1", text="Taken."),
            wire.frame("turn.append", turn="t", speaker="S1", text="And "),
            wire.frame("turn.append", turn="t", text="so on, Grüße, 世界."),
            wire.frame("turn.commit", turn="t"),
            wire.frame("turn.append", turn="t", text="Too late."),
            wire.frame("playback", played_ms=-1),
            wire.text(json.dumps({"type": "ping", "id": "after"}).encode().center(300)),
        ]
    )


# What two sessions can't have in common, and what depends on the time.
_OWN = {"session", "resume_token", "handle", "ttfa_ms", "rtf", "message"}
_REPLIES = ("session.ready", "script.accepted", "error", "pong")
_STORY = ("turn.started", "turn.completed", "session.idle")


def told(wire: Wire, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{k: v for k, v in message.items() if k not in _OWN} for message in wire.of(*kinds)]


async def test_bytes_one_by_one_are_answered_as_all_at_once() -> None:
    wires = []
    # A pause between two bytes is none between two pieces of text.
    async with running(settings={"live_text_pause_s": 60.0}, **SIZES) as server:
        for step_bytes in (2**20, 1):
            async with connected(server) as wire:
                await wire.send(conversation(wire), step_bytes)
                await wire.read_until("session.idle")
                while len(wire.of("turn.completed")) < 3 or not wire.of("pong")[1:]:
                    await wire.read()
                wires.append(wire)
    whole, bytewise = wires
    assert told(bytewise, _REPLIES) == told(whole, _REPLIES)
    assert len(whole.of("error")) == 6
    assert [m for m in told(bytewise, _STORY) if m["type"] != "session.idle"] == [
        m for m in told(whole, _STORY) if m["type"] != "session.idle"
    ]
    assert [(f.frame, f.turn_index, f.last) for f in bytewise.frames] == [
        (f.frame, f.turn_index, f.last) for f in whole.frames
    ]
    pcm = [np.frombuffer(b"".join(f.payload for f in wire.frames), "<i2") / 32768 for wire in wires]
    np.testing.assert_allclose(pcm[1], pcm[0], atol=1e-4)


async def test_a_request_that_is_none_is_refused_and_closed() -> None:
    async with running(replace(LIMITS, handshake_timeout_ms=300), **SIZES) as server:
        n_files = open_files()
        for sent in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /v1/dialogue HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100_000,
            b"GET " + b"/" * 100_000,
            b"\0" * 1000,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent)
            with contextlib.suppress(ConnectionResetError):
                answer = await asyncio.wait_for(reader.read(), 10)
                assert not answer.startswith(b"HTTP/1.1 2")
                assert b"Traceback" not in answer
            writer.close()
        await becomes(lambda: open_files() <= n_files)
