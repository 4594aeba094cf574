"""What a client may say, as JSON objects, and what can go wrong with it on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Fields = dict[str, Any]

ids = st.sampled_from(["t1", "t2", "t3", "s1", "s1.1", "s1.2"])
texts = st.sampled_from(["x", "Grüße, 世界 🎧", "y" * 30, "z" * 51])
speakers = st.sampled_from(["S1", "S2"])
maybe_seed = st.none() | st.integers(0, 2**63 - 1)
maybe_sampling = st.none() | st.fixed_dictionaries({}, optional={"text_top_k": st.integers(1, 9)})
played = st.integers(0, 2**53 - 1)
contexts = st.sampled_from(["main", "main", "main", "b", "c"])

# Required fields first, then those that may be left out.
SHAPES: dict[str, tuple[Fields, Fields]] = {
    "session.start": (
        {},
        {
            "voices": st.dictionaries(speakers, st.just("heart")),
            "audio": st.fixed_dictionaries({}, optional={"frame_ms": st.sampled_from([20, 80])}),
            "language": st.sampled_from([None, "de", "zh-Hans"]),
            "mode": st.sampled_from(["turns", "script"]),
            "words": st.booleans(),
            "sampling": maybe_sampling.map(lambda value: value or {}),
            "seed": maybe_seed,
        },
    ),
    "turn.create": (
        {"turn": ids, "speaker": speakers, "text": texts},
        {"sampling": maybe_sampling, "seed": maybe_seed},
    ),
    "turn.append": (
        {"turn": ids, "text": texts},
        {"speaker": st.none() | speakers, "sampling": maybe_sampling, "seed": maybe_seed},
    ),
    "turn.commit": ({"turn": ids}, {}),
    "script.append": ({"text": texts}, {"script": st.sampled_from([None, "s1", "s2"]), "seed": maybe_seed}),
    "turn.cancel": ({}, {"turn": st.none() | ids, "played_ms": st.none() | played}),
    "playback": ({"played_ms": played}, {}),
    "session.close": ({}, {}),
    "ping": ({}, {"id": st.sampled_from([None, "p"])}),
}


@st.composite
def messages(draw: st.DrawFn) -> Fields:
    """One well-formed message, under `context` "main" mostly."""
    # Texts more often than the rest, so that dialogues get somewhere.
    kind = draw(st.sampled_from(["turn.append", *SHAPES, *["turn.create", "turn.append", "turn.commit"] * 3]))
    required, optional = SHAPES[kind]
    fields: Fields = draw(st.fixed_dictionaries(required, optional={**optional, "context": contexts}))
    if kind == "turn.append" and draw(st.integers(0, 3)):
        fields["speaker"] = "S1"
    if kind == "session.close":
        # Most are of the contexts that do little else.
        fields["context"] = draw(st.sampled_from(["b", "b", "c", "main"]))
    return {"type": kind, **fields}


@dataclass(frozen=True)
class Broken:
    """A message as it arrives; `named` must be in the error, None if the message may even be right."""

    data: str | bytes
    named: str | None


WRONG = [[], [1], {"zz": 1}, True, -1, 2**63, 2**64, -(2**70), 1e400, 0.5, "", "a b", "a\n", "S9", "x" * 65]


def retyped(draw: st.DrawFn, message: Fields) -> Broken:
    """A value of a wrong type, or out of range, which at times happens to be right."""
    key = draw(st.sampled_from(sorted(message)))
    value = draw(st.sampled_from(WRONG))
    # Python writes Infinity, which is not JSON.
    text = json.dumps({**message, key: value}).replace("Infinity", "1e400")
    return Broken(text, key)


def misnamed(draw: st.DrawFn, message: Fields) -> Broken:
    """A field that does not exist."""
    key = draw(st.sampled_from(["zz", "Type", "turns", "speaker ", "\u200b"]))
    return Broken(json.dumps({**message, key: 1}, ensure_ascii=False), key)


def shortened(draw: st.DrawFn, message: Fields) -> Broken:
    """Without one of its fields."""
    key = draw(st.sampled_from(sorted(message)))
    rest = {name: value for name, value in message.items() if name != key}
    return Broken(json.dumps(rest), key)


def repeated(draw: st.DrawFn, message: Fields) -> Broken:
    """A key that comes twice, the right value last."""
    key = draw(st.sampled_from(sorted(message)))
    value = draw(st.sampled_from(["S1", "t1", 5]))
    return Broken(json.dumps(message).replace("{", f'{{"{key}": {json.dumps(value)}, ', 1), key)


def nested(draw: st.DrawFn, message: Fields) -> Broken:
    """A value that is nested deeply, closed or not."""
    key = draw(st.sampled_from(sorted(message)))
    depth = draw(st.sampled_from([2, 50, 900]))
    closed = draw(st.booleans())
    value = "[" * depth + "]" * depth * closed
    return Broken(json.dumps({**message, key: "@"}).replace('"@"', value), None)


def not_a_number(draw: st.DrawFn, message: Fields) -> Broken:
    """What some JSON writers make of numbers that are none."""
    key = draw(st.sampled_from(sorted(message)))
    value = draw(st.sampled_from(["NaN", "Infinity", "-Infinity", "01", "+1", "1.", "0x1", "9" * 400]))
    return Broken(json.dumps({**message, key: "@"}).replace('"@"', value), None)


def cut_short(draw: st.DrawFn, message: Fields) -> Broken:
    """Bytes that stop somewhere, within a character perhaps."""
    data = json.dumps({**message, "text": "é世🎧"}, ensure_ascii=False).encode()
    return Broken(data[: draw(st.integers(0, len(data)))], None)


def overwritten(draw: st.DrawFn, message: Fields) -> Broken:
    """One byte is another."""
    data = bytearray(json.dumps(message).encode())
    data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return Broken(bytes(data), None)


MUTATIONS: list[Callable[[st.DrawFn, Fields], Broken]] = [
    retyped,
    misnamed,
    shortened,
    repeated,
    nested,
    not_a_number,
    cut_short,
    overwritten,
]


@st.composite
def mutated(draw: st.DrawFn) -> Broken:
    """A message with one thing wrong."""
    return draw(st.sampled_from(MUTATIONS))(draw, draw(messages()))
