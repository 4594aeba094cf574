"""Nothing a peer sends makes a connection raise; every answer is a message that can be sent."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bench import fuzz_checks
from streamer_protocol import (
    AudioFormat,
    ClientConnection,
    Limits,
    Rejected,
    ServerConnection,
    SessionReady,
    SessionStart,
)

READY = SessionReady(
    session="s",
    resume_token=None,
    handle=1,
    model="m",
    audio=AudioFormat(),
    voices={},
    limits=Limits(),
)
SEEDS: list[dict[str, Any]] = [
    {"type": "session.start", "voices": {"S1": "heart"}, "audio": {"format": "opus"}, "sampling": {}},
    {"type": "turn.create", "turn": "a", "speaker": "S1", "text": "Hello."},
    {"type": "turn.append", "turn": "b", "text": "Hel"},
    {"type": "turn.commit", "turn": "b"},
    {"type": "script.append", "text": "[S1] Hi.", "script": "c"},
    {"type": "turn.cancel", "turn": "a", "played_ms": 5},
    {"type": "playback", "played_ms": 5},
    {"type": "ping", "id": "1"},
    {"type": "session.close"},
]
NAMES = sorted({name for seed in SEEDS for name in seed} | {"context", "seed", "resume", "zz"})
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["main", "b", "a", "c", "c.1", "S1", "S6", 2**64, -1, 1e308, "x" * 5000])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A well-formed message with some fields added, changed or dropped."""
    message = dict(draw(st.sampled_from(SEEDS)))
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=3)):
        message[name] = draw(values)
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=1)):
        message.pop(name, None)
    return json.dumps(message, ensure_ascii=draw(st.booleans()))


@st.composite
def cut(draw: st.DrawFn) -> bytes:
    """The bytes of such a message with some of them replaced, or with its end missing."""
    data = bytearray(draw(mutated()).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


def check_server(server: ServerConnection, data: str | bytes) -> None:
    for event in server.receive_text(data):
        if isinstance(event, Rejected):
            json.loads(server.send(event.error))
        elif isinstance(event, SessionStart) and event.context == "main":
            server.send(READY)


@given(st.lists(mutated() | cut() | st.binary() | st.text(), max_size=12))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_server_survives_whatever_comes(items: list[str | bytes]) -> None:
    server = ServerConnection(Limits(max_contexts=2, max_queued_turns=3))
    check_server(server, json.dumps(SEEDS[0]))
    for item in items:
        check_server(server, item)
        server.receive_binary(item if isinstance(item, bytes) else b"")


@given(st.lists(st.binary() | st.text() | values.map(json.dumps), max_size=5))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_client_survives_whatever_comes(items: list[str | bytes]) -> None:
    client = ClientConnection()
    client.send(SessionStart())
    for item in items:
        client.receive_text(item)
        client.receive_binary(item if isinstance(item, bytes) else b"")


def test_a_server_survives_thousands_of_valid_messages_in_random_order() -> None:
    """Whole messages, so that the states behind session.ready are reached far more often."""
    rng = random.Random(7)
    server = ServerConnection(Limits(max_queued_turns=5))
    accepted = 0
    for _ in range(5_000):
        message = dict(rng.choice(SEEDS))
        if "turn" in message:
            message["turn"] = f"t{rng.randrange(20)}"
        if message["type"] == "session.close" and rng.random() < 0.9:
            continue
        events = server.receive_text(json.dumps(message))
        accepted += not isinstance(events[0], Rejected)
        if message["type"] == "session.start" and not isinstance(events[0], Rejected):
            server.send(READY)
    assert accepted > 100


@given(st.lists(st.sampled_from(fuzz_checks.seeds()) | mutated().map(str.encode) | cut(), max_size=6))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_promises_of_the_coverage_guided_fuzzer_hold(frames: list[bytes]) -> None:
    fuzz_checks.check(fuzz_checks.SEPARATOR.join(frames))


def test_the_fuzzer_begins_with_frames_that_are_right() -> None:
    server = ServerConnection(fuzz_checks.LIMITS)
    for frame in fuzz_checks.seeds()[0].split(fuzz_checks.SEPARATOR)[:1]:
        assert not isinstance(server.receive_text(frame)[0], Rejected)
    assert any(
        "turn.create" in bytes.fromhex(word.strip('"').replace("\\x", "")).decode() for word in fuzz_checks.words()
    )
