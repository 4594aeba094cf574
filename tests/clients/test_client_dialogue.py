"""The client over real sockets: dialogues that go well."""

from __future__ import annotations

import asyncio

import numpy as np
import opuslib_next
import pytest
from clients.scripted_server import PACKETS, Peer, audio, completed, serving, speak, started

from streamer_client import (
    Audio,
    AudioFormat,
    ClientError,
    ClientSettings,
    ConnectionLost,
    NotDecoded,
    Sampling,
    connect,
)
from streamer_protocol import (
    AudioKind,
    ErrorCode,
    Ping,
    Pong,
    ScriptAccepted,
    SessionClose,
    SessionClosed,
    SessionStart,
    TurnCancel,
    TurnCompleted,
    TurnCreate,
    TurnStarted,
    make_error,
)


async def test_a_script_is_spoken_in_order() -> None:
    async with serving(speak) as url, connect(url, voices={"S1": "heart"}) as dialogue:
        assert (dialogue.ready.model, dialogue.ready.voices) == ("tiny", {"S1": "heart"})
        events = [event async for event in dialogue.say("[S1] Hello. [S2] Hi.")]
    kinds = [type(event).__name__ for event in events]
    assert kinds == [
        *("ScriptAccepted", "Queued", "TurnStarted", "Audio", "Audio", "TurnCompleted"),
        *("TurnStarted", "Audio", "TurnCompleted"),
    ]
    heard = [event for event in events if isinstance(event, Audio)]
    assert [(a.turn, a.turn_index, a.frame, a.last) for a in heard] == [
        ("s1.1", 0, 0, False),
        ("s1.1", 0, 1, True),
        ("s1.2", 1, 2, True),
    ]
    assert [(a.context, a.kind, a.payload, a.duration_ms) for a in heard] == [
        ("main", AudioKind.OPUS, packet, 80.0) for packet in PACKETS[:3]
    ]


async def test_every_argument_reaches_the_server() -> None:
    seen: list[tuple[SessionStart, str | None]] = []

    async def script(peer: Peer) -> None:
        await peer.open()
        assert peer.socket.request is not None
        seen.append((peer.start, peer.socket.request.headers.get("Authorization")))
        assert peer.socket.request.path == "/v1/dialogue"
        await peer.finish()

    pcm = AudioFormat(format="pcm_s16le", sample_rate=16_000, frame_ms=20)
    greedy = Sampling(audio_temperature=0)
    async with (
        serving(script) as url,
        connect(
            url.removeprefix("ws://"),
            voices={"S2": "joe"},
            audio=pcm,
            mode="script",
            language="en",
            seed=5,
            sampling=greedy,
            api_key="secret\n",
        ),
    ):
        pass
    start = SessionStart(voices={"S2": "joe"}, audio=pcm, mode="script", language="en", seed=5, sampling=greedy)
    assert seen == [(start, "Bearer secret")]


async def test_decoding_is_done_once_in_order_if_asked_for() -> None:
    async with serving(speak) as url, connect(url, decode=True) as dialogue:
        heard = [event async for event in dialogue.say("x") if isinstance(event, Audio)]
    decoder = opuslib_next.Decoder(24_000, 1)
    for event in [*heard, *heard]:
        assert event.pcm.dtype == np.float32
    expected = [np.frombuffer(decoder.decode_float(packet, 1920), np.float32) for packet in PACKETS[:3]]
    np.testing.assert_array_equal([event.pcm for event in heard], expected)


async def test_without_decode_a_packet_has_no_samples() -> None:
    async with serving(speak) as url, connect(url) as dialogue:
        heard = [event async for event in dialogue.say("x") if isinstance(event, Audio)]
    with pytest.raises(NotDecoded, match="decode=True"):
        _ = heard[0].pcm


