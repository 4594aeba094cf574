"""``streamer bench``: a load generator. Many clients at once, one JSON line of latencies and continuity."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streamer.commands import CommandError
from streamer_client import Audio, ClientError, LocalProtocolError, TurnCompleted, connect

DEFAULT_SCRIPT = (
    "[S1] Good morning, how are you today? [S2] I am very well, thank you for asking. "
    "[S1] The weather is lovely, so let us go for a walk. [S2] That is a good idea."
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("bench", help="measure a running server under load")
    parser.add_argument("--url", default="ws://127.0.0.1:8000/v1/dialogue", help="the server")
    parser.add_argument("--clients", type=int, default=1, help="dialogues at once (default: 1)")
    parser.add_argument("--rounds", type=int, default=1, help="scripts each client speaks, one after another")
    parser.add_argument("--text", default=DEFAULT_SCRIPT, help="the script")
    parser.add_argument("--stagger", type=float, default=0.0, metavar="SECONDS", help="time between client starts")
    parser.add_argument("--api-key", help="for a server that asks for one")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one JSON line; exit code 1 if any client met an error."""
    for name in ("clients", "rounds"):
        if getattr(arguments, name) < 1:
            raise CommandError(f"--{name} is {getattr(arguments, name)}, expected at least 1", 2)
    report = asyncio.run(_bench(arguments))
    print(json.dumps(report))
    return 1 if report["errors"] else 0


@dataclass(slots=True)
class Stream:
    """What one client measured. ``arrivals``: (seconds since its script was sent, duration_ms) of each packet."""

    arrivals: list[tuple[float, float]] = field(default_factory=list)
    server_ttfa_ms: list[float] = field(default_factory=list)
    error: str | None = None

    @property
    def ttfa_ms(self) -> float:
        """From sending the script to its first packet."""
        return self.arrivals[0][0] * 1000

    @property
    def rtf(self) -> float:
        """Time until the last packet over the audio received."""
        return self.arrivals[-1][0] * 1000 / sum(duration for _, duration in self.arrivals)

    @property
    def longest_underrun_ms(self) -> float:
        """The longest silence in a player that starts with the first packet and waits for each late one."""
        return longest_underrun_ms(self.arrivals)


def longest_underrun_ms(arrivals: Sequence[tuple[float, float]]) -> float:
    """The longest wait of a player without a start-up buffer. ``arrivals``: (arrival in s, duration in ms)."""
    longest = 0.0
    play_s = arrivals[0][0] if arrivals else 0.0
    for arrival_s, duration_ms in arrivals:
        if arrival_s > play_s:
            longest = max(longest, (arrival_s - play_s) * 1000)
            play_s = arrival_s
        play_s += duration_ms / 1000
    return longest


async def _bench(arguments: argparse.Namespace) -> dict[str, object]:
    began = time.monotonic()
    clients = [_client(arguments, i) for i in range(arguments.clients)]
    streams = [stream for group in await asyncio.gather(*clients) for stream in group]
    return summary(streams, arguments.clients, time.monotonic() - began)


async def _client(arguments: argparse.Namespace, number: int) -> list[Stream]:
    await asyncio.sleep(number * arguments.stagger)
    streams = [Stream() for _ in range(arguments.rounds)]
    try:
        async with connect(arguments.url, seed=number, api_key=arguments.api_key) as dialogue:
            for stream in streams:
                sent = time.monotonic()
                async for event in dialogue.say(arguments.text):
                    if isinstance(event, Audio):
                        stream.arrivals.append((time.monotonic() - sent, event.duration_ms))
                    elif isinstance(event, TurnCompleted) and event.ttfa_ms is not None:
                        stream.server_ttfa_ms.append(event.ttfa_ms)
    except (ClientError, LocalProtocolError, OSError) as error:
        failed = next((s for s in streams if not s.arrivals), streams[-1])
        failed.error = f"{type(error).__name__}: {error}"
        print(f"client {number}: {failed.error}", file=sys.stderr)
    return streams


def summary(streams: Sequence[Stream], clients: int, wall_s: float) -> dict[str, object]:
    """The figures of all streams; those that met an error count as errors only."""
    good = [s for s in streams if s.arrivals and s.error is None]
    underruns = [s.longest_underrun_ms for s in good]
    audio_s = sum(duration for s in good for _, duration in s.arrivals) / 1000
    return {
        "clients": clients,
        "streams": len(good),
        "errors": sum(s.error is not None for s in streams),
        "audio_s": round(audio_s, 2),
        "wall_s": round(wall_s, 2),
        "audio_s_per_s": round(audio_s / wall_s, 2),
        "ttfa_ms": _percentiles([s.ttfa_ms for s in good]),
        "turn_ttfa_ms": _percentiles([t for s in good for t in s.server_ttfa_ms]),
        "rtf": _percentiles([s.rtf for s in good]),
        **{f"c{ms}": _share([u < ms for u in underruns]) for ms in (50, 100, 200)},
        "underrun_p95_ms": _percentiles(underruns)["p95"],
    }


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"p50": None, "p95": None, "p99": None}
    return {f"p{p}": round(float(np.percentile(values, p)), 3) for p in (50, 95, 99)}


def _share(flags: Sequence[bool]) -> float | None:
    return round(sum(flags) / len(flags), 4) if flags else None
