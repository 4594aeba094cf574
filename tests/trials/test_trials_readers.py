"""Readers who take their time, or stop: they wait for themselves, nobody else does, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import numpy as np
from serving import GREEDY, recorded, running, started
from trials.company import SIZES, alone, assert_all_gone, assert_undisturbed, becomes, neighbour, neighbours
from trials.wire import Wire, opened

from streamer.server import DialogueServer
from streamer_protocol import AudioFrame

SENTENCE = "The weather is so nice today, let us go for a walk."
BIG: dict[str, Any] = {"audio": {"format": "pcm_s16le", "sample_rate": 48_000}, "sampling": GREEDY, "seed": 5}
N_TURNS = 4
REPLAY_BYTES = 64 * 2**10
SEND_BYTES = 1024


async def ask(wire: Wire, start: dict[str, Any], n_turns: int = N_TURNS) -> None:
    """Open a session and ask for turns; read nothing."""
    await wire.send(wire.frame("session.start", **start))
    for i in range(n_turns):
        await wire.send(wire.frame("turn.create", turn=f"t{i}", speaker="S1", text=SENTENCE))


async def only_session(server: DialogueServer) -> Any:
    await becomes(lambda: len(server.state.sessions) == 1)
    return server.state.sessions.all()[0]


async def spoken_to_a_fast_reader(server: DialogueServer, start: dict[str, Any]) -> list[AudioFrame]:
    async with started(server, **start) as client:
        for i in range(N_TURNS):
            await client.send("turn.create", turn=f"t{i}", speaker="S1", text=SENTENCE)
        await client.until("session.idle")
        return client.frames


def samples(frames: list[AudioFrame], dtype: str) -> np.ndarray:
    return np.frombuffer(b"".join(frame.payload for frame in frames), dtype)


async def test_one_byte_at_a_time_is_slow_for_that_reader_alone() -> None:
    mulaw = {**BIG, "audio": {"format": "mulaw"}}
    async with running(send_buffer_bytes=SEND_BYTES, **SIZES) as server:
        async with opened(server, narrow=True) as wire:
            await ask(wire, mulaw)

            async def read() -> None:
                await wire.read_until("session.idle", step_bytes=1)

            assert await neighbours(server, asyncio.create_task(read())) > 1
        assert [frame.frame for frame in wire.frames] == list(range(len(wire.frames)))
        assert len(wire.of("turn.completed")) == N_TURNS
        fast = await spoken_to_a_fast_reader(server, mulaw)
        slow_bytes, fast_bytes = samples(wire.frames, "u1"), samples(fast, "u1")
        assert len(slow_bytes) == len(fast_bytes)
        # Each is a step on a curve: the rounding of a batch may move it to the next.
        assert np.mean(slow_bytes != fast_bytes) < 0.01


async def test_a_reader_that_stops_pauses_itself_in_bounded_memory_and_gets_all_of_it() -> None:
    sizes = {**SIZES, "max_unsent_frames": 4}
    async with running(send_buffer_bytes=SEND_BYTES, replay_bytes=REPLAY_BYTES, **sizes) as server:
        async with opened(server, narrow=True) as wire:
            await ask(wire, BIG)
            session = await only_session(server)
            expected = await alone()
            for _ in range(3):
                assert_undisturbed(recorded(server), await neighbour(server), expected)
            # Not even the first turn is made; what is held is what may be.
            assert len(recorded(server).rows) == len(expected.rows)
            assert 0 < session.outbox.held_bytes <= REPLAY_BYTES
            await wire.read_until("session.idle")
        assert len(wire.of("turn.completed")) == N_TURNS
        assert [frame.frame for frame in wire.frames] == list(range(len(wire.frames)))
        fast = await spoken_to_a_fast_reader(server, BIG)
        heard, expected_samples = (samples(frames, "<i2") / 32768 for frames in (wire.frames, fast))
        np.testing.assert_allclose(heard, expected_samples, atol=1e-4)


async def test_a_reader_that_stops_for_too_long_loses_its_connection_but_not_its_session() -> None:
    settings = {"heartbeat_s": 0.2}
    async with running(send_buffer_bytes=SEND_BYTES, settings=settings, **SIZES) as server:
        async with opened(server, narrow=True) as wire:
            await ask(wire, BIG)
            # It answers no pings, since it does not read them.
            await becomes(lambda: server.state.sessions.waiting == 1)
            with contextlib.suppress(ConnectionResetError):
                while not wire.ended:
                    await wire.read()
        (ready,) = wire.of("session.ready")
        place = {"last_frame": wire.frames[-1].frame, "messages_after": wire.messages_after}
        async with opened(server) as back:
            await back.send(back.frame("session.start", resume=ready["resume_token"], **place))
            await back.read_until("session.idle")
        frames = wire.frames + back.frames
        assert [frame.frame for frame in frames] == list(range(len(frames)))
        assert len(wire.of("turn.completed") + back.of("turn.completed")) == N_TURNS
        fast = await spoken_to_a_fast_reader(server, BIG)
        assert len(frames) == len(fast)


async def test_who_has_not_read_for_long_may_still_ask_and_is_answered() -> None:
    """The socket is read on, though there is no room for answers: the receipts that make room come from there."""
    async with running(replay_bytes=4096, **SIZES) as server, opened(server) as wire:
        await wire.send(wire.frame("session.start", **BIG))
        session = await only_session(server)
        await wire.send(wire.frame("turn.create", turn="t0", speaker="S1", text=SENTENCE))
        # The session waits for receipts, and they for their reader.
        await becomes(lambda: session.outbox.held_bytes > 4096)
        await wire.send(wire.frame("turn.cancel", turn="x"))
        await wire.send(wire.frame("script.append", script="s", text="[S1] Yes."))
        await wire.read_until("session.idle")
        assert len(wire.of("error", "script.accepted")) == 2
        assert [message["turn"] for message in wire.of("turn.completed")] == ["t0", "s.1"]


async def test_who_reads_and_never_says_so_is_let_go_before_memory_is_full() -> None:
    async with running(replay_bytes=4096, **SIZES) as server:
        async with opened(server) as wire:
            await wire.send(wire.frame("session.start", **BIG))
            session = await only_session(server)
            wire.silent = True
            while not wire.ended:
                await wire.send(wire.frame("turn.cancel", turn="x"))
                await wire.read()
                assert session.outbox.held_bytes < 3 * 4096
        await assert_all_gone(server)


async def test_a_loss_in_the_middle_of_an_answer_is_noticed() -> None:
    """Who reads a socket must not wait for the next one to come: nobody else can say that this one is gone."""
    async with running(send_buffer_bytes=SEND_BYTES, **SIZES) as server:
        async with opened(server, narrow=True) as wire:
            await ask(wire, BIG, n_turns=1)
            await wire.send(wire.frame("script.append", script="s", text="[S2] Are you there? [S1] Yes."))
            session = await only_session(server)
            await becomes(lambda: session.outbox.context.client_messages == 2)
        await becomes(lambda: server.state.sessions.waiting == 1)
        # What was asked for last was taken, and is there for who comes back.
        assert session.outbox.context.turns["s.2"].live
        await session.end("enough")
        await assert_all_gone(server)
