"""What all tests share: golden checkpoints, loaded once."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import streamer

GOLDEN = Path(__file__).parent / "data" / "golden"

torch.set_num_threads(1)


class Golden:
    """One golden set: ``arrays`` as torch tensors by name, ``info`` from its golden.json, and its folder."""

    def __init__(self, name: str) -> None:
        self.folder = GOLDEN / name
        self.info: Any = json.loads((self.folder / "golden.json").read_text(encoding="utf-8"))
        with np.load(self.folder / "golden.npz") as file:
            self.arrays = {key: torch.from_numpy(file[key]) for key in file.files}


@cache
def load_golden(name: str) -> Golden:
    return Golden(name)


@cache
def load_model(name: str) -> streamer.DelayModel:
    return streamer.DelayModel.from_pretrained(GOLDEN / name / "model")


@cache
def load_codec() -> streamer.AudioCodec:
    return streamer.AudioCodec.from_pretrained(GOLDEN / "codec-nq8" / "codec")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    return load_golden


@pytest.fixture(scope="session")
def tiny_model() -> streamer.DelayModel:
    """A random checkpoint with 4 codebooks."""
    return load_model("delay-nvq4")


@pytest.fixture(scope="session")
def tiny_codec() -> streamer.AudioCodec:
    return load_codec()
