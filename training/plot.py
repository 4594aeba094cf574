"""``python -m training.plot --run DIR --out loss.svg``: the losses of a run's ``log.jsonl``, smoothed, as a picture."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from training.train_lm import LOG

_WIDTH, _HEIGHT, _MARGIN = 720, 360, 40
_SMOOTHING = 0.97
_POINTS = 240
_COLOURS = ("#1b6ca8", "#2a9d8f", "#e9a23b", "#e76f51", "#9b5de5", "#8d99ae", "#6d597a", "#b56576")


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
    curves = {name: thinned(smooth(reports, name)) for name in names}
    values = [value for curve in curves.values() for _, value in curve]
    low, high, last = min(values), max(values), max(report["step"] for report in reports)
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN

    def place(step: float, value: float) -> str:
        y = _MARGIN + (high - value) / max(high - low, 1e-9) * height
        return f"{_MARGIN + step / last * width:.1f},{y:.1f}"

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif">']
    parts.append(f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>')
    for value in (low, high):
        y = place(0, value).split(",")[1]
        parts.append(f'<text x="4" y="{y}" font-size="12">{value:.2f}</text>')
    parts.append(f'<text x="{_MARGIN}" y="{_HEIGHT - 12}" font-size="12">nats by step, to step {last:.0f}</text>')
    for (name, curve), colour in zip(curves.items(), _COLOURS, strict=False):
        points = " ".join(place(step, value) for step, value in curve)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>')
        x, y = place(*curve[-1]).split(",")
        parts.append(f'<text x="{float(x) + 3:.1f}" y="{y}" font-size="10" fill="{colour}">{name[4:]}</text>')
    return "\n".join([*parts, "</svg>", ""])


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
