"""What tests share: golden checkpoints, loaded once, and a decoder that is not ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
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


def ffmpeg() -> str:
    """The system's ffmpeg, or the one that a wheel brings: a decoder that is not ours."""
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


def decode_with_ffmpeg(data: bytes, sample_rate: int) -> np.ndarray:
    """Samples (n,) float32 of any audio file in ``data``, by ffmpeg."""
    command = [ffmpeg(), "-v", "error", "-i", "-", "-f", "f32le", "-ac", "1", "-ar", str(sample_rate), "-"]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr, done.stderr.decode()
    return np.frombuffer(done.stdout, np.float32)
