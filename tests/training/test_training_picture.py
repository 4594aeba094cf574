"""The picture of a recording: an SVG that shows where it is loud and what is heard when."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from streamer.evaluation.judges import HeardWord
from training.picture import draw

SVG = "{http://www.w3.org/2000/svg}"


def test_the_waveform_is_high_where_it_is_loud() -> None:
    samples = np.zeros(48_000, np.float32)
    samples[24_000:36_000] = 0.5 * np.sin(np.arange(12_000) / 10)
    path = ElementTree.fromstring(draw(samples, 24_000, [])).find(f"{SVG}path")
    assert path is not None
    bars = [tuple(map(float, bar)) for bar in re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", path.get("d", ""))]
    heights = np.array([bottom - top for _, top, bottom in bars])
    assert len(heights) == 480
    assert (heights[:240] == 0).all()
    assert heights[242:358].min() > 100
    assert (heights[362:] == 0).all()


def test_words_stand_at_their_times_and_beside_one_another() -> None:
    words = [HeardWord("<one>", 0.5), HeardWord("two", 0.52), HeardWord("three", 1.5)]
    root = ElementTree.fromstring(draw(np.zeros(48_000, np.float32), 24_000, words))
    texts = {t.text: (float(t.get("x", "")), float(t.get("y", ""))) for t in root.findall(f"{SVG}text")}
    assert texts["<one>"][0] == pytest.approx(12 + 936 / 4)
    assert texts["three"][0] == pytest.approx(12 + 936 * 3 / 4)
    assert texts["two"][1] > texts["<one>"][1] == texts["three"][1]


def test_silence_and_an_empty_recording_can_be_drawn() -> None:
    for samples in (np.zeros(0, np.float32), np.zeros(100, np.float32)):
        assert ElementTree.fromstring(draw(samples, 24_000, [])).tag == f"{SVG}svg"
