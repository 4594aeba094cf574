"""Interruption, shutdown, and lives that end in every way."""

from __future__ import annotations

import asyncio
import random

import aiohttp
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from serving import AT_REST, LIMITS, WAIT_S, RawClient, raw, recorded, running, started
from support import load_model
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamer.server import DialogueServer
from streamer_protocol import AudioFrame, Limits

LONG = Limits(max_turn_audio_ms=60_000)
SENTENCE = "one two three four five six seven eight nine ten eleven twelve"


async def test_cancel_ends_the_turn_and_no_audio_of_it_follows() -> None:
    async with running(max_unsent_frames=3) as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE)
        await client.send("turn.create", turn="y", speaker="S2", text="Hello.")
        await client.audio(2)
        await client.send("turn.cancel", turn="x")
        report = await client.until("turn.completed", turn="x")
        assert report["reason"] == "cancelled"
        assert report["frames"] == len(client.frames)
        await client.spoken("y")
        assert [f.frame for f in client.frames] == list(range(len(client.frames)))
        assert not any(f.turn_index == 0 for f in client.frames[report["frames"] :])


async def test_cancel_without_a_turn_ends_all_and_the_dialogue_goes_on() -> None:
    async with running(max_unsent_frames=3) as server, started(server) as client:
        for turn in ("x", "y", "z"):
            await client.send("turn.create", turn=turn, speaker="S1", text=SENTENCE)
        await client.audio(1)
        await client.send("turn.cancel")
        for turn in ("x", "y", "z"):
            report = await client.until("turn.completed", turn=turn, reason="cancelled")
        assert report["frames"] == 0
        assert report["ttfa_ms"] is None
        await client.until("session.idle")
        await client.send("turn.create", turn="w", speaker="S1", text="Hello.")
        await client.spoken("w")


async def test_cancelling_twice_or_too_late_does_no_harm() -> None:
    async with running() as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S1", text="Hello.")
        await client.until("session.idle")
        for _ in range(2):
            await client.send("turn.cancel", turn="x")
            await client.send("turn.cancel")
        await client.send("ping")
        await client.until("pong")
        assert "error" not in client.types


def prompt_frames(prompt: torch.Tensor) -> int:
    config = load_model("delay-nvq4").config
    return int((prompt[:, 0] == config.audio_assistant_gen_slot_token_id).sum())


def prompt_text(server: DialogueServer, prompt: torch.Tensor) -> str:
    text: str = server.state.speech.tokenizer.decode(prompt[:, 0])
    return text.partition("- Text:\n")[2].partition("\n</user_inst>")[0]


@pytest.mark.parametrize("while_speaking", [True, False])
async def test_the_history_keeps_only_what_was_heard(while_speaking: bool) -> None:
    async with running(LONG, max_unsent_frames=8) as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE)
        if while_speaking:
            await client.audio(6)
        else:
            await client.until("session.idle")
        await client.send("turn.cancel", played_ms=4 * 80 + 30)
        await client.send("turn.create", turn="y", speaker="S2", text="Stop!")
        await client.until("turn.completed", turn="y")
        prompt = recorded(server).requests[-1].prompt_rows
        assert prompt_frames(prompt) == 4
        first, _, second = prompt_text(server, prompt).partition("[S2]")
        assert second == "Stop!"
        words = first.removeprefix("[S1]").split()
        assert words == SENTENCE.split()[: len(words)]
        assert 0 < len(words) < 12


async def test_what_was_not_heard_at_all_is_forgotten() -> None:
    async with running(max_unsent_frames=3) as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE)
        await client.audio(1)
        await client.send("turn.cancel", turn="x", played_ms=0)
        await client.send("turn.create", turn="y", speaker="S2", text="Stop!")
        await client.until("turn.completed", turn="y")
        prompt = recorded(server).requests[-1].prompt_rows
        assert prompt_frames(prompt) == 0
        assert prompt_text(server, prompt) == "[S2]Stop!"


async def test_cancelling_a_queued_turn_takes_nothing_from_the_one_being_spoken() -> None:
    async with running(max_unsent_frames=3) as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE)
        await client.send("turn.create", turn="y", speaker="S2", text="Hello.")
        await client.audio(2)
        await client.send("turn.cancel", turn="y", played_ms=80)
        report = await client.spoken("x")
        await client.until("session.idle")
        await client.send("turn.create", turn="z", speaker="S2", text="Stop!")
        await client.spoken("z")
        prompt = recorded(server).requests[-1].prompt_rows
        assert prompt_frames(prompt) == report["frames"]
        assert prompt_text(server, prompt) == f"[S1]{SENTENCE}[S2]Stop!"


async def test_a_turn_made_but_not_heard_to_its_end_can_be_cut_while_another_is_made() -> None:
    async with running(LONG, max_unsent_frames=3) as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE)
        await client.spoken("x")
        await client.send("turn.create", turn="y", speaker="S2", text="Hello.")
        await client.until("turn.started", turn="y")
        await client.send("turn.cancel", turn="x", played_ms=400)
        report = await client.spoken("y")
        await client.send("turn.create", turn="z", speaker="S1", text="Stop!")
        await client.spoken("z")
        prompt = recorded(server).requests[-1].prompt_rows
        assert prompt_frames(prompt) == 5 + report["frames"]
        assert prompt_text(server, prompt).endswith("[S2]Hello.[S1]Stop!")


