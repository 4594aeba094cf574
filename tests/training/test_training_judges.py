"""How dialogues are spoken for the judges, words counted, turns summed up; the judges themselves are packages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamer.models import SamplingParams
from streamer.speech import Speech, SpeechConfig
from training.evaluate import JudgedTurn, Summary, silence_seconds, speak_all, summaries
from training.judges import plain_words, word_errors
from training.plot import draw, smooth

TURN = JudgedTurn("heart", "Hi there.", "hi bear", 2, 1, True, 0.9, False, 1.0, 0.1, 0.3)


def test_spelling_of_numbers_and_marks_does_not_count() -> None:
    words = plain_words("It's $20, at 3:05 — isn't it?")
    assert words == ["its", "twenty", "dollars", "at", "three", "five", "isnt", "it"]
    assert plain_words("Forty-two!") == plain_words("42")
    assert plain_words(" ... ") == []


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [("a b c", "a b c", 0), ("a b c", "a x c", 1), ("a b c", "b c", 1), ("a b", "a x b", 1), ("a b", "", 2)],
)
def test_word_errors(said: str, heard: str, errors: int) -> None:
    assert word_errors(said.split(), heard.split()) == errors


def test_one_hallucination_counts_at_most_twice_its_words() -> None:
    assert word_errors(["yes"], ["x"] * 50) == 2


def test_summary_weighs_words_and_turns() -> None:
    other = replace(TURN, voice="joe", n_words=8, n_errors=0, right_voice=False, stopped=True)
    named = dict(summaries([TURN, other]))
    assert list(named) == ["all", "heart", "joe"]
    assert named["all"].word_error_rate == 0.1
    assert (named["all"].speaker_accuracy, named["all"].runaway_rate) == (0.5, 0.5)
    assert named["heart"] == Summary.of([TURN])


def test_silence_at_both_ends() -> None:
    samples = np.zeros(1000, np.float32)
    samples[200:701] = 0.5
    assert silence_seconds(samples, 1000) == (0.2, 0.299)
    assert silence_seconds(np.zeros(500, np.float32), 1000) == (0.5, 0.0)


def test_loss_picture_has_a_curve_for_each_codebook() -> None:
    reports = [
        {"step": n, "text": 1.0, "code0": 5.0 - n / 10, **({"code3": 6.0} if n % 2 else {})} for n in range(1, 9)
    ]
    picture = draw(reports)
    assert picture.count("<polyline") == 2
    assert len(smooth(reports, "code3")) == 4
    assert smooth(reports, "code0")[0] == (1, 4.9)


def test_dialogues_are_spoken_turn_by_turn_by_changing_voices() -> None:
    speech = Speech.load(SpeechConfig())
    speech.engine.start()
    try:
        scripts = ["[S1]Yes.[S2]No.[S1]So.", "[S1]Oh."]
        spoken = speak_all(speech, scripts, SamplingParams(audio_temperature=0, text_temperature=0), seed=0)
        at_once = speak_all(speech, scripts[:1], speech.model.default_sampling, seed=0, script_mode=True)
        assert speech.engine.wait_idle(10)
        held = speech.engine.holdings()
    finally:
        speech.close()
    assert [(turn.voice, turn.text) for turn in spoken] == [
        ("heart", "Yes."),
        ("joe", "No."),
        ("heart", "So."),
        ("joe", "Oh."),
    ]
    assert all(0.2 < len(turn.samples) / 24_000 < 5 and np.abs(turn.samples).max() > 0.02 for turn in spoken)
    assert [turn.text for turn in at_once] == ["Yes. No. So."]
    assert held.streams == held.slots == 0
