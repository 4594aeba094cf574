"""``python -m bench.simulate``: first audio and continuity against the number of streams, for two ways to schedule.

The scheduler is the engine's own; the machine's times and the listeners are simulated, the same listeners for both.
Prints a table for each machine and how many streams each policy carries, and draws docs/simulation.svg.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.simulation import BUSY_CPU, CPU, H100, Behaviour, Machine, Results, simulate
from bench.svg import HEIGHT, WIDTH, Axis, line_chart
from streamer.engine.deadlines import Pacing

PICTURE = Path(__file__).parents[1] / "docs" / "simulation.svg"
STREAMS = {
    CPU: (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40),
    BUSY_CPU: (1, 2, 3, 4, 5, 6, 7, 8, 10, 12),
    H100: (8, 32, 64, 96, 128, 160, 192, 224, 256, 320, 400),
}
SECONDS = {CPU: 120.0, BUSY_CPU: 240.0, H100: 30.0}
POLICIES: dict[str, Pacing | None] = {"first come": None, "deadlines": Pacing()}
# What a policy must keep to carry a number of streams: p95 of the first audio, and of 1,000 turns not one with a gap.
TTFA_GOALS_S = (0.3, 0.6)
C50_GOAL = 0.999

Table = dict[str, dict[int, Results]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print everything and draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=PICTURE, metavar="FILE", help="SVG file to write")
    parser.add_argument("--seed", type=int, default=1, help="other listeners, other noise")
    parser.add_argument("--scale", type=float, default=1.0, help="of the simulated time (default: 1)")
    options = parser.parse_args(arguments)
    pictures = []
    for machine, streams in STREAMS.items():
        table = measure(machine, streams, SECONDS[machine] * options.scale, options.seed)
        print(report(machine, table))
        pictures.append(draw(machine, table))
    options.out.write_text(stack(pictures), encoding="utf-8")
    print(f"wrote {options.out}")
    return 0


def measure(machine: Machine, streams: Sequence[int], seconds: float, seed: int) -> Table:
    """Results by policy and number of streams."""
    return {
        name: {n: simulate(machine, n, Behaviour(), pacing=pacing, seconds=seconds, seed=seed) for n in streams}
        for name, pacing in POLICIES.items()
    }


def report(machine: Machine, table: Table) -> str:
    """The table of one machine, and what each policy carries."""
    lines = [f"{machine.name} ({machine.note}; {machine.n_slots} slots)", ""]
    lines.append(
        f"{'streams':>7}  {'policy':<10} {'turns':>5} {'TTFA p50':>9} {'p95':>8} {'border p95':>10}"
        f" {'C50':>7} {'C100':>7} {'C200':>7} {'unheard':>8} {'busy':>5}"
    )
    for n in next(iter(table.values())):
        lines += [_line(n, name, results[n]) for name, results in table.items()]
    for goal_s in (*TTFA_GOALS_S, math.inf):
        carried = {name: carries(results, goal_s) for name, results in table.items()}
        counts = ", ".join(f"{name} {n}" for name, n in carried.items())
        ttfa = "" if goal_s == math.inf else f" and TTFA p95 <= {goal_s * 1000:.0f} ms"
        lines.append(f"streams with C50 >= {C50_GOAL:.1%}, nobody unheard{ttfa}: {counts}")
    return "\n".join(["", *lines])


def _line(n: int, name: str, r: Results) -> str:
    times = f"{r.ttfa_p50_s * 1000:>6.0f} ms {r.ttfa_p95_s * 1000:>5.0f} ms {r.border_p95_s * 1000:>7.0f} ms"
    shares = " ".join(f"{share:>7.2%}" for share in (r.c50, r.c100, r.c200))
    return f"{n:>7}  {name:<10} {r.turns:>5} {times} {shares} {r.unheard:>8.1%} {r.busy:>5.0%}"


def carries(results: dict[int, Results], ttfa_goal_s: float) -> int:
    """The most streams up to which every number of them kept the goals; 0 if none did."""
    carried = 0
    for n, r in sorted(results.items()):
        if not (r.ttfa_p95_s <= ttfa_goal_s and r.c50 >= C50_GOAL and r.unheard == 0):
            break
        carried = n
    return carried


def draw(machine: Machine, table: Table) -> str:
    """TTFA against streams, p95 drawn through and p50 dashed."""
    curves = {}
    for name, results in table.items():
        curves[f"{name} p95"] = [(n, r.ttfa_p95_s * 1000) for n, r in results.items()]
        curves[f"{name} p50"] = [(n, r.ttfa_p50_s * 1000) for n, r in results.items()]
    return line_chart(
        curves,
        title=f"Time to first audio, ms. {machine.name}: {machine.note}",
        x=Axis("streams", low=0, high=max(STREAMS[machine]), ticks=STREAMS[machine][::2]),
        y=Axis(log=True, low=50, high=15_000, ticks=(50, 100, 300, 1000, 3000, 10_000)),
        dashed=[name for name in curves if name.endswith("p50")],
        goal=TTFA_GOALS_S[0] * 1000,
    )


def stack(pictures: Sequence[str]) -> str:
    """One SVG document with the pictures below each other."""
    height = HEIGHT * len(pictures)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}">']
    parts += [picture.replace("<svg ", f'<svg y="{i * HEIGHT}" ', 1).rstrip() for i, picture in enumerate(pictures)]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    sys.exit(main())
