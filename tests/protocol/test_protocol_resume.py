"""Going on with a context over another socket: what each end keeps, what it counts, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from protocol.server_side import LIMITS, audio, completed, create, give, opened, ready, refused, started

from streamer_protocol import (
    AudioFormat,
    ClientConnection,
    Context,
    ErrorCode,
    LocalProtocolError,
    Ping,
    Playback,
    Pong,
    RemoteProtocolError,
    ServerConnection,
    SessionClose,
    SessionClosed,
    SessionIdle,
    SessionReady,
    SessionStart,
    TurnCreate,
    make_error,
    pack,
)
from streamer_protocol.parsing import encode_server

RESUMED = replace(ready(), resumed=True, received=1, resume_token="second")
TURN = TurnCreate(turn="t1", speaker="S1", text="Hello.")


def context_of(server: ServerConnection, name: str = "main") -> Context:
    context = server.context(name)
    assert context is not None
    return context


def both_open() -> tuple[ClientConnection, ServerConnection]:
    client, server = ClientConnection(), ServerConnection(LIMITS)
    server.receive_text(client.send(SessionStart()))
    client.receive_text(server.send(ready()))
    return client, server


def lost() -> tuple[Context, Context]:
    """Both ends' context of a connection that broke after one audio frame and one message."""
    client, server = both_open()
    server.receive_text(client.send(TURN))
    client.receive_text(server.send(started("t1")))
    client.receive_binary(server.send(audio(0)))
    client.receive_text(server.send(completed("t1")))
    kept = client.release("main")
    assert kept is not None
    return kept, server.release("main")


def test_a_context_goes_on_where_it_was() -> None:
    kept, released = lost()
    client, server = ClientConnection(), ServerConnection(LIMITS)
    (start,) = server.receive_text(client.resume("main", kept, "first"))
    assert start == SessionStart(resume="first", last_frame=0, messages_after=1)
    assert client.receive_text(server.adopt(released, RESUMED)) == [RESUMED]
    assert released.open
    again = create(server, "t1")
    assert refused(again).code == ErrorCode.DUPLICATE_TURN
    server.receive_text(client.send(replace(TURN, turn="t2")))
    client.receive_text(server.send(started("t2", index=1, first_frame=1)))
    assert client.receive_binary(server.send(audio(1, turn_index=1))) == [audio(1, turn_index=1)]


def test_what_counts_and_what_does_not() -> None:
    client, server = both_open()
    for message in (Ping(), TURN, Playback(played_ms=0)):
        server.receive_text(client.send(message))
    context = context_of(server)
    assert context.client_messages == 2
    client.receive_text(server.send(Pong()))
    client.receive_text(server.send(SessionIdle()))
    client.receive_text(server.send(make_error(ErrorCode.INTERNAL, "broken")))
    kept = client.release("main")
    assert kept is not None
    assert (kept.messages_after, context.messages_after) == (2, 2)
    assert kept.resuming("t", "main") == SessionStart(resume="t", last_frame=None, messages_after=2)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        ('{"type":"turn.create","turn":"t1","zz":1}', 1),
        ('{"type":"turn.commit","turn":"t1"}', 1),
        ('{"type":"a.later.version"}', 1),
        ("{", 1),
        ('{"type":"ping","id":5}', 0),
        ('{"type":"session.start","zz":1}', 0),
        ('{"type":"session.start"}', 0),
        ('{"type":"playback","context":"b"}', 0),
        ("x" * 3_000, 0),
    ],
)
def test_a_refused_message_was_received_as_well(data: str, count: int) -> None:
    """A client that does not know why it was refused must not send it again after every cut."""
    server = opened()
    error = refused(server.receive_text(data)[0])
    context = context_of(server)
    assert context.client_messages == count
    server.send(error)
    assert context.messages_after == (error.context == "main")


def test_errors_before_the_session_is_ready_do_not_count() -> None:
    server = ServerConnection(LIMITS)
    give(server, "session.start")
    server.send(refused(create(server, "t1")))
    server.send(ready())
    assert context_of(server).messages_after == 0


def test_a_connection_that_is_taken_over_tells_its_client() -> None:
    server = opened()
    server.release("main")
    assert server.contexts == ("main",)
    assert not context_of(server).open
    assert "closing" in refused(create(server, "t1")).message
    server.send(SessionClosed(reason="resumed elsewhere"))
    assert server.contexts == ()


