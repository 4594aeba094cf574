"""Makes a voice file from a recording.

``python -m streamer.voices.build FILE --id … --transcript … --out DIR --codec DIR``

The embedded voices were made with it, from the recordings under ``tests/data/voices``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from streamer.audio import AudioFileError
from streamer.checkpoint import CheckpointError
from streamer.codec import AudioCodec
from streamer.voices.voice import Voice


def main(arguments: Sequence[str] | None = None) -> int:
    """Write ``<out>/<id>.json``; 0, or 2 with one line on standard error that says what is wrong."""
    options = _parser().parse_args(arguments)
    try:
        voice = Voice.from_audio(
            options.id,
            options.file,
            options.transcript,
            AudioCodec.from_pretrained(options.codec),
            origin=options.origin,
            licence=options.licence,
            language=options.language,
            description=options.description,
        )
    except (AudioFileError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    path = voice.save(options.out)
    print(f"{path}: {voice.codes.shape[0]} frames of {voice.codes.shape[1]} codebooks")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m streamer.voices.build", description="Make a voice file from a recording."
    )
    parser.add_argument("file", type=Path, help="recording of 1 to 30 s: WAV, FLAC, Ogg or MP3")
    parser.add_argument("--id", required=True, help="1 to 64 of a-z, 0-9, _ and -")
    parser.add_argument("--transcript", required=True, help="what is said in the recording")
    parser.add_argument("--out", type=Path, required=True, help="folder to write <id>.json to")
    parser.add_argument("--codec", required=True, help="codec checkpoint: folder or hub id")
    parser.add_argument("--origin", default="", help="who or what speaks")
    parser.add_argument("--licence", default="", help="licence of the recording (SPDX)")
    parser.add_argument("--language", default="en", help="language code")
    parser.add_argument("--description", default="", help="how the voice sounds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
