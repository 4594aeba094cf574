"""Clips of the speech corpus for codec training: cut, joined and weighed by voice, the same for the same seed.

Recordings are joined as turns are when a dialogue is spoken: each encoded alone, from a frame border on, with the
silence that :mod:`training.encode` gives it.
"""

from __future__ import annotations

import random
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib import format as npy

from training.corpus import shard_paths
from training.encode import LEAD_FRAMES, TAIL_FRAMES
from training.teachers import SAMPLE_RATE

Samples = npt.NDArray[np.int16]
_FULL_SCALE = 32768
_INSIDE_SHARE = 0.6
_MIN_SAMPLES_LEFT = 4800


class CorpusError(ValueError):
    """A speech corpus that can't be trained on; ``code`` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Clips:
    """Samples (B, N) float32; which recording each frame belongs to, and which voice, each (B, frames) int64.

    Recordings are numbered within their clip, voices in the order of the corpus's ``weights``.
    """

    samples: torch.Tensor
    documents: torch.Tensor
    voices: torch.Tensor

    def to(self, device: torch.device) -> Clips:
        """The same on another device."""
        return Clips(self.samples.to(device), self.documents.to(device), self.voices.to(device))


@dataclass(frozen=True, slots=True)
class Recording:
    """Where one utterance lies on disk: a corpus is larger than memory."""

    path: Path
    first_byte: int
    n_samples: int

    def read(self, first_sample: int = 0) -> Samples:
        """Its samples from ``first_sample`` on."""
        n_left = self.n_samples - first_sample
        return np.fromfile(self.path, np.int16, n_left, offset=self.first_byte + 2 * first_sample)


class SpeechCorpus:
    """The recordings of some voices, left on disk; a voice's last shard is held out."""

    def __init__(
        self,
        folders: Sequence[Path],
        frame_samples: int,
        weights: Mapping[str, float] | None = None,
        n_shards: Mapping[str, int] | None = None,
    ) -> None:
        """``folders``: of training.corpus and the like, each with voices of its own.

        ``weights``: how often each voice is drawn; None draws every voice there is alike. ``n_shards``: shards of each
        voice that count; None counts all. Raises :class:`CorpusError`.
        """
        if weights is None:
            voices = (
                path.name for folder in folders for path in sorted((folder / "speech").glob("*")) if path.is_dir()
            )
            weights = dict.fromkeys(voices, 1.0)
        speech = ", ".join(str(folder / "speech") for folder in folders)
        if not weights:
            raise CorpusError("codec_corpus_empty", f"{speech}: no voices; run training.corpus first")
        self.frame_samples = frame_samples
        self.weights = dict(weights)
        self.n_shards: dict[str, int] = {}
        self._recordings: dict[str, list[Recording]] = {}
        self._held_out: dict[str, list[Recording]] = {}
        for voice in weights:
            paths = [path for folder in folders for path in shard_paths(folder, voice)]
            paths = paths[: None if n_shards is None else n_shards.get(voice, 0)]
            if len(paths) < 2:
                raise CorpusError(
                    "codec_corpus_voice",
                    f"{voice}: {len(paths)} shards in {speech}, expected at least 2, the last of which is held "
                    "out; run training.corpus for more, or leave the voice out",
                )
            self.n_shards[voice] = len(paths)
            self._recordings[voice] = [recording for path in paths[:-1] for recording in read_shard(path)]
            self._held_out[voice] = read_shard(paths[-1])

    @property
    def hours(self) -> float:
        """Hours of speech to train on."""
        return sum(r.n_samples for recordings in self._recordings.values() for r in recordings) / SAMPLE_RATE / 3600

    def draw(self, rng: random.Random, n_clips: int, n_frames: int) -> Clips:
        """Random clips of ``n_frames`` frames, each of as many recordings as it takes."""
        drawn = [self._clip(rng, n_frames) for _ in range(n_clips)]
        samples = torch.from_numpy(np.stack([samples for samples, _, _ in drawn]))
        documents = torch.tensor([documents for _, documents, _ in drawn])
        return Clips(samples.float() / _FULL_SCALE, documents, torch.tensor([voices for _, _, voices in drawn]))

    def held_out(self, voice: str, n_recordings: int) -> list[torch.Tensor]:
        """The first recordings of a voice's last shard: (1, N) float32 each, of whole frames, with their silence."""
        frame = self.frame_samples
        return [
            torch.from_numpy(_whole_frames(recording.read(), LEAD_FRAMES, frame)).float()[None] / _FULL_SCALE
            for recording in self._held_out[voice][:n_recordings]
        ]

    def _clip(self, rng: random.Random, n_frames: int) -> tuple[Samples, list[int], list[int]]:
        """One clip (N,) and its frames' documents and voices; it begins inside a recording more often than not."""
        frame = self.frame_samples
        parts: list[Samples] = []
        documents: list[int] = []
        voices: list[int] = []
        while len(documents) < n_frames:
            voice = rng.choices(range(len(self.weights)), list(self.weights.values()))[0]
            recording = rng.choice(self._recordings[list(self.weights)[voice]])
            first_sample, lead_frames = 0, LEAD_FRAMES
            if not parts and rng.random() < _INSIDE_SHARE and recording.n_samples > _MIN_SAMPLES_LEFT:
                first_sample, lead_frames = rng.randrange(recording.n_samples - _MIN_SAMPLES_LEFT), 0
            padded = _whole_frames(recording.read(first_sample), lead_frames, frame)
            documents += [len(parts)] * (len(padded) // frame)
            voices += [voice] * (len(padded) // frame)
            parts.append(padded)
        return np.concatenate(parts)[: n_frames * frame], documents[:n_frames], voices[:n_frames]


def read_shard(path: Path) -> list[Recording]:
    """A shard's recordings; CorpusError where it is not a shard that training.corpus wrote."""
    try:
        first_byte, n_samples = _stored_array(path, "samples.npy")
        with np.load(path) as shard:
            lengths = shard["lengths"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CorpusError("codec_corpus_shard", f"{path}: not a shard of training.corpus ({error})") from error
    if not len(lengths) or lengths.sum() != n_samples:
        raise CorpusError("codec_corpus_shard", f"{path}: lengths and samples do not agree; make the shard again")
    begins = np.cumsum(lengths) - lengths
    return [
        Recording(path, first_byte + 2 * int(begin), int(length)) for begin, length in zip(begins, lengths, strict=True)
    ]


def _stored_array(path: Path, member: str) -> tuple[int, int]:
    """Where the data of an int16 array inside an uncompressed npz begins, in bytes, and how many items it has."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member} is compressed")
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)  # the ZIP format's local file header; two lengths at its end
        name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
        file.seek(name_bytes + extra_bytes, 1)
        major, _ = npy.read_magic(file)
        shape, _, dtype = (npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0)(file)
        if dtype != np.int16 or len(shape) != 1:
            raise ValueError(f"{member} is {dtype} of {len(shape)} dimensions, expected int16 of 1")
        return file.tell(), shape[0]


def _whole_frames(samples: Samples, lead_frames: int, frame_samples: int) -> Samples:
    tail_samples = TAIL_FRAMES * frame_samples + -len(samples) % frame_samples
    return np.pad(samples, (lead_frames * frame_samples, tail_samples))
