"""What must hold for whatever arrives on a dialogue socket, and where a fuzzer may begin.

An input is the frames of one socket, a NUL byte between two.
"""

from __future__ import annotations

import json

from streamer_protocol import (
    AudioFormat,
    ClientConnection,
    Limits,
    Rejected,
    RemoteProtocolError,
    ServerConnection,
    ServerEvent,
    SessionReady,
    SessionStart,
    TurnCreate,
)
from streamer_protocol.asyncapi import AUDIO_EXAMPLE, CLIENT_EXAMPLES, SERVER_EXAMPLES
from streamer_protocol.parsing import encode_client, encode_server, parse_client, parse_server

SEPARATOR = b"\0"
LIMITS = Limits(max_message_bytes=4096, max_text_chars=200, max_contexts=2, max_queued_turns=3)
READY = SessionReady(
    session="s", resume_token=None, handle=1, model="m", audio=AudioFormat(), voices={}, limits=LIMITS, received=1
)


def check(data: bytes) -> None:
    """Give the frames to a server and to a client; AssertionError for whatever breaks a promise of theirs."""
    frames = data.split(SEPARATOR)[:32]
    check_server(frames)
    check_client(frames)


def check_server(frames: list[bytes]) -> None:
    """Text and bytes are answered alike, with one event each, and every error can be sent and read."""
    server, twin = ServerConnection(LIMITS), ServerConnection(LIMITS)
    for frame in frames:
        is_open = server.closing is None
        events = server.receive_text(frame)
        assert len(events) == is_open, "a frame is answered once"
        try:
            same = twin.receive_text(frame.decode())
        except UnicodeDecodeError:
            same = twin.receive_text(frame)
        assert same == events, "text and bytes differ"
        for end, answers in ((server, events), (twin, same)):
            for event in answers:
                answer(end, event)
        assert server.contexts == twin.contexts


def answer(server: ServerConnection, event: ServerEvent) -> None:
    """Refuse what was refused, open what was asked for; both must survive the wire."""
    if isinstance(event, Rejected):
        assert parse_server(server.send(event.error)) == event.error, "the error does not survive the wire"
        return
    assert parse_client(encode_client(event), 1 << 20) == event, "the message does not survive the wire"
    if isinstance(event, SessionStart) and event.context == "main":
        server.send(READY)


def check_client(frames: list[bytes]) -> None:
    """A client that waits for a turn takes what comes, as text and as audio, or says once what is wrong."""
    client = ClientConnection()
    client.send(SessionStart())
    client.receive_text(encode_server(READY))
    client.send(TurnCreate(turn="t1", speaker="S1", text="x"))
    for frame in frames:
        for event in (*client.receive_text(frame), *client.receive_binary(frame)):
            assert not isinstance(event, RemoteProtocolError) or client.closing, "the connection is broken by now"
        # Each frame finds an open connection: what comes after an error is not looked at.
        client.closing = False


def seeds() -> list[bytes]:
    """Where to begin: dialogues from the examples of the AsyncAPI document, and an audio frame."""
    client = [encode_client(message).encode() for message in CLIENT_EXAMPLES]
    server = [encode_server(message).encode() for message in SERVER_EXAMPLES]
    return [SEPARATOR.join(client), SEPARATOR.join(server), *client, *server, AUDIO_EXAMPLE.pack()]


def words() -> list[str]:
    """Keys and values that a mutation should know, as lines of libFuzzer's dictionary."""
    found: set[str] = {"[", "{", "null", "NaN", "1e400", '"\\ud800"'}
    for seed in seeds()[:2]:
        for text in seed.decode().split("\0"):
            for key, value in json.loads(text).items():
                found |= {f'"{key}":', json.dumps(value)}
    escaped = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in sorted(found) if len(word) < 64)
    return [f'"{word}"' for word in escaped]
