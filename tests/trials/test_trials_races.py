"""Two things at once, in the order that is the worst for the server."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from msgspec.structs import replace
from serving import GREEDY, LIMITS, WAIT_S, RawClient, raw, running, started
from trials.company import SIZES, becomes
from trials.wire import opened

START: dict[str, Any] = {"audio": {"format": "pcm_s16le"}, "sampling": GREEDY, "seed": 1}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("turn.create", {"turn": "s.1", "speaker": "S1", "text": "Again."}),
        ("turn.append", {"turn": "x", "speaker": "S1", "text": "Again."}),
        ("script.append", {"script": "s", "text": "[S1] Again."}),
    ],
)
async def test_an_id_is_not_used_again_before_its_turn_is_reported(kind: str, fields: dict[str, Any]) -> None:
    """A refused turn gives its id back; its report, if one is to come, would be taken for the new turn's."""
    named = "s.1" if kind != "turn.append" else "x"
    async with running(**SIZES) as server, started(server) as client:
        await client.send("turn.append", turn="first", speaker="S1", text="Well")
        # Refused when its text is read, with a report that waits for that of the first turn.
        await client.send("turn.append", turn=named, speaker="S1", text="No ")
        await client.send("turn.append", turn=named, text="[S2]")
        await client.until("error", code="invalid_script", turn=named)
        await client.send(kind, **fields)
        if kind != "turn.append":
            await client.until("error", code="duplicate_turn")
        await client.send("turn.commit", turn="first")
        await client.spoken("first")
        await client.until("turn.completed", turn=named, reason="cancelled")
        await client.until("session.idle")
        await client.send("turn.create", turn="after", speaker="S1", text="And on.")
        await client.spoken("after")


async def test_a_report_that_comes_while_a_text_is_read_is_the_old_turns() -> None:
    async with running(**SIZES) as server, started(server) as client:
        await client.send("turn.append", turn="first", speaker="S1", text="Well")
        await client.send("turn.append", turn="x", speaker="S1", text="[S2]")
        await client.until("error", code="invalid_script", turn="x")
        # Nothing is split now, so that the next turn is still being read when the old one is reported.
        release = busy(server.state.speech.workers, 2)
        await client.send("turn.create", turn="x", speaker="S1", text="Again.")
        await client.send("turn.cancel", turn="first")
        release.set()
        await client.until("turn.completed", turn="x", reason="cancelled")
        await client.until("session.idle")
        assert "internal" not in [m["code"] for m in client.log if isinstance(m, dict) and m["type"] == "error"]
        await client.send("turn.create", turn="after", speaker="S1", text="And on.")
        await client.spoken("after")


async def test_text_and_its_cancellation_at_once_leave_no_reader_of_text_behind() -> None:
    async with running(**SIZES) as server, opened(server) as wire:
        await wire.send(wire.frame("session.start", **START))
        await wire.read_until("session.ready")
        for i in range(20):
            turn = f"t{i}"
            await wire.send(wire.frame("turn.append", turn=turn, speaker="S1", text="Well"))
            await wire.send(wire.frame("ping", id="read"))
            await wire.read_until("pong")
            # Both are read before anybody else has a turn.
            await wire.send(wire.frame("turn.append", turn=turn, text=" then") + wire.frame("turn.cancel", turn=turn))
            await wire.read_until("turn.completed")
        await becomes(lambda: not any("LiveTurn" in repr(task) for task in asyncio.all_tasks()))
        gc.collect()


async def test_a_session_that_is_being_opened_is_not_late() -> None:
    async with running(replace(LIMITS, handshake_timeout_ms=200), **SIZES) as server:
        async with raw(server) as client, raw(server) as later:
            release = busy(server.state.speech.workers, 2)
            await client.send("session.start", voices={"S1": "nobody"})
            await client.send("session.start", **START)
            # Its time is over after the other's.
            await later.until("error", code="handshake_timeout")
            release.set()
            await settled(client)
            await client.send("turn.create", turn="x", speaker="S1", text="Hello.")
            await client.spoken("x")


async def test_who_comes_back_before_the_loss_was_noticed_keeps_the_session() -> None:
    async with running(send_buffer_bytes=1024, **SIZES) as server:
        async with opened(server, narrow=True) as wire:
            await wire.send(wire.frame("session.start", **START))
            ready = await wire.read_until("session.ready")
            (session,) = server.state.sessions.all()
            await wire.send(wire.frame("turn.create", turn="x", speaker="S1", text="The weather is so nice today."))
            await becomes(lambda: session.outbox.held_bytes > 0)
            # Who reads the first socket is busy with a text when it breaks, so that only who writes to it notices.
            release = busy(server.state.speech.workers, 2)
            await wire.send(wire.frame("turn.create", turn="y", speaker="S1", text="And on."))
            await becomes(lambda: session.outbox.context.client_messages == 2)
        await becomes(lambda: session.outbox.link is None)
        async with raw(server) as back:
            await back.send("session.start", resume=ready["resume_token"])
            await back.until("session.ready", resumed=True)
            release.set()
            for turn in ("x", "y"):
                await back.spoken(turn)
            await back.until("session.idle")
            assert [frame.frame for frame in back.frames] == list(range(len(back.frames)))
            assert server.state.sessions.waiting == 0


async def settled(client: RawClient) -> None:
    """The session is open, whatever was refused before."""
    await client.until("error", code="unknown_voice")
    await client.until("session.ready")


def busy(workers: Any, n_workers: int) -> threading.Event:
    """All of them have something to do until the event is set."""
    release = threading.Event()
    for _ in range(n_workers):
        workers.submit(release.wait, WAIT_S)
    return release
