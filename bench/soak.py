"""``python -m bench.soak --minutes 10``: a real server among guests and vandals; nothing may leak, break or be lost.

Guests behave: scripts, text in pieces, barge-ins, lost connections, several dialogues on a socket, HTTP. Vandals do
everything else that comes to a public address: half handshakes, broken frames, fuzzed messages, floods, readers that
stop, connections cut at any moment. Both live one short life after another, drawn by the seed. ``--messages N``: a fuzz
of N messages through the parser and the connection's state instead, in this process.
Exit code 1 if anything was held, grew or broke.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.machine import machine
from bench.soaking.guests import Guests
from bench.soaking.in_process import fuzz
from bench.soaking.tally import Tally
from bench.soaking.target import Health, Target
from bench.soaking.vandals import LONG_STOP_S, Vandals

# Short times, so that what has to end by itself does so many times over.
SERVER_FLAGS = (
    *("--port", "0", "--drain", "0", "--log-level", "warning", "--max-sessions", "128"),
    *("--set", "limits.handshake_timeout_ms=3000", "--set", "limits.resume_grace_ms=5000"),
    *("--set", "limits.idle_timeout_ms=20000"),
)
_SETTLE_S = 90.0
_STOP_S = 30.0
# Between the middle and the end; a heap that fills up its gaps grows a little.
_MEMORY_SHARE, _MEMORY_BYTES = 0.10, 32 * 2**20
_MAX_LOGGED = 20
Life = Callable[[random.Random], Awaitable[None]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 1 if anything leaked or broke."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--url", help="a server that runs already (default: one is started)")
    parser.add_argument(
        "--null-model", action="store_true", help="start the server without a model: the front end alone"
    )
    parser.add_argument("--guests", type=int, default=8, help="clients at once that behave (default: 8)")
    parser.add_argument("--vandals", type=int, default=32, help="clients at once that do not (default: 32)")
    parser.add_argument("--messages", type=int, help="fuzz so many messages in process, and nothing else")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    options = parser.parse_args(arguments)
    began = machine()
    print(began, flush=True)
    report = fuzz(options.messages, options.seed) if options.messages else _soak(options)
    report["machine"] = began
    print(json.dumps(report, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 1 if report["broken"] else 0


def _soak(options: argparse.Namespace) -> dict[str, Any]:
    tally = Tally()
    began_s = time.monotonic()
    with contextlib.nullcontext(options.url) if options.url is not None else _served(options, tally) as url:
        moments = asyncio.run(_phases(url, tally, options))
    return _report(tally, moments, time.monotonic() - began_s)


async def _phases(url: str, tally: Tally, options: argparse.Namespace) -> dict[str, Health]:
    """A warm-up, then twice half of the time; after each, everybody goes, and the server is asked what it holds."""
    target = await Target.of(url)
    # The first life of each kind pays for what is set up lazily.
    seconds = {"start": min(20.0, options.minutes * 12), "middle": options.minutes * 30, "end": options.minutes * 30}
    moments: dict[str, Health] = {}
    for phase, when in enumerate(seconds):
        await _mix(target, tally, options, seconds[when], phase)
        moments[when] = await _at_rest(target, tally, when)
    return moments


async def _mix(target: Target, tally: Tally, options: argparse.Namespace, seconds: float, phase: int) -> None:
    """So many guests and vandals, one life after another, until the time is over."""
    deadline_s = time.monotonic() + seconds
    guests, vandals = Guests(target, tally), Vandals(target, tally)

    async def lives(live: Life, number: int) -> None:
        dice = random.Random(f"{options.seed} {phase} {number}")
        while time.monotonic() < deadline_s:
            await live(dice)

    async def stop_for_long() -> None:
        if seconds >= 2 * LONG_STOP_S:
            await vandals.live(random.Random(options.seed), long_stop=True)

    crowd = [lives(guests.live, number) for number in range(options.guests)]
    crowd += [lives(vandals.live, -1 - number) for number in range(options.vandals)]
    await asyncio.gather(stop_for_long(), *crowd)


async def _at_rest(target: Target, tally: Tally, when: str) -> Health:
    """The server's figures when everybody has gone; what it still holds is a problem."""
    health = await target.settled(_SETTLE_S)
    for name, n in health.held.items():
        if n:
            tally.problem(f"{when}: {n} {name} are held though nobody is there")
    if not health.healthy:
        tally.problem(f"{when}: the engine has failed")
    figures = f"{health.rss_bytes / 2**20:.0f} MiB, {health.open_files} files open, {tally.connects} connects so far"
    print(f"{when}: {figures}, {tally.n_problems} problems", flush=True)
    return health


def _report(tally: Tally, moments: dict[str, Health], seconds: float) -> dict[str, Any]:
    start, middle, end = moments["start"], moments["middle"], moments["end"]
    if end.open_files > start.open_files:
        tally.problem(f"{end.open_files} files are open at the end, {start.open_files} were at the start")
    allowed = max(_MEMORY_SHARE * middle.rss_bytes, _MEMORY_BYTES)
    if end.rss_bytes - middle.rss_bytes > allowed:
        tally.problem(f"memory grew from {middle.rss_bytes} to {end.rss_bytes} bytes in the second half")
    return {
        "seconds": round(seconds, 1),
        **tally.report(),
        "server": {
            "messages_received": end.received,
            "sessions_opened": end.opened,
            "sessions_resumed": end.resumed,
            "refusals": end.refusals,
            "held_at_the_end": end.held,
            "rss_mib": {name: round(health.rss_bytes / 2**20, 1) for name, health in moments.items()},
            "open_files": {name: health.open_files for name, health in moments.items()},
        },
        "broken": tally.n_problems > 0,
    }


@contextlib.contextmanager
def _served(options: argparse.Namespace, tally: Tally) -> Iterator[str]:
    """The address of a server of our own. What it logs is a problem, and so is an end that is not in order."""
    flags = [*SERVER_FLAGS, *(["--null-model"] if options.null_model else [])]
    command = [sys.executable, "-m", "streamer.cli", "serve", *flags]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                raise RuntimeError("streamer serve did not start; its last words are below")
            yield line.split()[-1]
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            if process.returncode != 0:
                tally.problem(f"the server ended with {process.returncode} after SIGTERM")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            log.seek(0)
            for line in log.read().splitlines()[:_MAX_LOGGED]:
                print(line, file=sys.stderr)
                tally.problem(f"the server logged: {line}")


if __name__ == "__main__":
    sys.exit(main())
