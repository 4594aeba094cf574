"""``python -m training.plot --run DIR --out loss.svg``: the losses of a run's ``log.jsonl``, smoothed, as a picture."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.svg import Axis, line_chart
from training.train_lm import LOG

_SMOOTHING = 0.97
_POINTS = 240


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the SVG file."""
    parser = argparse.ArgumentParser(prog="python -m training.plot", description="Draw the losses of a run.")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of training.train_lm")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="SVG file to write")
    options = parser.parse_args(arguments)
    lines = (options.run / LOG).read_text(encoding="utf-8").splitlines()
    options.out.write_text(draw([json.loads(line) for line in lines]), encoding="utf-8")
    return 0


def draw(reports: Sequence[dict[str, float]]) -> str:
    """An SVG with a curve for each codebook. ``reports``: ``step`` and ``code<k>`` in nats; at least one."""
    names = sorted({k for r in reports for k in r if k.startswith("code")})
    curves = {name.removeprefix("code"): thinned(smooth(reports, name)) for name in names}
    last = max(report["step"] for report in reports)
    return line_chart(curves, x=Axis(f"nats by step, to step {last:.0f}", low=0.0, high=last))


def thinned(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """About as many points as can be told apart, the last among them."""
    return curve[:: -max(1, len(curve) // _POINTS)][::-1]


def smooth(reports: Sequence[dict[str, float]], name: str) -> list[tuple[float, float]]:
    """(step, running mean) wherever the report has the name."""
    points: list[tuple[float, float]] = []
    for report in reports:
        if name in report:
            mean = points[-1][1] if points else report[name]
            points.append((report["step"], _SMOOTHING * mean + (1 - _SMOOTHING) * report[name]))
    return points


if __name__ == "__main__":
    sys.exit(main())
