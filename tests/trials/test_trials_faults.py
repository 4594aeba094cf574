"""What can fail beneath a server: numbers that break down, a full disk, a clock that jumps."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from server.test_http_voices import form
from serving import LIMITS, raw, recorded, running, started
from trials.company import SIZES, alone, assert_undisturbed, neighbour, neighbours

from streamer.server import DialogueServer

HOUR_S = 3600.0
# A letter of which the neighbour's script has none, nor any other text of these trials.
POISON = "Z"


@contextlib.contextmanager
def poisoned(server: DialogueServer) -> Iterator[None]:
    """As by a broken checkpoint: whoever says the letter has numbers that are none."""
    speech = server.state.speech
    (token,) = speech.tokenizer.encode(POISON)
    table = speech.model._text_table
    sound = table[token].clone()
    table[token] = torch.nan
    try:
        yield
    finally:
        table[token] = sound


async def test_a_turn_whose_numbers_break_down_fails_alone() -> None:
    await alone()
    async with running(**SIZES) as server:
        with poisoned(server):

            async def unlucky() -> None:
                async with started(server, seed=7) as client:
                    for round_ in range(3):
                        await client.send("turn.create", turn=f"bad-{round_}", speaker="S1", text=f"Hello {POISON}.")
                        await client.send("turn.create", turn=f"good-{round_}", speaker="S2", text="Hello again.")
                        error = await client.until("error", turn=f"bad-{round_}")
                        assert (error["code"], error["fatal"]) == ("internal", False)
                        assert "NaN" in error["message"]
                        report = await client.until("turn.completed", turn=f"bad-{round_}")
                        assert (report["reason"], report["frames"]) == ("error", 0)
                        # The dialogue goes on, and nothing of it is in the history.
                        await client.spoken(f"good-{round_}")
                    await client.until("session.idle")
                    assert [frame.frame for frame in client.frames] == list(range(len(client.frames)))

            await neighbours(server, asyncio.create_task(unlucky()))
        # What the broken turns held is given to others, who notice nothing.
        expected = await alone()
        audios = await asyncio.gather(*(neighbour(server) for _ in range(6)))
        for audio in audios:
            assert_undisturbed(recorded(server), audio, expected)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow: to whoever writes, what a full disk is."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_a_full_disk_refuses_an_upload_and_nothing_else(tmp_path: Path) -> None:
    store = tmp_path / "voices"
    async with running(settings={"voices_store": store}, **SIZES) as server:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as http:

            async def upload() -> tuple[int, dict[str, Any]]:
                async with http.post("/v1/voices", data=form()) as answer:
                    return answer.status, await answer.json()

            async def crowd() -> None:
                for _ in range(3):
                    status, body = await upload()
                    assert (status, body["error"]["code"]) == (507, "storage_full")

            with full_disk():
                await neighbours(server, asyncio.create_task(crowd()))
            assert [path for path in store.rglob("*") if path.suffix in (".npy", ".tmp")] == []
            async with http.get("/v1/voices") as answer:
                assert [voice["id"] for voice in (await answer.json())["data"]] == ["one", "two"]
            # With room again, the same upload is taken.
            status, body = await upload()
            assert (status, body["id"]) == (201, "ann")


def set_clock(server: DialogueServer, monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    """What the wall says from now on; the steady clock is another one."""
    now_s = time.monotonic
    begin_s = 1_800_000_000.0 + jump_s
    monkeypatch.setattr(time, "time", lambda: begin_s + now_s())
    server.state.sessions._signer.clock = time.time


async def test_a_clock_that_jumps_disturbs_no_speech_and_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = await alone()
    async with running(LIMITS, **SIZES) as server, started(server) as client:
        await client.send("turn.append", turn="x", speaker="S1", text="Hello there")
        for jump_s in (5 * HOUR_S, -5 * HOUR_S, 0.0):
            set_clock(server, monkeypatch, jump_s)
            assert_undisturbed(recorded(server), await neighbour(server), expected)
            await client.send("ping", id=f"p{jump_s:.0f}")
            await client.until("pong")
        # The pause in its text started the turn, and nobody was found idle or there for too long.
        await client.send("turn.commit", turn="x")
        await client.spoken("x")
        await client.until("session.idle")
        assert "session.closed" not in client.types


async def test_a_clock_that_jumps_ends_no_session_that_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(LIMITS, **SIZES) as server:
        set_clock(server, monkeypatch, 0.0)
        async with started(server) as client:
            ready: Any = client.log[0]
            client.socket.transport.abort()
        # An hour is not the life of a token, and a clock set back makes none look like one from the future.
        for jump_s in (HOUR_S, -5 * HOUR_S):
            set_clock(server, monkeypatch, jump_s)
            async with raw(server) as back:
                await back.send("session.start", resume=ready["resume_token"])
                ready = await back.receive()
                assert ready["resumed"], ready
                back.socket.transport.abort()
        # One that has run out by the clock is refused for that, and the socket can start anew.
        set_clock(server, monkeypatch, 9 * HOUR_S)
        async with raw(server) as back:
            await back.send("session.start", resume=ready["resume_token"])
            assert "expired" in (await back.until("error", code="resume_failed"))["message"]
            await back.send("session.start")
            await back.until("session.ready", resumed=False)
