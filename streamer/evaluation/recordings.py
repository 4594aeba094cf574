"""Recordings of real speech: judged as they are and through the codec, they are what a model can reach at best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from streamer.audio import AudioFileError, load_audio
from streamer.codec import AudioCodec
from streamer.evaluation.errors import EvaluationError
from streamer.evaluation.json_lines import read_json_lines
from streamer.evaluation.speaking import SpokenTurn
from streamer.evaluation.words import plain_words

MANIFEST = "manifest.jsonl"
_MAX_SECONDS = 600.0


class RecordingLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of ``manifest.jsonl``: who reads what, and where; ``path`` begins at the manifest's folder.

    ``cast``: the voices to tell the reader from, the reader included; empty stands for all. ``dialogue`` and ``turn``
    count from 0 and say where the text comes from.
    """

    voice: str
    text: str
    path: str
    cast: tuple[str, ...] = ()
    dialogue: int = 0
    turn: int = 0


def read_recordings(folder: Path, voices: Sequence[str]) -> list[SpokenTurn]:
    """Every recording at 24 kHz; EvaluationError names the line of the manifest and what is wrong with it."""
    turns = []
    for where, line in read_json_lines(folder / MANIFEST, RecordingLine):
        for field, voice in (("voice", line.voice), *(("cast", voice) for voice in line.cast)):
            if voice not in voices:
                message = f"{where}: `{field}`: no voice {voice[:80]!r}; known voices: {', '.join(voices)}"
                raise EvaluationError("unknown_voice", message)
        if line.cast and line.voice not in line.cast:
            raise EvaluationError("bad_line", f"{where}: `cast`: {line.voice} itself is not among {list(line.cast)}")
        if not plain_words(line.text):
            raise EvaluationError("bad_line", f"{where}: `text`: no English word in it")
        try:
            samples = load_audio(folder / line.path, _MAX_SECONDS)
        except AudioFileError as error:
            raise EvaluationError("bad_recording", f"{where}: `path`: {error.message}") from error
        cast = line.cast or tuple(voices)
        turns.append(SpokenTurn("recordings", line.dialogue, line.turn, line.voice, cast, line.text, samples))
    return turns


def through_codec(
    turns: Sequence[SpokenTurn], codec: AudioCodec, n_vq: int | None, on_coded: Callable[[], None] = lambda: None
) -> list[SpokenTurn]:
    """The same turns encoded and decoded again with the first ``n_vq`` codebooks (None: all)."""
    coded = []
    for turn in turns:
        codes = codec.encode(turn.samples, pad_tail=True)[:, :n_vq]
        samples = codec.decode(codes).cpu().numpy().astype(np.float32)
        coded.append(replace(turn, source="codec", samples=samples))
        on_coded()
    return coded
