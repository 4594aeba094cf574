"""Line charts as plain SVG text: enough for a benchmark's picture, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TypeAlias

Curve: TypeAlias = Sequence[tuple[float, float]]
"""(x, y) points from left to right."""

WIDTH, HEIGHT = 720, 360
COLOURS = ("#1b6ca8", "#2a9d8f", "#e9a23b", "#e76f51", "#9b5de5", "#8d99ae", "#6d597a", "#b56576")
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 96, 32, 44


@dataclass(frozen=True, slots=True)
class Axis:
    """``ticks``: where labels stand; empty puts them at both ends. ``low``, ``high``: None takes the data's."""

    label: str = ""
    log: bool = False
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] = field(default_factory=tuple)


def line_chart(
    curves: Mapping[str, Curve],
    *,
    title: str = "",
    x: Axis | None = None,
    y: Axis | None = None,
    dashed: Sequence[str] = (),
    goal: float | None = None,
) -> str:
    """An SVG document: a line for each curve, its name at its right end.

    ``dashed`` names curves drawn with dashes; ``goal`` is a y value marked by a thin line across. Raises ValueError
    where there is no point to draw, or one that a logarithmic axis can't hold.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        raise ValueError("curves: there is no point to draw")
    to_x = _Scale(x or Axis(), [px for px, _ in points], _LEFT, WIDTH - _RIGHT)
    marks = [] if goal is None else [goal]
    to_y = _Scale(y or Axis(), [py for _, py in points] + marks, HEIGHT - _BOTTOM, _TOP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">']
    parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>')
    parts.append(_text(_LEFT, 18, title, 13))
    parts += _frame(to_x, to_y)
    if goal is not None:
        level = to_y(goal)
        parts.append(_line(_LEFT, level, WIDTH - _RIGHT, level, "#888", 'stroke-dasharray="2 3"'))
    names = _name_heights({name: to_y(curve[-1][1]) for name, curve in curves.items() if curve})
    for i, (name, curve) in enumerate(curves.items()):
        if curve:
            colour = COLOURS[i % len(COLOURS)]
            place = " ".join(f"{to_x(px):.1f},{to_y(py):.1f}" for px, py in curve)
            dashes = ' stroke-dasharray="5 4"' if name in dashed else ""
            parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5"{dashes} points="{place}"/>')
            parts.append(_text(to_x(curve[-1][0]) + 4, names[name] + 3, name, 10, colour))
    return "\n".join([*parts, "</svg>", ""])


class _Scale:
    """From values of one axis to pixels."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        low = min(values) if axis.low is None else axis.low
        high = max(values) if axis.high is None else axis.high
        if axis.log and min(low, *values) <= 0:
            raise ValueError(f"axis `{axis.label}`: {min(low, *values)} has no place on a logarithmic axis")
        self.axis, self.ticks = axis, tuple(axis.ticks) or (low, high)
        self._low, self._start = self._bent(low), start
        # One value alone has no extent; any will do.
        self._per_unit = (end - start) / ((self._bent(high) - self._low) or 1.0)

    def __call__(self, value: float) -> float:
        return self._start + (self._bent(value) - self._low) * self._per_unit

    def _bent(self, value: float) -> float:
        return math.log(value) if self.axis.log else value


def _frame(to_x: _Scale, to_y: _Scale) -> list[str]:
    """Both axes with ticks, labels and a faint grid."""
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = [_line(_LEFT, bottom, right, bottom, "#444"), _line(_LEFT, _TOP, _LEFT, bottom, "#444")]
    for tick in to_x.ticks:
        parts.append(_line(to_x(tick), bottom, to_x(tick), bottom + 4, "#444"))
        parts.append(_text(to_x(tick), bottom + 16, _number(tick), 11, anchor="middle"))
    for tick in to_y.ticks:
        parts.append(_line(_LEFT, to_y(tick), right, to_y(tick), "#e4e4e4"))
        parts.append(_text(_LEFT - 6, to_y(tick) + 4, _number(tick), 11, anchor="end"))
    parts.append(_text(_LEFT, HEIGHT - 10, to_x.axis.label, 12))
    parts.append(_text(4, _TOP - 8, to_y.axis.label, 12) if to_y.axis.label else "")
    return [part for part in parts if part]


def _name_heights(wanted: Mapping[str, float], gap: float = 11.0) -> dict[str, float]:
    """Heights close to those wanted at which no name covers another."""
    heights: dict[str, float] = {}
    last = -math.inf
    for name, height in sorted(wanted.items(), key=lambda item: item[1]):
        last = heights[name] = max(height, last + gap)
    return heights


def _text(x: float, y: float, text: str, size: int, fill: str = "#222", anchor: str = "start") -> str:
    if not text:
        return ""
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"'
    return f"<text {place}>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def stacked(*pictures: str) -> str:
    """Pictures of :func:`line_chart` below one another, as one SVG document."""
    nested = [p.replace("<svg ", f'<svg y="{i * HEIGHT}" ', 1) for i, p in enumerate(pictures)]
    height = HEIGHT * len(pictures)
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}">\n{"".join(nested)}</svg>\n'
