"""``python -m training.books --recordings DIR``: how well speech is understood that keeps the first codebooks alone.

Prints, for each number of codebooks, the word error rate, the similarity to the recording itself, and in how much of
the clearly voiced time its pitch is kept, to a semitone. Fewer books start
sooner (the delay pattern holds back the first frame by a row for each) and are easier to learn; they also lose more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from streamer.codec import AudioCodec
from streamer.evaluation import load_judges, read_recordings, through_codec
from streamer.evaluation.pitch import same_pitch
from streamer.evaluation.speaking import SAMPLE_RATE
from streamer.evaluation.words import plain_words, word_errors
from streamer.speech import ASSETS
from training.progress import progress_bar


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge every recording at every number of codebooks."""
    parser = argparse.ArgumentParser(prog="python -m training.books", description="Compare numbers of codebooks.")
    parser.add_argument("--recordings", type=Path, required=True, metavar="DIR", help="folder of training.recordings")
    parser.add_argument("--codec", type=Path, default=ASSETS / "codec", help="checkpoint (default: the embedded one)")
    parser.add_argument("--books", type=int, nargs="+", default=[3, 4, 5, 6, 7, 8], metavar="N")
    parser.add_argument("--voices", nargs="+", metavar="VOICE", help="whose recordings (default: all)")
    parser.add_argument("--whisper", type=Path, metavar="DIR", help="CTranslate2 whisper model (default: its packages)")
    options = parser.parse_args(arguments)
    voices = sorted(path.stem for path in (ASSETS / "voices").glob("*.json"))
    if unknown := set(options.voices or ()) - set(voices):
        parser.error(f"--voices: there is no voice {min(unknown)!r}, there are {', '.join(voices)}")
    recorded = [
        turn for turn in read_recordings(options.recordings, voices) if turn.voice in (options.voices or voices)
    ]
    codec, judges = AudioCodec.from_pretrained(options.codec), load_judges(options.whisper, 1)
    own = [judges.encoder.embed(turn.samples, SAMPLE_RATE) for turn in recorded]
    n_words = sum(len(plain_words(turn.text)) for turn in recorded)
    table = Table("codebooks", "word error rate", "similarity", "pitch kept")
    with progress_bar("judged", len(options.books) * len(recorded), "turns") as bar:
        for books in options.books:
            errors, similarities, kept = 0, [], []
            for turn, original in zip(recorded, own, strict=True):
                (coded,) = through_codec([turn], codec, books)
                heard = judges.recogniser.words(coded.samples, SAMPLE_RATE)
                errors += word_errors(plain_words(turn.text), heard)
                similarities.append(float(judges.encoder.embed(coded.samples, SAMPLE_RATE) @ original))
                kept.append(same_pitch(turn.samples, coded.samples, SAMPLE_RATE))
                bar.advance(1)
            figures = (errors / n_words, np.mean(similarities), np.concatenate(kept).mean())
            table.add_row(str(books), *(f"{figure:.3f}" for figure in figures))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
