"""Turns judged one by one, their means, the table, the report, the limits."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from io import StringIO

import numpy as np
import pytest
from evaluation.stand_ins import SpectrumEncoder, TellTale, crossing_pitch, judges, silence, tone
from rich.console import Console

import streamer
from streamer.evaluation import (
    Gates,
    JudgedTurn,
    Judges,
    SpokenTurn,
    Summary,
    judge_turns,
    report_of,
    summaries,
    table_of,
)
from streamer.evaluation.judging import expected_seconds, runaway

REFERENCES = {"low": tone(150, 1.0), "mid": tone(600, 1.0), "high": tone(2400, 1.0)}
FRAME = 1920


def spoken(
    voice: str | None, sound: np.ndarray, text: str = "Hi there.", cast: tuple[str, ...] = ("low", "mid")
) -> SpokenTurn:
    return SpokenTurn("model", 0, 0, voice, cast, text, sound, ttfa_ms=100.0)


def judge(turn: SpokenTurn, heard: str = "hi there") -> JudgedTurn:
    (judged,) = judge_turns([turn], REFERENCES, FRAME, judges(heard))
    return judged


def test_a_turn_is_heard_alone_and_its_voice_compared_with_its_reference() -> None:
    turn = judge(spoken("mid", np.concatenate((silence(0.25), tone(600, 1.0), silence(0.5)))), "hi bear")
    assert (turn.heard, turn.n_words, turn.n_errors) == ("hi bear", 2, 1)
    assert turn.right_in_dialogue and turn.right_among_all and turn.nearest_voice == "mid"
    assert turn.similarity is not None and 0.8 < turn.similarity <= 1.001
    assert (turn.seconds, turn.runaway, turn.ttfa_ms) == (1.75, None, 100.0)
    assert turn.leading_seconds == pytest.approx(0.25, abs=0.001)
    assert turn.trailing_seconds == pytest.approx(0.5, abs=0.002)
    assert turn.lead_noise_dbfs == -100
    assert turn.n_borders > 10 and turn.n_clicks == 0 and turn.click_ratio is not None


def test_the_right_voice_is_the_nearest_in_the_dialogue_or_among_all() -> None:
    swapped = judge(spoken("low", tone(600, 1.0)))
    assert (swapped.right_in_dialogue, swapped.right_among_all, swapped.nearest_voice) == (False, False, "mid")
    # Nearest to a voice that is not in the dialogue: of those that are, the right one is nearer.
    neighbour = 0.5 * tone(2400, 1.0) + 0.1 * tone(600, 1.0)
    strict = judge(spoken("mid", neighbour.astype(np.float32)))
    assert (strict.right_in_dialogue, strict.right_among_all, strict.nearest_voice) == (True, False, "high")


def test_a_silent_turn_has_said_nothing_in_nobodys_voice() -> None:
    recogniser = TellTale([])
    turns = [spoken("low", silence(1.0)), spoken("low", np.zeros(0, np.float32))]
    for turn in judge_turns(turns, REFERENCES, FRAME, Judges(recogniser, SpectrumEncoder(), crossing_pitch)):
        assert (turn.n_errors, turn.similarity, turn.nearest_voice) == (2, 0.0, None)
        assert turn.final_pitch_semitones is None
        assert turn.right_in_dialogue is turn.right_among_all is False
    assert recogniser.heard == []


def test_voices_are_not_judged_where_several_speak() -> None:
    turn = judge(spoken(None, tone(600, 1.0)))
    assert turn.right_in_dialogue is turn.right_among_all is turn.similarity is turn.nearest_voice is None
    assert turn.final_pitch_semitones is None
    assert turn.n_errors == 0


def test_a_turn_has_the_ending_of_its_text_and_of_its_sound() -> None:
    """Four fifths at 600 Hz and one at 1200 Hz make 720 Hz on average."""
    risen = judge(spoken("mid", np.concatenate((tone(600, 0.8), tone(1200, 0.2))), "There. Is it?"))
    assert risen.ending == "yes_no_question"
    assert risen.final_pitch_semitones == pytest.approx(12 * np.log2(1200 / 720), abs=0.1)
    assert judge(spoken("mid", tone(600, 1.0))).ending == "statement"


def test_expected_length_counts_letters_as_they_are_said() -> None:
    assert expected_seconds("I, too!") == pytest.approx(0.5 + 4 * 0.075)
    assert expected_seconds("40") == expected_seconds("forty")


@pytest.mark.parametrize(
    ("seconds", "trailing", "reason", "expected"),
    [
        (1.0, 0.2, "end", None),
        (2.5, 1.4, "end", None),
        (1.0, 0.2, "max_length", "max_length"),
        (2.6, 0.0, "end", "too_long"),
        (2.5, 1.6, "end", "trailing_silence"),
    ],
)
def test_runaway_turns_are_stopped_or_too_long_or_end_in_silence(
    seconds: float, trailing: float, reason: str, expected: str | None
) -> None:
    # Seven letters are expected to take 1.025 s, 2.5 times that is 2.56 s.
    assert runaway("Hi there.", seconds, trailing, reason) == expected


TURN = JudgedTurn(
    source="model",
    dialogue=0,
    turn=0,
    voice="low",
    text="Hi there.",
    heard="hi bear",
    n_words=2,
    n_errors=1,
    right_in_dialogue=True,
    right_among_all=True,
    nearest_voice="low",
    similarity=0.9,
    reason="end",
    runaway=None,
    seconds=1.0,
    leading_seconds=0.1,
    trailing_seconds=0.3,
    lead_noise_dbfs=-60.0,
    n_borders=10,
    n_clicks=1,
    click_ratio=1.0,
    ending="statement",
    final_pitch_semitones=-4.0,
    ttfa_ms=100.0,
)
OTHER = replace(
    TURN,
    voice="mid",
    n_words=8,
    n_errors=0,
    right_in_dialogue=False,
    right_among_all=False,
    similarity=0.5,
    runaway="too_long",
    seconds=3.0,
    lead_noise_dbfs=None,
    n_borders=30,
    n_clicks=2,
    click_ratio=3.0,
    ending="yes_no_question",
    final_pitch_semitones=1.5,
    ttfa_ms=None,
)


def test_means_weigh_words_turns_and_borders() -> None:
    named = summaries([OTHER, TURN, replace(TURN, source="codec", similarity=0.8)])
    assert {source: list(rows) for source, rows in named.items()} == {
        "model": ["low", "mid", "all"],
        "codec": ["low", "all"],
    }
    both = named["model"]["all"]
    assert both.word_error_rate == 0.1
    assert (both.speaker_accuracy, both.speaker_accuracy_all, both.runaway_rate) == (0.5, 0.5, 0.5)
    assert both.similarity == pytest.approx(0.7)
    assert both.click_ratio == pytest.approx((10 * 1 + 30 * 3) / 40)
    assert (both.turns, both.n_clicks, both.seconds) == (2, 3, 2.0)
    assert (both.lead_noise_dbfs, both.ttfa_ms) == (-60.0, 100.0)
    assert named["model"]["low"] == Summary.of([TURN])
    assert named["codec"]["all"].similarity == 0.8


def test_questions_rise_by_what_they_end_above_statements() -> None:
    """Means of either, without turns that have no pitch; questions that yes or no would not answer don't count."""
    turns = [OTHER, TURN, replace(OTHER, final_pitch_semitones=3.5), replace(TURN, final_pitch_semitones=-2.0)]
    turns += [replace(turn, final_pitch_semitones=None) for turn in (OTHER, TURN)]
    turns += [replace(OTHER, ending="other_question", final_pitch_semitones=-9.0)]
    assert Summary.of(turns).question_rise_semitones == pytest.approx(2.5 - -3.0)
    assert Summary.of([OTHER]).question_rise_semitones is None
    assert Summary.of([TURN]).question_rise_semitones is None
    assert Summary.of([TURN, replace(OTHER, final_pitch_semitones=None)]).question_rise_semitones is None


