"""The teachers' recordings of the held-out dialogues, as ``streamer eval`` reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamer.evaluation import HELD_OUT, read_dialogues, read_recordings
from streamer.evaluation.signals import Samples
from streamer.speech import ASSETS
from training import recordings as recordings_command
from training.teachers import Teacher


def test_each_voice_reads_the_turns_that_it_is_cast_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, str]] = []

    def load_teacher(voice: str) -> Teacher:
        def teacher(text: str, seed: int) -> Samples:
            read.append((voice, text))
            return (0.3 * np.sin(np.arange(len(text) * 240) * 0.05)).astype(np.float32)

        return teacher

    monkeypatch.setattr(recordings_command, "load_teacher", load_teacher)
    assert recordings_command.main(["--out", str(tmp_path / "out"), "--limit", "34"]) == 0
    voices = sorted(path.stem for path in (ASSETS / "voices").glob("*.json"))
    dialogues = read_dialogues(HELD_OUT, voices, 34)
    parts = [(d.voices[turn.speaker], turn.text, d.cast) for d in dialogues for turn in d.turns]
    recorded = read_recordings(tmp_path / "out", voices)
    assert [(turn.voice, turn.text, turn.cast) for turn in recorded] == parts
    assert [(turn.dialogue, turn.turn) for turn in recorded[:3]] == [(0, 0), (0, 1), (1, 0)]
    assert [voice for voice, _ in read] == [voice for voice, _, _ in parts]
    # Numbers are read as they are to be heard, whatever rules a teacher has for digits.
    assert read[-1][1] == "It is already six thirty in the morning over there."
    assert all(len(turn.samples) == len(text) * 240 for turn, (_, text) in zip(recorded, read, strict=True))
