"""A client that lost its connection: when it stops trying, what it says then, and what it believes of a server."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest
from clients.broken_wires import (
    FAST,
    LIMITS,
    SCRIPT,
    through_a_proxy,
    until,
)
from clients.scripted_server import Peer, serving, started
from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection as Socket
from websockets.http11 import Request, Response

from streamer_client import (
    Audio,
    ConnectionLost,
    Event,
    ProtocolError,
    Reconnecting,
    Resumed,
    SessionClosed,
    connect,
    open_connection,
)
from streamer_protocol import ErrorCode, ScriptAppend, SessionStart, make_error


async def test_after_the_grace_time_it_is_over() -> None:
    async with through_a_proxy(replace(LIMITS, resume_grace_ms=150)) as (_, proxy):
        async with connect(proxy.url, settings=FAST) as dialogue:
            proxy.refuse(10**6)
            with pytest.raises(
                ConnectionLost, match=r"vanished.*as long as the server keeps the session.*before it answered"
            ):
                async for event in dialogue.say(SCRIPT):
                    if isinstance(event, Audio):
                        proxy.cut()
            with pytest.raises(ConnectionLost, match="vanished"):
                await dialogue.turn("S1", "More.")


async def test_a_session_that_the_server_has_ended_is_over() -> None:
    async with through_a_proxy() as (server, proxy):
        async with connect(proxy.url, settings=FAST) as dialogue:
            proxy.stall()
            proxy.cut()
            await until(dialogue, Reconnecting)
            (session,) = server.state.sessions.all()
            await session.end("test")
            proxy.resume()
            with pytest.raises(ConnectionLost, match=r"vanished.*can't be resumed: resume_failed.*has ended"):
                await until(dialogue, Resumed)


async def test_without_resume_a_loss_is_the_end() -> None:
    async with through_a_proxy() as (_, proxy):
        async with connect(proxy.url, resume=False) as dialogue:
            with pytest.raises(ConnectionLost, match="vanished"):
                async for event in dialogue.say(SCRIPT):
                    if isinstance(event, Audio):
                        proxy.cut()
        assert proxy.accepted == 1


async def test_closing_while_away_is_done_at_once() -> None:
    async with through_a_proxy() as (_, proxy):
        async with open_connection(proxy.url) as connection, connection.dialogue() as dialogue:
            proxy.stall()
            proxy.cut()
            await until(dialogue, Reconnecting)
            await proxy.wait_accepted(2)
            await dialogue.close()
            assert [event async for event in dialogue.events()] == []
            with pytest.raises(ConnectionLost, match="closed here"):
                await dialogue.turn("S1", "Hello.")
            # Nothing of it goes on trying: it is not the server that hangs up on a connection without sessions.
            proxy.resume()
            await asyncio.wait_for(proxy.wait_live(0), LIMITS.handshake_timeout_ms / 2000)


async def test_a_connection_that_never_holds_is_tried_less_and_less() -> None:
    """Each time the session is resumed, and what comes then breaks it again."""
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        if len(peers) == 1:
            await lost_once(peer)
        elif len(peers) < 6:
            await peer.resume(peers[-2], received=1)
            peer.socket.transport.abort()
        else:
            await peer.resume(peers[-2], received=1)
            await peer.send(SessionClosed(reason="enough"))
            await peer.socket.wait_closed()

    events: list[Event] = []
    async with serving(script) as url:
        with pytest.raises(ConnectionLost, match="closed before"):
            async with connect(url, settings=FAST) as dialogue:
                async for event in dialogue.say("x"):
                    events.append(event)
    assert [event.attempt for event in events if isinstance(event, Reconnecting)] == [1, 2, 3, 4, 5]


async def lost_once(peer: Peer) -> SessionStart:
    """Open, take a script, break; the start that comes afterwards is for the next connection."""
    await peer.open(resume_token="first")
    (turn,) = await peer.accept()
    await peer.send(started(turn))
    peer.socket.transport.abort()
    await peer.socket.wait_closed()
    return peer.start


async def play(url: str) -> list[Event]:
    async with connect(url, settings=FAST) as dialogue:
        return [event async for event in dialogue.say("x")]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_server_that_does_not_let_the_client_back_in_ends_it(status: int) -> None:
    n_requests = 0

    def refuse(socket: Socket, request: Request) -> Response | None:
        nonlocal n_requests
        n_requests += 1
        return None if n_requests == 1 else socket.respond(HTTPStatus(status), "no\n")

    async with serving(lost_once, process_request=refuse) as url:
        with pytest.raises(ConnectionLost, match=f"vanished.*does not take it back.*HTTP {status}"):
            await play(url)
    assert n_requests == 2


async def test_a_busy_server_is_asked_again() -> None:
    n_requests = 0

    def refuse(socket: Socket, request: Request) -> Response | None:
        nonlocal n_requests
        n_requests += 1
        return socket.respond(HTTPStatus(503), "busy\n") if 2 <= n_requests <= 4 else None

    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        if len(peers) == 1:
            await lost_once(peer)
        else:
            start = await peer.expect(SessionStart)
            assert (start.resume, start.messages_after) == ("first", 2)
            await peer.send(make_error(ErrorCode.UNAUTHORIZED, "the token has expired"))

    async with serving(script, process_request=refuse) as url:
        with pytest.raises(ConnectionLost, match=r"vanished.*can't be resumed: unauthorized"):
            await play(url)
    assert n_requests == 5


@pytest.mark.parametrize("received", [0, 3])
async def test_the_number_of_messages_that_a_server_has_is_believed_within_reason(received: int) -> None:
    """What it has not got comes again; that it should have more than was sent can't be."""
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        if len(peers) == 1:
            await peer.open(resume_token="first")
            await peer.socket.recv()  # and lose it
            peer.socket.transport.abort()
            return
        await peer.resume(peers[0], received=received)
        if received == 0:
            script = await peer.expect(ScriptAppend)
            assert (script.script, script.text) == ("s1", "x")
            await peer.send(SessionClosed(reason="enough"))
        await peer.socket.wait_closed()

    async with serving(script) as url:
        match = "received 3, which is not in 0..1" if received else "closed before the script"
        with pytest.raises((ProtocolError, ConnectionLost), match=match):
            await play(url)
