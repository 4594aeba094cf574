"""``python -m training.recordings``: the held-out dialogues read by the teachers, for ``streamer eval --recordings``.

Each voice reads the turns that it is cast for in the evaluation. The folder gets a FLAC file a turn and a manifest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import soundfile

from streamer.evaluation import HELD_OUT, RecordingLine, read_dialogues
from streamer.evaluation.recordings import MANIFEST
from streamer.evaluation.spelling import spell_numbers
from streamer.speech import ASSETS
from training.progress import progress_bar
from training.teachers import SAMPLE_RATE, Teacher, load_teacher


@dataclass(frozen=True, slots=True)
class RecordingsConfig:
    """``voices``: folder of the voices that the evaluation casts, by name; ``limit``: how many dialogues."""

    out: Path
    voices: Path = ASSETS / "voices"
    dialogues: Path = HELD_OUT
    limit: int | None = None
    seed: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, write and list."""
    config = _config(arguments)
    lines = record(config)
    manifest = "".join(json.dumps(msgspec.to_builtins(line), ensure_ascii=False) + "\n" for line in lines)
    (config.out / MANIFEST).write_text(manifest, encoding="utf-8")
    print(f"{config.out / MANIFEST}: {len(lines)} recordings")
    return 0


def record(config: RecordingsConfig) -> list[RecordingLine]:
    """Write a file and return a line for each turn of each dialogue. ValueError for a voice without a teacher."""
    voices = sorted(path.stem for path in config.voices.glob("*.json"))
    dialogues = read_dialogues(config.dialogues, voices, config.limit)
    config.out.mkdir(parents=True, exist_ok=True)
    teachers: dict[str, Teacher] = {}
    lines: list[RecordingLine] = []
    with progress_bar("recordings", len(dialogues), "dialogues") as bar:
        for dialogue in dialogues:
            for number, turn in enumerate(dialogue.turns):
                voice = dialogue.voices[turn.speaker]
                name = f"{dialogue.number:03}-{number:02}-{voice}.flac"
                lines.append(
                    RecordingLine(voice, turn.text, name, dialogue.cast, dialogue=dialogue.number, turn=number)
                )
                teacher = teachers.get(voice) or teachers.setdefault(voice, load_teacher(voice))
                samples = teacher(spell_numbers(turn.text), config.seed)
                soundfile.write(config.out / name, samples, SAMPLE_RATE, subtype="PCM_16")
            bar.advance(1)
    return lines


def _config(arguments: Sequence[str] | None) -> RecordingsConfig:
    parser = argparse.ArgumentParser(prog="python -m training.recordings", description="Record the teachers.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--voices", type=Path, default=ASSETS / "voices", help="folder of the voices that are cast")
    parser.add_argument("--dialogues", type=Path, default=HELD_OUT, help="JSON lines (default: the held-out ones)")
    parser.add_argument("--limit", type=int, help="only the first dialogues")
    parser.add_argument("--seed", type=int, default=0)
    return RecordingsConfig(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
