"""``python -m training.raised --corpus DIR --out DIR --hours VOICE=HOURS,...``: ends of sentences, made to rise.

Of a corpus few sentences end high, and a codec learns only what it hears often: it makes such ends flat. What this
writes is a corpus of its own for ``train_codec --joining``, in which a voice ``joe`` is called ``joe_raised``: the last
second and a half of its sentences, as questions end, whatever they say. Shards that exist are kept.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.corpus import parse_hours, shard_hours, shard_paths
from training.intonation import raise_end
from training.progress import progress_bar
from training.teachers import SAMPLE_RATE, condition

KEPT_SECONDS = 1.5
_FADE_SECONDS = 0.01
_LEAST_SEMITONES, _MOST_SEMITONES = 4.0, 8.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Raise until every voice has its hours, or the corpus ends."""
    options = _parser().parse_args(arguments)
    targets = parse_hours(options.hours)
    with progress_bar("raised", sum(targets.values()), "h") as bar:
        for voice, hours in targets.items():
            done = 0.0
            for number, path in enumerate(shard_paths(options.corpus, voice)):
                raised = options.out / "speech" / f"{voice}_raised" / path.name
                if not raised.exists():
                    raise_shard(path, raised, random.Random(f"{options.seed}:{voice}:{number}"))
                made = shard_hours(raised)
                done += made
                bar.advance(made)
                if done >= hours:
                    break
            else:
                print(f"{voice}: {done:.2f} h is all that there is", file=sys.stderr)
    return 0


def raise_shard(path: Path, raised: Path, rng: random.Random) -> None:
    """The ends of a shard's sentences, as a shard that is put in place whole."""
    with np.load(path) as shard:
        texts, utterances = shard["texts"], np.split(shard["samples"], np.cumsum(shard["lengths"])[:-1])
    ends = [_end(samples, rng.uniform(_LEAST_SEMITONES, _MOST_SEMITONES)) for samples in utterances]
    raised.parent.mkdir(parents=True, exist_ok=True)
    unfinished = raised.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, samples=np.concatenate(ends), lengths=np.array([len(end) for end in ends]), texts=texts)
    unfinished.rename(raised)


def _end(samples: npt.NDArray[np.int16], semitones: float) -> npt.NDArray[np.int16]:
    raised = condition(raise_end(np.divide(samples, 32768, dtype=np.float32), SAMPLE_RATE, semitones))
    kept = raised[-round(KEPT_SECONDS * SAMPLE_RATE) :].copy()
    n_fade = min(len(kept), round(_FADE_SECONDS * SAMPLE_RATE))
    kept[:n_fade] *= np.linspace(0, 1, n_fade)
    return (kept * 32767).astype(np.int16)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.raised", description="Raise the ends of sentences.")
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="folder of training.corpus")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="corpus folder to write")
    parser.add_argument("--hours", default="heart=1,heart_low=1,joe=2", help="hours of raised ends of each voice")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
