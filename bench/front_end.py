"""``python -m bench.front_end``: how many listeners one core serves when the speech itself costs nothing.

A server with the null model runs on one core, a load generator on another. For each audio format the number of
listeners grows until one of them hears a gap of 100 ms or the audio comes slower than it plays. Each gets its frames at
real time with nothing in hand, so any delay is a gap. Processor time is the server's own (all threads, user and
system); gaps are wall-clock, so on a machine that others use they show those too. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.load import Load, LoadConfig
from bench.machine import machine
from bench.opus_costs import print_opus_costs
from bench.serving import Server, served

FORMATS: dict[str, dict[str, Any]] = {
    "pcm_s16le": {"format": "pcm_s16le", "sample_rate": 24_000, "frame_ms": 80},
    "mulaw": {"format": "mulaw", "sample_rate": 8_000, "frame_ms": 80},
    "opus": {"format": "opus", "sample_rate": 24_000, "frame_ms": 80, "bitrate": 32_000},
}
LEVELS = (100, 200, 400, 800, 1000, 1200)
OPUS_LEVELS = (50, 100, 150, 200, 250)
# The runaway limit of a turn, which the null model speaks up to: 2 s and three times the usual 0.075 s a letter.
_SECONDS_PER_LETTER = 0.225
_SETTLE_S = 1.5
_LEAST_PACE = 0.995


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number of listeners. ``cpu_us_per_frame`` is the server's, over the seconds when all listened."""

    format: str
    listeners: int
    errors: int
    audio_s_per_s: float
    cpu_s_per_audio_s: float
    cpu_us_per_frame: float
    cpu_share: float
    generator_cpu_share: float
    ttfa_p50_ms: float
    ttfa_p95_ms: float
    c50: float
    c100: float
    c200: float
    longest_underrun_ms: float

    @property
    def holds(self) -> bool:
        """Nobody hears a gap of 100 ms, and no backlog grows."""
        return self.c100 == 1.0 and self.audio_s_per_s >= _LEAST_PACE * self.listeners


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.front_end", description=__doc__.partition("\n")[0])
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--listeners", nargs="+", type=int, help="numbers to try, ascending (default: by format)")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long all listen at once (default: 8)")
    parser.add_argument("--opens-per-s", type=float, default=40.0, help="new listeners in a second (default: 40)")
    parser.add_argument("--opus-complexity", type=int, help="of the server (default: its own)")
    parser.add_argument("--to-the-end", action="store_true", help="go on after a number with gaps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    options = parser.parse_args(arguments)
    print(machine())
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two cores are needed: one for the server, one for the listeners")
    os.sched_setaffinity(0, {cores[1]})
    print(_HEADINGS, flush=True)
    results: list[Measurement] = []
    for name in options.formats:
        results += _levels(name, options, cores[0])
    for name in options.formats:
        held = [m.listeners for m in results if m.format == name and m.holds]
        print(f"{name}: real time with C100 = 100 % up to {max(held, default=0)} listeners on one core")
    costs = print_opus_costs() if "opus" in options.formats else []
    if options.json is not None:
        report = {"front_end": [asdict(m) for m in results], "opus": [asdict(cost) for cost in costs]}
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


def _levels(name: str, options: argparse.Namespace, core: int) -> list[Measurement]:
    levels = options.listeners or (OPUS_LEVELS if name == "opus" else LEVELS)
    flags = ["--null-model", "--max-sessions", str(max(levels) + 100), "--log-level", "warning"]
    if options.opus_complexity is not None:
        flags += ["--opus-complexity", str(options.opus_complexity)]
    results: list[Measurement] = []
    with served(flags, cores={core}) as server:
        for n in levels:
            m = measure(server, name, n, options.seconds, options.opens_per_s)
            results.append(m)
            print(_row(m), flush=True)
            if not m.holds and not options.to_the_end:
                break
            # Let the server clear away the last listeners before the next ones come.
            time.sleep(_SETTLE_S)
    return results


def measure(server: Server, name: str, n: int, seconds: float, opens_per_s: float) -> Measurement:
    """Open ``n`` listeners, then measure for ``seconds``. Gaps count from each one's first packet on."""
    audio = FORMATS[name]
    text = turn_text(n / opens_per_s + _SETTLE_S + seconds + 2.0)
    load = Load(LoadConfig(server.url, audio, text, opens_per_s=opens_per_s))
    try:
        load.open(n)
        load.read_for(_SETTLE_S)
        before = (server.cpu_s(), time.process_time(), time.monotonic(), _n_frames(load))
        load.read_for(seconds)
        after = (server.cpu_s(), time.process_time(), time.monotonic(), _n_frames(load))
    finally:
        load.close()
    cpu_s, own_s, wall_s, n_frames = (b - a for a, b in zip(before, after, strict=True))
    audio_s = n_frames * audio["frame_ms"] / 1000
    underruns_ms = np.array([listener.player.longest_underrun_s * 1000 for listener in load.listeners])
    heard = np.array([listener.error is None and listener.n_frames > 0 for listener in load.listeners])
    ttfa_ms = [listener.ttfa_s * 1000 for listener in load.listeners if listener.ttfa_s is not None] or [float("nan")]
    return Measurement(
        format=name,
        listeners=n,
        errors=sum(listener.error is not None for listener in load.listeners),
        audio_s_per_s=audio_s / wall_s,
        cpu_s_per_audio_s=cpu_s / max(audio_s, 1e-9),
        cpu_us_per_frame=cpu_s / max(n_frames, 1) * 1e6,
        cpu_share=cpu_s / wall_s,
        generator_cpu_share=own_s / wall_s,
        ttfa_p50_ms=float(np.percentile(ttfa_ms, 50)),
        ttfa_p95_ms=float(np.percentile(ttfa_ms, 95)),
        c50=float(np.mean(heard & (underruns_ms < 50))),
        c100=float(np.mean(heard & (underruns_ms < 100))),
        c200=float(np.mean(heard & (underruns_ms < 200))),
        longest_underrun_ms=float(underruns_ms.max()),
    )


def turn_text(seconds: float) -> str:
    """A text that the null model speaks for at least so long, up to the server's limit for one turn."""
    words = ("one", "two", "three", "four")
    n_words = int(seconds / _SECONDS_PER_LETTER / 3) + 1
    return " ".join(words[i % len(words)] for i in range(n_words))


def _n_frames(load: Load) -> int:
    return sum(listener.n_frames for listener in load.listeners)


_HEADINGS = (
    "format     listeners  audio s/s  CPU s per audio s  µs a frame  CPU   C50    C100   C200   longest gap"
    "  TTFA p50/p95  errors  generator CPU"
)


def _row(m: Measurement) -> str:
    return (
        f"{m.format:<10} {m.listeners:>9} {m.audio_s_per_s:>10.1f} {m.cpu_s_per_audio_s:>18.6f} "
        f"{m.cpu_us_per_frame:>11.1f} {m.cpu_share:>4.0%} {m.c50:>6.1%} {m.c100:>6.1%} {m.c200:>6.1%} "
        f"{m.longest_underrun_ms:>9.0f} ms {m.ttfa_p50_ms:>6.0f}/{m.ttfa_p95_ms:<4.0f} ms {m.errors:>7} "
        f"{m.generator_cpu_share:>13.0%}"
    )


if __name__ == "__main__":
    sys.exit(main())
