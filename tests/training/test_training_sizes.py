"""Sizes of language model side by side: they learn, speak through the engine, and impossible ones are refused."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from streamer.models import DelayConfig
from training.sizes import Size, main
from training.train_lm import MODEL


@pytest.fixture
def corpus_folder(tmp_path: Path) -> Path:
    """One voice that says the same few words in two shards, with the sounds of its words."""
    config = DelayConfig.from_folder(MODEL)
    rng = np.random.default_rng(5)
    folder = tmp_path / "corpus" / "codes" / "high"
    folder.mkdir(parents=True)
    for shard in range(2):
        lengths = np.array([22, 25, 28])
        codes = rng.integers(0, config.audio_vocab_size, size=(lengths.sum(), config.n_vq)).astype(np.int16)
        texts = np.array(["Hello there.", "Hello.", "There there."])
        np.savez(folder / f"{shard:05}.npz", codes=codes, lengths=lengths, texts=texts)
    sounds = {"alphabet": list("ehlort"), "pronunciations": {"Hello": "helo", "there": "ther", "There": "ther"}}
    (tmp_path / "corpus" / "sounds.json").write_text(json.dumps(sounds), encoding="utf-8")
    return tmp_path / "corpus"


def test_every_size_learns_and_speaks(
    corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    work = tmp_path / "work"
    common = ["--corpus", str(corpus_folder), "--work", str(work), "--sequences", "1", "--rows", "220"]
    assert main([*common, "--sizes", "64x4", "192x5", "--steps", "2", "--no-compile"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " x " in line]
    assert len(lines) == 2
    for line, size in zip(lines, (Size(64, 4), Size(192, 5)), strict=True):
        cells = [cell.strip() for cell in line.strip("│┃ ").split("│")]
        language = DelayConfig.from_folder(work / f"{size.width}x{size.layers}").language
        assert (language.hidden_size, language.n_layers) == (size.width, size.layers)
        assert cells[0] == f"{size.width} x {size.layers}"
        assert all(float(cell) > 0 for cell in cells[1:])


@pytest.mark.parametrize("text", ["", "256", "256x", "x6", "0x6", "100x6", "256x3", "256x6x2", "-256x6", "wide"])
def test_sizes_that_cannot_be_had_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="a multiple of 64"):
        Size.of(text)
    assert Size.of("256x6") == Size(256, 6)