async def test_closing_and_stopping_at_once_is_one_end() -> None:
    async with running(drain_s=0.0, max_unsent_frames=2) as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE)
        await client.audio(1)
        stopping = asyncio.create_task(server.stop())
        await client.send("turn.cancel")
        await client.send("session.close")
        await client.until("session.closed")
        await stopping
        with pytest.raises(ConnectionClosed):
            await client.until("session.closed")


async def test_running_turns_finish_before_the_server_stops() -> None:
    async with running(drain_s=WAIT_S, max_unsent_frames=4) as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE)
        await client.audio(1)
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        assert server.state.draining
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{server.port}/readyz") as answer:
                assert answer.status == 503
        with pytest.raises(InvalidStatus):
            async with raw(server):
                pass
        await client.send("turn.create", turn="y", speaker="S1", text="Hello.")
        await client.send("session.start", context="more")
        for _ in range(2):
            error = await client.until("error", code="shutting_down")
            assert not error["fatal"]
        report = await client.spoken("x")
        assert (await client.until("session.closed"))["reason"] == "shutting_down"
        with pytest.raises(ConnectionClosed) as closed:
            await client.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        await stopping
        assert [f.frame for f in client.frames] == list(range(report["frames"]))


async def test_a_turn_that_takes_too_long_is_ended_by_session_closed() -> None:
    async with running(LONG, drain_s=0.0, max_unsent_frames=2) as server, started(server) as client:
        await client.send("turn.create", turn="x", speaker="S1", text=SENTENCE * 3)
        await client.audio(1)
        await server.stop()
        assert (await client.until("session.closed"))["reason"] == "shutting_down"


async def test_health_and_readiness() -> None:
    async with running() as server, aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as http:
        for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
            async with http.get(path) as answer:
                assert answer.status == 200
                assert (await answer.json())["status"] == status
        recorded(server)._step_failure = "RuntimeError: the device is gone"
        async with http.get("/readyz") as answer:
            assert answer.status == 503
            assert "the device is gone" in (await answer.json())["error"]["message"]
        async with http.get("/healthz") as answer:
            assert answer.status == 200
        recorded(server)._step_failure = None


async def live_once(client: RawClient, dice: random.Random) -> None:
    """One session from start to some end."""
    audio = dice.choice([{"format": "opus"}, {"format": "mulaw"}, {"format": "pcm_s16le", "sample_rate": 16000}])
    await client.send("session.start", audio=audio, seed=dice.randrange(1000))
    answer = await client.receive()
    if isinstance(answer, dict) and answer["type"] == "error":
        return
    for i in range(dice.randrange(3)):
        await client.send("turn.create", turn=f"t{i}", speaker=f"S{dice.randint(1, 3)}", text="Hello there.")
    for _ in range(dice.randrange(4)):
        action = dice.choice(["read", "cancel", "ping", "close", "vanish"])
        if action == "read":
            await client.send("ping")
            await client.until("pong")
        elif action == "cancel":
            await client.send("turn.cancel", **dice.choice([{}, {"played_ms": dice.randrange(500)}]))
        elif action == "ping":
            await client.send("ping")
        elif action == "close":
            await client.send("session.close")
            await client.until("session.closed")
            return
        else:
            client.socket.transport.abort()
            return
    if dice.random() < 0.5:
        await client.send("ping")
        await client.until("pong")


async def test_two_hundred_random_lives_leave_nothing_behind() -> None:
    dice = random.Random(11)
    # Who vanishes may come back for a moment: then that is over, too.
    limits = replace(LIMITS, resume_grace_ms=1)
    async with running(limits, max_sessions=6, max_batch=3, max_unsent_frames=4) as server:
        places = asyncio.Semaphore(8)

        async def life(seed: int) -> None:
            async with places:
                try:
                    async with raw(server) as client:
                        await live_once(client, random.Random(seed))
                except (ConnectionClosed, OSError):
                    pass

        await asyncio.gather(*(life(dice.randrange(10**6)) for _ in range(200)))
        # A server whose clients are all gone gives everything back by itself, and still speaks.
        await asyncio.wait_for(server.state.no_sockets.wait(), WAIT_S)
        await asyncio.wait_for(server.state.sessions.wait_none(), WAIT_S)
        engine = server.state.speech.engine
        assert await asyncio.to_thread(engine.wait_idle, WAIT_S)
        assert engine.holdings() == AT_REST
        assert not server.state.speech.encoders
        async with started(server) as client:
            await client.send("turn.create", turn="x", speaker="S1", text="Hello there.")
            await client.spoken("x")
            assert all(isinstance(f, AudioFrame) for f in client.frames)
            assert np.isfinite(client.pcm()).all()