def test_a_context_may_be_closed_by_who_holds_it() -> None:
    server = opened()
    pack(context_of(server), SessionClosed(reason="idle_timeout"))
    assert server.contexts == ()
    assert server.context("main") is None
    with pytest.raises(LocalProtocolError, match="absent"):
        server.send(SessionIdle())
    give(server, "session.start")
    server.send(ready())


def test_a_cut_while_resuming_loses_nothing() -> None:
    kept, _ = lost()
    for token in ("first", "first", "second"):
        client = ClientConnection()
        client.resume("main", kept, token)
        assert client.release("main") is kept
    assert client.resume("main", kept, "second") == ClientConnection().resume("main", kept, "second")


def test_a_refused_resume_leaves_the_name_free() -> None:
    kept, _ = lost()
    client = ClientConnection()
    client.resume("main", kept, "old")
    error = make_error(ErrorCode.RESUME_FAILED, "the session has ended")
    assert client.receive_text(ServerConnection().send(error)) == [error]
    assert client.release("main") is None
    client.send(SessionStart())


@pytest.mark.parametrize("last", [None, SessionStart(), SessionClose()])
def test_only_an_open_context_can_be_taken_along(last: SessionStart | SessionClose | None) -> None:
    client, server = ClientConnection(), ServerConnection()
    if isinstance(last, SessionClose):
        client, server = both_open()
    if last is not None:
        server.receive_text(client.send(last))
    assert client.release("main") is None
    with pytest.raises(LocalProtocolError, match="`main` is not open"):
        server.release("main")


def test_a_context_is_adopted_only_where_it_was_asked_for() -> None:
    _, released = lost()
    server = ServerConnection(LIMITS)
    with pytest.raises(LocalProtocolError, match="`main` is not starting"):
        server.adopt(released, RESUMED)
    with pytest.raises(LocalProtocolError, match="`main` is not starting"):
        opened().adopt(released, RESUMED)
    give(server, "session.start", resume="first")
    for wrong in (replace(RESUMED, resumed=False), replace(RESUMED, handle=2)):
        with pytest.raises(LocalProtocolError, match="keeps its handle"):
            server.adopt(released, wrong)
    server.adopt(released, RESUMED)


def test_a_name_in_use_and_a_wrong_token_are_refused_before_they_leave() -> None:
    kept, _ = lost()
    client, _ = both_open()
    with pytest.raises(LocalProtocolError, match="`main` is in use"):
        client.resume("main", kept, "first")
    with pytest.raises(LocalProtocolError, match="resume"):
        ClientConnection().resume("main", kept, "x" * 257)


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (replace(RESUMED, handle=2), "another handle or format"),
        (replace(RESUMED, audio=AudioFormat(format="mulaw")), "another handle or format"),
        (replace(RESUMED, resumed=False), "has a handle already"),
    ],
)
def test_a_client_notices_a_session_that_is_not_its_own(told: SessionReady, problem: str) -> None:
    kept, _ = lost()
    client = ClientConnection()
    client.resume("main", kept, "first")
    (event,) = client.receive_text(encode_server(told))
    assert isinstance(event, RemoteProtocolError)
    assert problem in str(event)


def test_a_new_session_is_not_a_resumed_one() -> None:
    client, server = ClientConnection(), ServerConnection(LIMITS)
    client.send(SessionStart())
    give(server, "session.start")
    with pytest.raises(LocalProtocolError, match="another handle"):
        server.send(RESUMED)


def test_no_audio_comes_before_the_session_is_ready_again() -> None:
    kept, _ = lost()
    client = ClientConnection()
    client.resume("main", kept, "first")
    (event,) = client.receive_binary(audio(1).pack())
    assert isinstance(event, RemoteProtocolError)
    assert "unknown handle 1" in str(event)


def test_a_handle_waiting_to_be_resumed_is_not_in_the_way_of_another_session() -> None:
    kept, _ = lost()
    client = ClientConnection()
    client.resume("main", kept, "of a server that was started anew")
    client.send(SessionStart(context="b"))
    other: Any = ready("b", handle=1)
    server = ServerConnection()
    give(server, "session.start", context="b")
    assert client.receive_text(server.send(other)) == [other]