def test_figures_that_nobody_has_are_none_and_a_dash() -> None:
    bare = replace(
        TURN, voice=None, right_in_dialogue=None, right_among_all=None, similarity=None, n_borders=0, click_ratio=None,
        ttfa_ms=None, lead_noise_dbfs=None,
    )  # fmt: skip
    named = summaries([bare])
    assert list(named["model"]) == ["all"]
    summary = named["model"]["all"]
    assert summary.speaker_accuracy is summary.similarity is summary.click_ratio is summary.ttfa_ms is None
    assert printed([bare]).splitlines()[3].count("–") == 7


def printed(turns: list[JudgedTurn]) -> str:
    console = Console(width=180, file=StringIO())
    console.print(table_of(summaries(turns)))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_table_has_a_line_for_each_voice_and_for_all_of_each_source() -> None:
    long_name = replace(TURN, voice="a_voice_with_quite_a_name")
    text = printed([TURN, OTHER, replace(long_name, source="recordings")])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert [row[:3] for row in rows] == [
        ["model", "low", "1"],
        ["model", "mid", "1"],
        ["model", "all", "2"],
        ["recordings", "a_voice_with_quite_a_name", "1"],
        ["recordings", "all", "1"],
    ]
    assert rows[0][3:] == [
        "0.500",
        "1.000",
        "1.000",
        "0.900",
        "0.000",
        "1.00",
        "1",
        "1.00",
        "0.10",
        "0.30",
        "-60.0",
        "–",
        "100",
    ]
    assert rows[2][-2:] == ["5.5", "100"]


def test_the_report_is_json_with_every_turn() -> None:
    report = json.loads(json.dumps(report_of("tiny", {"seed": 3}, [TURN, OTHER])))
    assert (report["model"], report["settings"]) == ("tiny", {"seed": 3})
    assert report["turns"] == [asdict(TURN), asdict(OTHER)]
    assert report["summary"]["model"]["mid"] == asdict(Summary.of([OTHER]))
    assert {"python", "torch", "faster-whisper", "Resemblyzer", "librosa"} <= report["versions"].keys()
    assert report["versions"]["torch"] and report["versions"]["streamer"] == streamer.__version__


def test_limits_name_what_is_not_kept() -> None:
    summary = Summary.of([TURN, OTHER])
    assert Gates().failures(summary) == []
    assert Gates(max_wer=0.1, min_acc=0.5, max_runaway=0.5).failures(summary) == []
    failures = Gates(max_wer=0.09, min_acc=0.51, max_runaway=0.49).failures(summary)
    assert [failure.split()[0] for failure in failures] == ["--max-wer", "--min-acc", "--max-runaway"]
    assert failures[0] == "--max-wer 0.09: the word error rate is 0.1000"
    assert Gates(min_acc=0.5).failures(replace(summary, speaker_accuracy=None)) == [
        "--min-acc 0.5: the speaker accuracy is unknown"
    ]