async def test_single_turns_and_cancel() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        turn = await peer.expect(TurnCreate)
        assert (turn.speaker, turn.text) == ("S1", "Hello.")
        await peer.send(started(turn.turn), audio(0))
        cancel = await peer.expect(TurnCancel)
        assert (cancel.turn, cancel.played_ms) == (turn.turn, 40)
        await peer.send(completed(turn.turn, reason="cancelled"))
        assert await peer.expect(TurnCancel) == TurnCancel()
        await peer.send(make_error(ErrorCode.INTERNAL, "minor"), SessionClosed(reason="timeout"))
        await peer.socket.wait_closed()

    async with serving(script) as url, connect(url) as dialogue:
        turn = await dialogue.turn("S1", "Hello.")
        seen = []
        async for event in dialogue.events():
            seen.append(type(event).__name__)
            if isinstance(event, Audio):
                await dialogue.cancel(turn, played_ms=40)
            if isinstance(event, TurnCompleted):
                assert event.reason == "cancelled"
                await dialogue.cancel()
        assert seen == ["TurnStarted", "Audio", "TurnCompleted", "Error", "SessionClosed"]
        with pytest.raises(ConnectionLost, match="timeout"):
            await dialogue.turn("S1", "More.")


async def test_leaving_a_loop_early_loses_no_event() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        (first,) = await peer.accept()
        await peer.send(started(first), audio(0), completed(first))
        (second,) = await peer.accept()
        await peer.send(started(second, 1, 1), audio(1, 1), completed(second, 1))
        await peer.finish()

    async with serving(script) as url, connect(url) as dialogue:
        frames = []
        async for event in dialogue.say("x"):
            if isinstance(event, ScriptAccepted):
                break
        async for event in dialogue.say("y"):
            if isinstance(event, Audio):
                frames.append((event.turn, event.frame))
        assert frames == [("s1.1", 0), ("s2.1", 1)]


async def test_a_ping_is_answered_while_nobody_reads_events() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        (turn,) = await peer.accept()
        await peer.send(started(turn), *(audio(number) for number in range(200)))
        ping = await peer.expect(Ping)
        await peer.send(Pong(id=ping.id), completed(turn))
        await peer.finish()

    async with serving(script) as url, connect(url) as dialogue:
        frames = 0
        async for event in dialogue.say("x"):
            if isinstance(event, ScriptAccepted):
                assert await dialogue.ping() > 0
            frames += isinstance(event, Audio)
        assert frames == 200


async def test_a_message_in_fragments_arrives_whole() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        (turn,) = await peer.accept()
        data = peer.protocol.send(started(turn))
        await peer.socket.send([data[:9], data[9:10], data[10:]])
        packed = peer.protocol.send(audio(0))
        await peer.socket.send([packed[:3], packed[3:17], packed[17:]])
        await peer.send(completed(turn))
        await peer.finish()

    async with serving(script) as url, connect(url) as dialogue:
        events = [event async for event in dialogue.say("x")]
        assert [type(event) for event in events] == [ScriptAccepted, TurnStarted, Audio, TurnCompleted]


async def test_two_readers_at_once_are_refused() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.finish()

    async with serving(script) as url, connect(url) as dialogue:
        first = asyncio.ensure_future(anext(aiter(dialogue.events())))
        await asyncio.wait([first], timeout=0.01)
        with pytest.raises(ClientError, match="another task"):
            await anext(aiter(dialogue.events()))
        await dialogue.close()
        assert await first == SessionClosed(reason="client")
        await dialogue.close()


async def test_events_nobody_reads_hold_the_server_back_but_not_the_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        (turn,) = await peer.accept()
        await peer.send(started(turn), *(audio(number) for number in range(50)), completed(turn))
        await peer.finish()

    async with serving(script) as url:
        async with connect(url, settings=ClientSettings(max_held_bytes=1)) as dialogue:
            async for _ in dialogue.say("x"):
                break
        frames = [event.frame async for event in dialogue.events() if isinstance(event, Audio)]
        assert frames == list(range(50))


async def test_closing_in_the_middle_of_speech_cancels_and_ends() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        (turn,) = await peer.accept()
        await peer.send(started(turn), audio(0))
        await peer.expect(SessionClose)
        await peer.send(completed(turn, reason="cancelled"), SessionClosed(reason="client"))
        await peer.socket.wait_closed()
        assert peer.socket.close_code == 1000

    async with serving(script) as url:
        async with connect(url) as dialogue:
            async for event in dialogue.say("x"):
                if isinstance(event, Audio):
                    break
        rest = [type(event) async for event in dialogue.events()]
        assert rest == [TurnCompleted, SessionClosed]
