"""Connections: several dialogues on one, who is let in, encryption, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import subprocess
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest
from clients.broken_wires import GREEDY, SCRIPT, SENTENCE, through_a_proxy, until
from clients.scripted_server import Peer, serving, speak
from serving import running
from websockets.asyncio.server import ServerConnection as Socket
from websockets.http11 import Request, Response

from streamer_client import (
    Audio,
    AudioFormat,
    ClientError,
    ClientSettings,
    Dialogue,
    DialogueError,
    Event,
    EventsNotRead,
    HandshakeError,
    Resumed,
    ScriptAccepted,
    SessionClosed,
    TurnCompleted,
    connect,
    open_connection,
)
from streamer_protocol import SessionClose, SessionStart


async def turns_of(dialogue: Dialogue) -> list[str]:
    return [e.turn async for e in dialogue.say(f"[S1] {SENTENCE} [S2] Hi.") if isinstance(e, TurnCompleted)]


async def test_dialogues_of_one_connection_do_not_mix() -> None:
    async with through_a_proxy() as (server, proxy), open_connection(proxy.url) as connection:
        async with connection.dialogue() as one, connection.dialogue(name="b", decode=True) as two:
            assert await asyncio.gather(turns_of(one), turns_of(two)) == [["s1.1", "s1.2"]] * 2
            await two.turn("S1", "Hello.")
            heard = await until(two, Audio)
            assert (heard.context, len(heard.pcm)) == ("b", 1920)
            async with connection.dialogue() as three:
                assert three.ready.session != one.ready.session
                with pytest.raises(DialogueError, match="too_many_contexts"):
                    async with connection.dialogue():
                        pytest.fail("opened")
                with pytest.raises(ClientError, match="`b` is open"):
                    async with connection.dialogue(name="b"):
                        pytest.fail("opened")
        # A name is free again, and so is the connection.
        async with connection.dialogue(name="b") as again:
            assert await turns_of(again) == ["s1.1", "s1.2"]
        assert proxy.accepted == 1
        assert len(server.state.sessions) == 0


async def test_a_connection_lost_while_nothing_is_open_is_made_anew() -> None:
    async with through_a_proxy() as (_, proxy), open_connection(proxy.url) as connection:
        proxy.cut()
        await proxy.wait_live(0)
        async with connection.dialogue() as dialogue:
            assert await turns_of(dialogue) == ["s1.1", "s1.2"]
        assert proxy.accepted == 2
    with pytest.raises(ClientError, match="closed here"):
        async with connection.dialogue():
            pytest.fail("opened")


async def test_a_dialogue_that_nobody_reads_does_not_hold_up_the_others() -> None:
    settings = ClientSettings(max_held_bytes=1, unread_patience_s=0.05)
    async with running() as server, open_connection(server.url, settings=settings) as connection:
        async with connection.dialogue() as unread, connection.dialogue() as read:
            await unread.turn("S1", SENTENCE)
            assert await turns_of(read) == ["s1.1", "s1.2"]
            with pytest.raises(EventsNotRead, match="`main` left 1 bytes of events unread"):
                _ = [event async for event in unread.events()]
            with pytest.raises(EventsNotRead):
                await unread.turn("S1", "More.")
            assert await turns_of(read) == ["s2.1", "s2.2"]


async def test_a_reader_that_pauses_for_longer_than_the_heartbeat_loses_nothing() -> None:
    settings = ClientSettings(max_held_bytes=1, heartbeat_s=0.05)
    pcm = AudioFormat(format="pcm_s16le", frame_ms=20)
    async with through_a_proxy() as (_, proxy):
        async with connect(proxy.url, audio=pcm, sampling=GREEDY, settings=settings) as dialogue:
            seen: list[Event] = []
            async for event in dialogue.say(SCRIPT):
                if not seen:
                    # Nothing is read, not even the answers to pings.
                    await proxy.wait_live(0)
                seen.append(event)
        frames = [event.frame for event in seen if isinstance(event, Audio)]
        assert frames == list(range(len(frames)))
        assert any(isinstance(event, Resumed) for event in seen)


async def test_a_dialogue_that_is_given_up_while_it_opens_is_closed() -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(SessionStart)
        await peer.expect(SessionClose)
        await peer.send(SessionClosed(context="slow", reason="closed by the client"))
        await speak(peer)

    async with serving(script) as url, open_connection(url, open_timeout_s=0.1) as connection:
        with pytest.raises(HandshakeError, match="no session within"):
            async with connection.dialogue(name="slow"):
                pytest.fail("opened")
        async with connection.dialogue() as dialogue:
            assert await turns_of(dialogue) == ["s1.1", "s1.2"]


async def test_a_token_travels_in_the_address_and_is_not_shown() -> None:
    paths: list[str] = []

    async def script(peer: Peer) -> None:
        assert peer.socket.request is not None
        paths.append(peer.socket.request.path)
        assert "Authorization" not in peer.socket.request.headers
        await speak(peer)

    async with serving(script) as url, connect(f"{url}/v1/dialogue?a=b", token="t/1+2\n") as dialogue:
        _ = [event async for event in dialogue.say("x")]
    assert paths == ["/v1/dialogue?a=b&token=t%2F1%2B2"]

    def refuse(socket: Socket, request: Request) -> Response:
        return socket.respond(401, "expired\n")

    async with serving(speak, process_request=refuse) as url:
        with pytest.raises(HandshakeError, match="expired") as caught:
            async with connect(url, token="secret"):
                pytest.fail("opened")
        assert "secret" not in str(caught.value)
    with pytest.raises(HandshakeError, match="cannot reach") as caught:
        async with connect(url, token="secret"):
            pytest.fail("opened")
    assert "secret" not in str(caught.value)
    with pytest.raises(HandshakeError, match="both `api_key` and `token`"):
        async with connect(url, token="secret", api_key="key"):
            pytest.fail("opened")


def certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *subject, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


async def test_an_encrypted_server(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    async with serving(speak, ssl=context) as url:
        encrypted = url.replace("ws:", "wss:")
        trusting = ssl.create_default_context(cafile=str(cert))
        async with connect(encrypted, ssl=trusting) as dialogue:
            assert len([event async for event in dialogue.say("x")]) > 3
        with pytest.raises(HandshakeError, match="not trusted") as caught:
            async with connect(encrypted):
                pytest.fail("opened")
        assert caught.value.final
        with pytest.raises(HandshakeError, match="not encrypted; use wss://"):
            async with connect(url, ssl=trusting):
                pytest.fail("opened")


class CancelledAt:
    """Runs `work` and cancels the task it runs in when it waits for the n-th time; `reached` tells if it did."""

    def __init__(self, work: Coroutine[Any, Any, None], n: int) -> None:
        self._work = work
        self._n = n
        self.reached = False

    def __await__(self) -> Generator[Any, Any, None]:
        failure: BaseException | None = None
        for count in itertools.count():
            try:
                waiting = self._work.send(None) if failure is None else self._work.throw(failure)
            except StopIteration:
                return
            failure = None
            if count == self._n:
                self.reached = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield waiting
            except BaseException as error:
                failure = error


async def test_a_cancellation_at_any_moment_leaves_no_task_and_no_socket() -> None:
    async with through_a_proxy() as (server, proxy):
        stage, cancelled_in = "", set[str]()

        async def use() -> None:
            nonlocal stage
            stage = "connecting"
            async with open_connection(proxy.url) as connection, connection.dialogue() as dialogue:
                stage = "open"
                await dialogue.ping()
                stage = "speaking"
                async with dialogue.live_turn("S1") as turn:
                    await turn.write("Good morning. ")
                    await until(dialogue, Audio)
                    stage = "cut off"
                    proxy.cut()
                    await turn.write("How are you?")
                await until(dialogue, TurnCompleted)

        async def run(work: CancelledAt) -> None:
            await work

        for n in itertools.count():
            before = asyncio.all_tasks()
            work = CancelledAt(use(), n)
            (outcome,) = await asyncio.gather(run(work), return_exceptions=True)
            assert isinstance(outcome, asyncio.CancelledError) == work.reached, outcome
            await proxy.wait_live(0)
            left = [task for task in asyncio.all_tasks() - before if "streamer_client" in repr(task)]
            assert left == []
            if not work.reached:
                break
            cancelled_in.add(stage)
        # How often it waits depends on how many messages come at once; that it does so at every stage does not.
        assert cancelled_in == {"connecting", "open", "speaking", "cut off"}
        for session in server.state.sessions.all():
            await session.end("test")


async def test_leaving_a_block_by_an_error_closes_the_session() -> None:
    async with running() as server:
        with pytest.raises(ZeroDivisionError):
            async with connect(server.url) as dialogue:
                async for event in dialogue.say(f"[S1] {SENTENCE}"):
                    if isinstance(event, ScriptAccepted):
                        raise ZeroDivisionError
        assert len(server.state.sessions) == 0
        assert isinstance([event async for event in dialogue.events()][-1], SessionClosed)
