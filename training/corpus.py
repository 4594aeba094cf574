"""``python -m training.corpus --out DIR``: sentences read aloud by the teachers, in shards.

A shard is ``<out>/speech/<voice>/<number>.npz`` with ``samples`` (int16 at 24 kHz, all utterances joined), ``lengths``
(samples of each) and ``texts`` (as written). Shards that exist are kept, so the command goes on where it was stopped;
a shard's sentences depend on the seed, the voice and its number alone.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.progress import progress_bar
from training.teachers import SAMPLE_RATE, VOICES, Teacher, load_teacher
from training.texts import Texts

SHARD_UTTERANCES = 200
_MIN_SECONDS, _MAX_SECONDS = 0.4, 8.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Synthesise until every voice has its hours."""
    options = _parser().parse_args(arguments)
    targets = parse_hours(options.hours)
    texts = Texts.load(options.seed)
    teachers = {voice: load_teacher(voice) for voice in targets}
    done = {voice: sum(map(shard_hours, shard_paths(options.out, voice))) for voice in targets}
    with progress_bar("speech", sum(targets.values()), "h") as bar:
        bar.advance(sum(done.values()))
        while voice := _most_behind(done, targets):
            number = len(shard_paths(options.out, voice))
            path = options.out / "speech" / voice / f"{number:05}.npz"
            hours = write_shard(path, teachers[voice], texts, voice, number, options.seed)
            done[voice] += hours
            bar.advance(hours, " ".join(f"{name} {value:.2f} h" for name, value in done.items()))
    return 0


def parse_hours(text: str) -> dict[str, float]:
    """``"heart=4,joe=2.5"`` as hours by voice; ValueError for what is not of that form."""
    hours: dict[str, float] = {}
    for part in text.split(","):
        voice, equals, value = part.partition("=")
        if voice not in VOICES or not equals:
            raise ValueError(f"--hours: {part!r} is not of the form voice=hours with a voice of {', '.join(VOICES)}")
        hours[voice] = float(value)
    return hours


def shard_paths(folder: Path, voice: str) -> list[Path]:
    """A voice's shards, by number."""
    return sorted((folder / "speech" / voice).glob("?????.npz"))


def shard_hours(path: Path) -> float:
    """Hours of speech in a shard."""
    with np.load(path) as shard:
        return float(shard["lengths"].sum()) / SAMPLE_RATE / 3600


def write_shard(path: Path, teacher: Teacher, texts: Texts, voice: str, number: int, seed: int) -> float:
    """Synthesise one shard and put it in place whole; returns its hours."""
    rng = random.Random(f"{seed}:{voice}:{number}")
    # Voices walk through the packaged sentences from different places, so that together they say most of them.
    first = VOICES.index(voice) * len(texts.packaged) // len(VOICES) + number * SHARD_UTTERANCES
    written: list[str] = []
    spoken: list[npt.NDArray[np.int16]] = []
    for i in range(SHARD_UTTERANCES):
        sentence = texts.draw(rng, first + i)
        samples = teacher(sentence.spoken, rng.getrandbits(31))
        if _MIN_SECONDS <= len(samples) / SAMPLE_RATE <= _MAX_SECONDS:
            written.append(sentence.written)
            spoken.append((samples * 32767).astype(np.int16))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        lengths = np.array([len(samples) for samples in spoken])
        np.savez(file, samples=np.concatenate(spoken), lengths=lengths, texts=np.array(written))
    unfinished.rename(path)
    return float(lengths.sum()) / SAMPLE_RATE / 3600


def _most_behind(done: dict[str, float], targets: dict[str, float]) -> str | None:
    behind = {voice: done[voice] / target for voice, target in targets.items() if done[voice] < target}
    return min(behind, key=behind.__getitem__) if behind else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.corpus", description="Synthesise the corpus.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="corpus folder")
    parser.add_argument("--hours", default="heart=10,heart_low=10,joe=10", help="hours of speech of each voice")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
