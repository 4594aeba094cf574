"""Messages for fuzzing, by a small grammar: most are right, some have one thing wrong. Seeded, and quick to make."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Fields = dict[str, Any]

_CONTEXTS = ("main", "main", "main", "b")
_TURNS = tuple(f"t{n}" for n in range(12))
_TEXTS = ("Yes.", "Hello there.", "Grüße, 世界 🎧!", "And so ", "[laugh] ", "?!", "x" * 300, "[S2] no")
_SCRIPTS = ("[S1] Hello. [S2] Hi.", "[S3] Yes.", "[S6] No.", "...", "[S1]" * 40, "[S1] a [S2] b [S1] c [S2] d")
_WRONG: tuple[Any, ...] = (None, [], {}, True, -1, 2**63, 1e308, 0.5, "", "a b", "S9", "x" * 65, "\u0000", {"zz": 1})


def _start(dice: random.Random) -> Fields:
    audio = {"format": dice.choice(["opus", "mulaw", "pcm_s16le"]), "frame_ms": dice.choice([20, 40, 60, 80])}
    return {"audio": audio, "seed": dice.randrange(100), "mode": dice.choice(["turns", "script"])}


def _turn(dice: random.Random) -> Fields:
    return {"turn": dice.choice(_TURNS), "speaker": f"S{dice.randint(1, 5)}", "text": dice.choice(_TEXTS)}


def _piece(dice: random.Random) -> Fields:
    piece = _turn(dice)
    if dice.random() < 0.5:
        del piece["speaker"]
    return piece


def _cancel(dice: random.Random) -> Fields:
    return dice.choice([{}, {"turn": dice.choice(_TURNS)}, {"played_ms": dice.randrange(5000)}])


_SHAPES: dict[str, Callable[[random.Random], Fields]] = {
    "session.start": _start,
    "turn.create": _turn,
    "turn.append": _piece,
    "turn.commit": lambda dice: {"turn": dice.choice(_TURNS)},
    "script.append": lambda dice: {"text": dice.choice(_SCRIPTS), "script": f"s{dice.randrange(9)}"},
    "turn.cancel": _cancel,
    "playback": lambda dice: {"played_ms": dice.randrange(100_000)},
    "ping": lambda dice: {"id": f"p{dice.randrange(100)}"},
    "session.close": lambda dice: {},
}
_KINDS = (*_SHAPES, *("turn.append", "turn.commit", "ping", "turn.cancel") * 2)


def message(dice: random.Random) -> Fields:
    """A well-formed message, which may come at a wrong moment."""
    kind = dice.choice(_KINDS)
    fields = {"type": kind, "context": dice.choice(_CONTEXTS), **_SHAPES[kind](dice)}
    if kind == "session.close" and dice.random() < 0.7:
        fields["context"] = "b"
    return fields


def _retyped(dice: random.Random, fields: Fields) -> bytes:
    return _encode({**fields, dice.choice([*fields]): dice.choice(_WRONG)})


def _misnamed(dice: random.Random, fields: Fields) -> bytes:
    return _encode({**fields, dice.choice(["zz", "Type", "turns", "\u200b"]): 1})


def _shortened(dice: random.Random, fields: Fields) -> bytes:
    gone = dice.choice([*fields])
    return _encode({name: value for name, value in fields.items() if name != gone})


def _nested(dice: random.Random, fields: Fields) -> bytes:
    depth = dice.choice([2, 40, 900])
    return _encode({**fields, dice.choice([*fields]): "@"}).replace(b'"@"', b"[" * depth + b"]" * depth)


def _cut(dice: random.Random, fields: Fields) -> bytes:
    data = _encode(fields)
    return data[: dice.randrange(len(data))]


def _overwritten(dice: random.Random, fields: Fields) -> bytes:
    data = bytearray(_encode(fields))
    # Seldom so that it is not UTF-8 any more: that closes the socket.
    data[dice.randrange(len(data))] = dice.randrange(256 if dice.random() < 0.1 else 128)
    return bytes(data)


_MUTATIONS = (_retyped, _misnamed, _shortened, _nested, _cut, _overwritten)


def frame(dice: random.Random, damaged: float) -> bytes:
    """What goes into a text frame; the share ``damaged`` of all has one thing wrong, its UTF-8 perhaps."""
    fields = message(dice)
    return dice.choice(_MUTATIONS)(dice, fields) if dice.random() < damaged else _encode(fields)


def _encode(fields: Fields) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()
