"""The client and the real server over a wire that breaks: every frame and message once, in order, bit for bit."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from clients.broken_wires import (
    FAST,
    GREEDY,
    OPENING_BYTES,
    SCRIPT,
    SENTENCE,
    break_somehow,
    heard,
    said,
    through_a_proxy,
    told_by_the_server,
    until,
)
from serving import WAIT_S

from streamer_client import (
    Audio,
    Backoff,
    ClientSettings,
    Dialogue,
    Error,
    Event,
    OpusDecoder,
    Reconnecting,
    Resumed,
    SessionClosed,
    SessionIdle,
    TurnCompleted,
    connect,
    open_connection,
)
from streamer_protocol import AudioFrame
from streamer_protocol.parsing import parse_server


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str | bytes]:
    return told_by_the_server(monkeypatch)


async def test_random_cuts_lose_nothing_and_repeat_nothing(told: list[str | bytes]) -> None:
    dice = random.Random(11)
    events: list[Event] = []
    n_cuts = 0
    async with through_a_proxy() as (_, proxy):
        async with connect(proxy.url, seed=1, sampling=GREEDY, random=random.Random(1), settings=FAST) as dialogue:
            while n_cuts < 60:
                async for event in dialogue.say(SCRIPT):
                    events.append(event)
                    if isinstance(event, Audio) and dice.random() < 0.2:
                        break_somehow(proxy, dice)
                        n_cuts += 1
        events += [event async for event in dialogue.events()]
    assert heard(events) == said(told)
    assert sum(isinstance(event, Resumed) for event in events) > 30
    assert isinstance(events[-1], SessionClosed)


async def test_opus_is_decoded_as_one_stream() -> None:
    async with through_a_proxy() as (_, proxy):
        async with connect(proxy.url, decode=True, sampling=GREEDY, settings=FAST) as dialogue:
            frames = []
            async for event in dialogue.say(SCRIPT):
                if isinstance(event, Audio):
                    frames.append(event)
                    if len(frames) % 5 == 0:
                        proxy.cut()
    decoder = OpusDecoder(24_000)
    for frame in frames:
        np.testing.assert_array_equal(frame.pcm, decoder.decode(frame.payload))
    assert len(frames) > 20


def test_attempts_are_spread_further_and_further() -> None:
    backoff, dice = Backoff(), random.Random(2)
    assert backoff.delay_s(1, dice) == 0
    for attempt, top_s in [(2, 0.25), (3, 0.5), (5, 2.0), (8, 10.0), (5_000, 10.0)]:
        delays = [backoff.delay_s(attempt, dice) for _ in range(400)]
        assert 0 <= min(delays) < 0.05 * top_s
        assert 0.95 * top_s < max(delays) <= top_s
    assert backoff.delay_s(4, random.Random(7)) == backoff.delay_s(4, random.Random(7))


async def test_the_loss_and_the_return_are_events() -> None:
    async with through_a_proxy() as (_, proxy):
        async with connect(proxy.url, settings=FAST) as dialogue:
            first = dialogue.ready
            proxy.refuse(2)
            proxy.cut()
            events: list[Event] = []
            resumed = await until(dialogue, Resumed, events)
            tries = events[:-1]
            assert all(isinstance(event, Reconnecting) for event in tries)
            assert [event.attempt for event in tries if isinstance(event, Reconnecting)] == [1, 2, 3]
            assert isinstance(tries[0], Reconnecting) and tries[0].delay_ms == 0
            assert "vanished" in tries[0].reason
            assert isinstance(tries[1], Reconnecting) and "before it answered" in tries[1].reason
            assert resumed.lost_ms >= 0
            assert dialogue.ready is first
            await dialogue.ping()
            proxy.cut()
            again = await until(dialogue, Reconnecting)
            assert (again.attempt, again.delay_ms) == (1, 0)


async def test_what_is_sent_while_away_goes_out_in_order_afterwards() -> None:
    async with through_a_proxy() as (_, proxy):
        async with connect(proxy.url, sampling=GREEDY, settings=FAST) as dialogue:
            before = await dialogue.turn("S1", SENTENCE)
            await until(dialogue, Audio)
            proxy.stall()
            proxy.cut()
            await until(dialogue, Reconnecting)
            turns = [await dialogue.turn("S1", "Hello."), await dialogue.turn("S2", "Hi.")]
            async with dialogue.live_turn("S1") as live:
                await live.write("How are ")
                await live.write("you?")
            await dialogue.cancel(before, played_ms=80)
            await dialogue.cancel("nobody")
            events: list[Event] = []
            asked = asyncio.create_task(dialogue.ping())
            proxy.resume()
            await until(dialogue, SessionIdle, events)
            assert await asked > 0
        done = [(event.turn, event.reason) for event in events if isinstance(event, TurnCompleted)]
        assert done[0] == (before, "cancelled")
        assert [turn for turn, _ in done[1:]] == [*turns, live.id]
        assert {reason for _, reason in done[1:]} <= {"end", "max_length"}
        (refusal,) = [event for event in events if isinstance(event, Error)]
        assert (refusal.code, refusal.turn) == ("unknown_turn", "nobody")


async def test_a_sender_waits_while_too_much_is_on_its_way() -> None:
    async with through_a_proxy() as (_, proxy):
        async with connect(proxy.url, settings=ClientSettings(max_unsent_bytes=200)) as dialogue:
            proxy.stall()
            proxy.cut()
            await until(dialogue, Reconnecting)
            for _ in range(20):
                sender = asyncio.create_task(dialogue.played(1))
                done, _ = await asyncio.wait([sender], timeout=0.05)
                if not done:
                    break
            assert not done
            await asyncio.wait_for(dialogue.cancel(), WAIT_S)
            proxy.resume()
            await asyncio.wait_for(sender, WAIT_S)
            # On a sound wire there is no end of room: the server is asked what it has.
            for played_ms in range(50):
                await asyncio.wait_for(dialogue.played(played_ms), WAIT_S)


async def test_what_was_lost_on_the_way_up_is_sent_again_once() -> None:
    async with through_a_proxy() as (_, proxy):
        async with connect(proxy.url, settings=FAST) as dialogue:
            for round_number in range(6):
                proxy.cut_after(up=1 + 37 * round_number)
                turns = [await dialogue.turn("S1", "Hello."), await dialogue.turn("S2", "Hi.")]
                events: list[Event] = []
                while sum(isinstance(event, TurnCompleted) for event in events) < 2:
                    await until(dialogue, TurnCompleted, events)
                assert [event.turn for event in events if isinstance(event, TurnCompleted)] == turns
                assert not [event for event in events if isinstance(event, Error)]


async def test_cuts_in_the_middle_of_coming_back(told: list[str | bytes]) -> None:
    """At every stage of the two handshakes: the session.ready that brings the next token may itself be lost."""
    events: list[Event] = []
    async with through_a_proxy() as (_, proxy):
        async with connect(proxy.url, sampling=GREEDY, settings=FAST) as dialogue:
            for n_bytes in range(1, OPENING_BYTES, 61):
                proxy.cut_after(down=n_bytes)
                proxy.cut()
                async for event in dialogue.say("[S1] Hello."):
                    events.append(event)
        events += [event async for event in dialogue.events()]
    assert heard(events) == said(told)
    tries = [event.attempt for event in events if isinstance(event, Reconnecting)]
    assert sum(attempt > 1 for attempt in tries) > 10


async def test_a_dead_peer_is_noticed() -> None:
    settings = ClientSettings(heartbeat_s=0.05)
    async with through_a_proxy() as (_, proxy):
        async with connect(proxy.url, settings=settings) as dialogue:
            proxy.drop()
            lost = await until(dialogue, Reconnecting)
            assert "no longer answers" in lost.reason
            proxy.resume()
            await until(dialogue, Resumed)
            assert [type(event) async for event in dialogue.say("[S1] Hello.")][-1] is TurnCompleted


async def test_each_dialogue_of_a_connection_is_resumed(told: list[str | bytes]) -> None:
    events: dict[str, list[Event]] = {"main": [], "other": []}
    handles: dict[int, str] = {}

    async def speak(dialogue: Dialogue, name: str) -> None:
        handles[dialogue.ready.handle] = name
        for _ in range(2):
            async for event in dialogue.say(SCRIPT):
                events[name].append(event)
                if isinstance(event, Audio) and event.frame % 9 == 5:
                    proxy.cut()
        await dialogue.close()
        events[name] += [event async for event in dialogue.events()]

    async with through_a_proxy() as (_, proxy), open_connection(proxy.url, settings=FAST) as connection:
        async with connection.dialogue() as one, connection.dialogue(name="other", seed=2) as two:
            await asyncio.gather(speak(one, "main"), speak(two, "other"))
    for handle, name in handles.items():
        mine = [data for data in told if _belongs(data, handle, name)]
        assert heard(events[name]) == said(mine)
        assert sum(isinstance(event, Resumed) for event in events[name]) > 3


def _belongs(data: str | bytes, handle: int, name: str) -> bool:
    if isinstance(data, bytes):
        return AudioFrame.unpack(data).handle == handle
    message = parse_server(data)
    assert not isinstance(message, Exception)
    return message.context == name
