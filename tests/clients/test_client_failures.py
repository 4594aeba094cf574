"""The client over real sockets: servers that refuse, break the protocol, or vanish."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest
from clients.scripted_server import Peer, audio, completed, serving, speak, started
from websockets.asyncio.server import ServerConnection as Socket
from websockets.http11 import Request, Response

from streamer_client import (
    Audio,
    ConnectionLost,
    DialogueError,
    HandshakeError,
    LocalProtocolError,
    ProtocolError,
    connect,
)
from streamer_protocol import (
    AudioFrame,
    AudioKind,
    Error,
    ErrorCode,
    Ping,
    ScriptAppend,
    SessionClosed,
    SessionIdle,
    SessionStart,
    make_error,
)


async def test_a_refused_script_is_an_error_and_the_dialogue_goes_on() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        name = (await peer.expect(ScriptAppend)).script
        await peer.send(
            Error(code="overloaded", message="full", turn=name, retry_after_ms=50),
            make_error(ErrorCode.INTERNAL, "-"),
        )
        await peer.expect(ScriptAppend)
        await peer.send(make_error(ErrorCode.INVALID_SCRIPT, "no turn"))
        (turn,) = await peer.accept()
        other = make_error(ErrorCode.INTERNAL, "about another turn", turn="t9")
        await peer.send(other, started(turn), completed(turn))
        await peer.finish()

    async with serving(script) as url, connect(url) as dialogue:
        with pytest.raises(DialogueError, match="overloaded: full") as caught:
            _ = [event async for event in dialogue.say("x")]
        assert (caught.value.code, caught.value.turn, caught.value.retry_after_ms) == ("overloaded", "s1", 50)
        with pytest.raises(DialogueError, match="internal"):
            _ = [event async for event in dialogue.say("x")]
        with pytest.raises(DialogueError, match="invalid_script"):
            _ = [event async for event in dialogue.say("x")]


async def test_an_error_in_one_of_the_turns_is_raised_another_is_not() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        (turn,) = await peer.accept()
        await peer.send(
            make_error(ErrorCode.INTERNAL, "about another", turn="t9"),
            started(turn),
            make_error(ErrorCode.INTERNAL, "engine broke", turn=turn),
        )
        await peer.finish()

    async with serving(script) as url, connect(url) as dialogue:
        seen: list[str] = []
        with pytest.raises(DialogueError, match="engine broke"):
            async for event in dialogue.say("x"):
                seen.append(type(event).__name__)
        assert seen == ["ScriptAccepted", "Error", "TurnStarted"]


async def test_a_ping_without_answer_is_an_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.expect(Ping)
        await peer.finish()

    async with serving(script) as url, connect(url) as dialogue:
        with pytest.raises(ConnectionLost, match="ping"):
            await dialogue.ping(timeout_s=0.01)


async def dies(peer: Peer, *, half: bytes = b"") -> None:
    await peer.open()
    (turn,) = await peer.accept()
    await peer.send(started(turn), audio(0))
    await peer.expect(Ping)
    peer.socket.transport.write(half)
    peer.socket.transport.close() if half else peer.socket.transport.abort()


@pytest.mark.parametrize("half", [b"", b"\x82\x7e\x01\x00" + b"\x01" * 20], ids=["mid-turn", "mid-message"])
async def test_a_server_that_dies_is_reported_after_what_it_sent(half: bytes) -> None:
    async with serving(lambda peer: dies(peer, half=half)) as url, connect(url) as dialogue:
        seen = []
        with pytest.raises(ConnectionLost, match="vanished"):
            async for event in dialogue.say("x"):
                seen.append(type(event).__name__)
                if isinstance(event, Audio):
                    with pytest.raises(ConnectionLost):
                        await dialogue.ping()
        assert seen == ["ScriptAccepted", "TurnStarted", "Audio"]
        with pytest.raises(ConnectionLost):
            await dialogue.turn("S1", "More.")


async def test_a_server_that_closes_early_is_reported_with_its_reason() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.accept()
        await peer.socket.close(1001, "maintenance")

    async with serving(script) as url, connect(url) as dialogue:
        with pytest.raises(ConnectionLost, match="1001 maintenance"):
            _ = [event async for event in dialogue.say("x")]


async def test_a_session_closed_in_the_middle_is_an_error_of_say() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.accept()
        await peer.send(SessionClosed(reason="shutdown"))
        await peer.socket.wait_closed()

    async with serving(script) as url, connect(url) as dialogue:
        with pytest.raises(ConnectionLost, match="closed before the script"):
            _ = [event async for event in dialogue.say("x")]


async def test_a_fatal_error_is_raised_after_the_events_before_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.send(SessionIdle(), make_error(ErrorCode.SHUTTING_DOWN, "bye"))
        await peer.socket.close(1001)

    async with serving(script) as url, connect(url) as dialogue:
        seen = []
        with pytest.raises(DialogueError, match="shutting_down: bye"):
            async for event in dialogue.events():
                seen.append(event)
        assert seen == [SessionIdle()]


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (audio(2).pack(), "skips: got 2, expected 1"),
        (audio(0).pack(), "repeats: got 0, expected 1"),
        (b"short", "5 bytes"),
        ('{"type":"surprise"}', "surprise"),
        (AudioFrame(handle=7, turn_index=0, frame=1, kind=AudioKind.OPUS, payload=b"\x03").pack(), "Opus"),
        (
            AudioFrame(handle=7, turn_index=0, frame=1, kind=AudioKind.OPUS, payload=b"\x02\xff").pack(),
            "Opus",
        ),
    ],
    ids=["skip", "repeat", "header", "type", "frame-count", "packet"],
)
async def test_a_server_that_breaks_the_protocol_is_left(raw: bytes | str, match: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        (turn,) = await peer.accept()
        await peer.send(started(turn), audio(0))
        await peer.socket.send(raw)
        await peer.socket.wait_closed()
        assert peer.socket.close_code == 1002

    async with serving(script) as url, connect(url, decode=True) as dialogue:
        seen = []
        with pytest.raises(ProtocolError, match=match):
            async for event in dialogue.say("x"):
                seen.append(type(event).__name__)
        assert seen == ["ScriptAccepted", "TurnStarted", "Audio"]


async def test_a_server_that_does_not_speak_websocket_is_left_for_good() -> None:
    async def script(peer: Peer) -> None:
        await peer.open(resume_token="again")
        await peer.accept()
        peer.socket.transport.write(b"\x81\x01\xff")
        await peer.socket.wait_closed()
        assert peer.socket.close_code == 1007

    async with serving(script) as url, connect(url) as dialogue:
        with pytest.raises(ProtocolError, match="1007"):
            _ = [event async for event in dialogue.say("x")]


async def test_a_refused_session_is_an_error_of_connect() -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(SessionStart)
        await peer.send(make_error(ErrorCode.UNKNOWN_VOICE, "no voice `nobody`"))
        await peer.socket.wait_closed()

    async with serving(script) as url:
        with pytest.raises(DialogueError, match="unknown_voice: no voice `nobody`"):
            async with connect(url, voices={"S1": "nobody"}):
                pytest.fail("opened")


async def test_a_server_that_never_answers_the_start_is_an_error_of_connect() -> None:
    async with serving(lambda peer: peer.socket.wait_closed()) as url:
        with pytest.raises(HandshakeError, match="no session within"):
            async with connect(url, open_timeout_s=0.5):
                pytest.fail("opened")


async def test_a_server_that_dies_during_the_start_is_an_error_of_connect() -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(SessionStart)
        peer.socket.transport.abort()

    async with serving(script) as url:
        with pytest.raises(ConnectionLost, match="vanished"):
            async with connect(url):
                pytest.fail("opened")


@pytest.mark.parametrize(
    ("status", "match"),
    [
        (401, "HTTP 401; no key; pass the right api_key"),
        (503, "HTTP 503; no key; .*busy"),
        (418, "HTTP 418; no key$"),
    ],
)
async def test_a_refused_handshake_says_why(status: int, match: str) -> None:
    def refuse(socket: Socket, request: Request) -> Response:
        return socket.respond(HTTPStatus(status), "no key\n")

    async with serving(speak, process_request=refuse) as url:
        with pytest.raises(HandshakeError, match=match):
            async with connect(url):
                pytest.fail("opened")


async def test_another_kind_of_websocket_server_is_refused() -> None:
    async with serving(lambda peer: peer.socket.wait_closed(), subprotocols=None) as url:
        with pytest.raises(HandshakeError, match=r"does not speak dialogue\.v1"):
            async with connect(url):
                pytest.fail("opened")


async def test_what_is_no_websocket_server_is_refused() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(HandshakeError, match="did not answer as a WebSocket server"):
            async with connect(f"127.0.0.1:{port}"):
                pytest.fail("opened")
    with pytest.raises(HandshakeError, match=r"cannot reach .*streamer serve"):
        async with connect(f"127.0.0.1:{port}"):
            pytest.fail("opened")


async def test_wrong_arguments_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(LocalProtocolError, match=r"\$.voices"):
        async with connect("127.0.0.1:1", voices={"S9": "heart"}):
            pytest.fail("opened")
    async with serving(speak) as url, connect(url) as dialogue:
        with pytest.raises(LocalProtocolError, match=r"\$.text"):
            await dialogue.turn("S1", "")
        _ = [event async for event in dialogue.say("x")]
