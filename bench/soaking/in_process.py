"""Messages by the million through the parser and the connection's state, without a socket."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

from bench.fuzz_checks import check_server
from bench.soaking.grammar import frame
from streamer_protocol import Error
from streamer_protocol.parsing import parse_client

_DIALOGUE_MESSAGES = 32
_DAMAGED = 0.4
_MAX_BYTES = 4096


def fuzz(n_messages: int, seed: int) -> dict[str, Any]:
    """Dialogues of some messages each, given as bytes to one connection and as text to its twin.

    Every message is answered once, by both alike, with something that survives the wire: see `bench.fuzz_checks`.
    """
    dice = random.Random(seed)
    began_s = time.monotonic()
    outcomes: Counter[str] = Counter()
    problems: list[str] = []
    left = n_messages
    while left > 0 and not problems:
        frames = [frame(dice, _DAMAGED) for _ in range(min(_DIALOGUE_MESSAGES, left))]
        left -= len(frames)
        try:
            check_server(frames)
        except Exception as error:
            # The report names it; the frames are what it takes to see it again.
            problems.append(f"{type(error).__name__}: {error}; frames: {frames!r}")
        for data in frames:
            parsed = parse_client(data, _MAX_BYTES)
            outcomes[parsed.code if isinstance(parsed, Error) else "well-formed"] += 1
    return {
        "messages": n_messages - left,
        "seconds": round(time.monotonic() - began_s, 1),
        "parsed_as": dict(outcomes.most_common()),
        "problems": problems,
        "broken": bool(problems),
    }
