"""The charts of the benchmarks: well-formed, every curve in its place."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest

from bench.svg import Axis, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def points(picture: str) -> list[list[tuple[float, float]]]:
    lines = ElementTree.fromstring(picture).findall(f"{SVG}polyline")
    return [[tuple(map(float, p.split(","))) for p in line.attrib["points"].split()] for line in lines]  # type: ignore[misc]


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).findall(f"{SVG}text")]


def test_higher_values_stand_higher_and_later_ones_further_right() -> None:
    rising, falling = points(line_chart({"up": [(1, 0), (2, 5), (3, 10)], "down": [(1, 10), (3, 0)]}))
    assert [x for x, _ in rising] == sorted(x for x, _ in rising)
    assert [y for _, y in rising] == sorted((y for _, y in rising), reverse=True)
    assert rising[0][1] == falling[1][1]
    assert rising[2] == (falling[1][0], falling[0][1])


def test_a_logarithmic_axis_gives_each_doubling_the_same_room() -> None:
    [curve] = points(line_chart({"a": [(1, 1), (2, 1), (4, 1)]}, x=Axis("clients", log=True)))
    assert curve[1][0] - curve[0][0] == pytest.approx(curve[2][0] - curve[1][0], abs=0.2)
    with pytest.raises(ValueError, match="clients"):
        line_chart({"a": [(0, 1), (2, 1)]}, x=Axis("clients", log=True))


def test_names_labels_and_markup_are_text() -> None:
    picture = line_chart({"a<b": [(1, 2), (2, 3)]}, title="x & y", y=Axis("ms", ticks=(2, 2.5, 3)), dashed=["a<b"])
    assert {"a<b", "x & y", "ms", "2.5"} <= set(texts(picture))
    assert "stroke-dasharray" in picture


def test_names_of_curves_that_end_alike_do_not_cover_each_other() -> None:
    picture = line_chart({name: [(0, 0), (1, 5)] for name in "abc"})
    named = [e for e in ElementTree.fromstring(picture).findall(f"{SVG}text") if e.text in {"a", "b", "c"}]
    heights = sorted(float(element.attrib["y"]) for element in named)
    assert all(b - a >= 10 for a, b in itertools.pairwise(heights))


def test_the_goal_is_always_in_the_picture() -> None:
    picture = line_chart({"a": [(0, 1), (1, 2)]}, goal=10)
    [curve] = points(picture)
    assert curve[1][1] > 40
    with pytest.raises(ValueError, match="no point"):
        line_chart({"a": []}, goal=1)
