"""Early first frames: only the first 80 ms change, and the measures see what was changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from engine_reader import AT_REST, WAIT_S, new_engine
from serving import new_speech
from support import load_codec

from bench.early_frame import (
    EarlyTurn,
    decode_early,
    log_mel_db,
    measure_early,
    mel_distances_db,
    opus_copy,
    rows_until_gapless,
)
from bench.first_audio import report_of, savings, speak_dialogues, summarise, table_of, word_error_rates, yardstick
from streamer.evaluation import CastDialogue
from streamer.speech import Speech
from streamer.text import parse_script

FRAME = 1920


@pytest.fixture(scope="module")
def speech() -> Iterator[Speech]:
    speech = new_speech()
    yield speech
    speech.close()


def codes(n_frames: int, n_vq: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 64, (n_frames, n_vq), generator=torch.Generator().manual_seed(seed))


def tone(n_samples: int, hertz: float, level: float = 0.1) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(n_samples) / 24_000)).astype(np.float32)


def made_turn(first_frames: np.ndarray, full: np.ndarray, text: str = "hello there") -> EarlyTurn:
    return EarlyTurn(0, 0, text, np.zeros(0, np.float32), full, first_frames)


def test_early_frames_are_prefix_decodes_and_leave_the_session_as_it_would_be() -> None:
    codec, first, second = load_codec(), codes(6), codes(5, seed=1)
    stream = codec.decode_stream()
    decode_early(stream, first)
    full, prefixes = decode_early(stream, second)
    whole = codec.decode(torch.cat((first, second))).numpy()
    np.testing.assert_allclose(full, whole[6 * FRAME :], atol=1e-4)
    assert prefixes.shape == (4, FRAME)
    np.testing.assert_allclose(prefixes[3], full[:FRAME], atol=1e-4)
    fresh = codec.decode_stream()
    fresh.push(first)
    np.testing.assert_allclose(prefixes[1], fresh.push(second[:1, :2]).numpy(), atol=1e-4)
    assert np.abs(prefixes[0] - full[:FRAME]).max() > 0.01


def test_an_early_turn_differs_in_its_first_frame_only() -> None:
    full, prefixes = decode_early(load_codec().decode_stream(), codes(5))
    turn = made_turn(prefixes, full)
    early = turn.early(1)
    np.testing.assert_array_equal(early[:FRAME], prefixes[0])
    np.testing.assert_array_equal(early[FRAME:], full[FRAME:])
    assert turn.full is full


def test_the_measures_are_zero_for_waiting_and_see_level_and_seam() -> None:
    full = tone(5 * FRAME, 200)
    half, broken = full[:FRAME] * np.float32(0.5), full[:FRAME].copy()
    broken[-1] += 0.3
    halved, clicking, waiting = measure_early(made_turn(np.stack((half, broken, full[:FRAME])), full))
    assert (waiting.mel_80_db, waiting.difference_dbfs, waiting.seam_click) == (0, -100, False)
    # Half of it is missing: the difference is as loud as what is left, 6 dB below a tone of -23 dBFS.
    assert halved.difference_dbfs == pytest.approx(-29, abs=0.1)
    assert halved.level_dbfs == pytest.approx(waiting.level_dbfs - 6.02, abs=0.01)
    assert halved.mel_80_db > 2
    # The second 80 ms are as they were, but for windows that reach back.
    assert halved.mel_80_db > halved.mel_160_db > 0
    assert clicking.seam_click
    assert clicking.seam_ratio is not None and waiting.seam_ratio is not None
    assert clicking.seam_ratio > 100 * waiting.seam_ratio


def test_log_mel_peaks_where_the_tone_is_and_knows_what_came_before() -> None:
    low, high = (log_mel_db(np.zeros(0, np.float32), tone(4 * FRAME, hertz)) for hertz in (300, 3000))
    assert low.shape == (32, 80)
    assert set(low[4:-4].argmax(1)) != set(high[4:-4].argmax(1))
    assert len(set(high[4:-4].argmax(1))) == 1
    silence = np.zeros(FRAME, np.float32)
    after_tone, after_nothing = (log_mel_db(before, silence) for before in (tone(FRAME, 300), silence))
    assert after_tone[0].max() > after_nothing[0].max() + 20
    np.testing.assert_array_equal(after_tone[4:], after_nothing[4:])


def test_the_opus_copy_lies_where_the_turn_lies() -> None:
    vowel = tone(6 * FRAME, 300) + tone(6 * FRAME, 730, 0.05) + tone(6 * FRAME, 1130, 0.05)
    turn = made_turn(vowel[None, :FRAME], vowel)
    copy = opus_copy(turn)
    assert len(copy) == len(vowel)
    near = {lag: float(np.roll(copy, lag)[FRAME:-FRAME] @ vowel[FRAME:-FRAME]) for lag in range(-30, 31)}
    best_lag = max(near, key=near.__getitem__)
    assert abs(best_lag) <= 1
    assert 0 < mel_distances_db(turn, copy)[1] < mel_distances_db(turn, np.zeros_like(vowel))[1]


def test_the_summary_counts_silence_and_what_only_early_decoding_makes_audible() -> None:
    loud, silent = tone(5 * FRAME, 200), tone(5 * FRAME, 200, level=0.001)
    frames = np.stack((loud[:FRAME], silent[:FRAME]))
    turns = [made_turn(frames, silent), made_turn(np.stack((loud[:FRAME],) * 2), loud)]
    by_turn = [measure_early(turn) for turn in turns]
    waiting = [measures[1] for measures in by_turn]
    early, waited = (summarise([measures[k] for measures in by_turn], waiting) for k in range(2))
    assert (early["silent_share"], early["turned_audible"]) == (0.0, 1)
    assert (waited["silent_share"], waited["turned_audible"], waited["mel_80_db"]) == (0.5, 0, 0.0)
    # Of the turn whose first frame is no silence, nothing changed.
    assert early["mel_80_db_audible"] == 0
    assert yardstick(turns, waiting).keys() <= early.keys()


def test_the_table_has_a_line_for_each_number_of_codebooks_and_for_opus() -> None:
    full = tone(5 * FRAME, 200)
    report = report_of([made_turn(np.stack((full[:FRAME] * 0, full[:FRAME])), full)], 20.0)
    lines = table_of({"machine": {"cpu": "any"}, "dialogues": 1, **report}).splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["codebooks", "1", "2", "opus"]
    assert "without a gap from 1 rows on, which saves 20 ms" in lines[-2]


@pytest.mark.parametrize(
    ("n_vq", "step_ms", "rows"),
    [(8, 8.0, 1), (8, 10.0, 1), (8, 20.0, 5), (8, 40.0, 7), (8, 70.0, 8), (8, 90.0, 8), (16, 6.0, 4), (16, 12.0, 11)],
)
def test_the_first_frame_waits_until_the_second_is_there_in_time(n_vq: int, step_ms: float, rows: int) -> None:
    assert rows_until_gapless(n_vq, step_ms) == rows
    if rows < n_vq:
        # From the first frame's row to the second's, no longer than the first plays.
        assert (n_vq + 1 - rows) * step_ms <= 80


def test_savings_count_rows_that_are_not_waited_for() -> None:
    saved = savings(8, 20.0)
    assert saved["here"]["saved_ms"][3] == 100
    assert saved["here"]["saved_without_gap_ms"] == 60
    assert saved["large"]["saved_ms"][10] == 36


def test_word_errors_are_compared_with_waiting_and_with_opus() -> None:
    full = tone(5 * FRAME, 200)
    turn = made_turn(np.stack((full[:FRAME] * 0, full[:FRAME])), full)

    def words(samples: np.ndarray, sample_rate: int) -> list[str]:
        return ["hello", "there"] if np.abs(samples[:FRAME]).max() > 0.05 else ["there"]

    found = word_error_rates([turn], [1], words)
    assert found["1"] == {"word_error_rate": 0.5, "turns_heard_otherwise": 1}
    assert found["2"] == found["opus"] == {"word_error_rate": 0.0, "turns_heard_otherwise": 0}


def test_dialogues_are_spoken_turn_by_turn_with_one_codec_stream(speech: Speech) -> None:
    scripts = ["[S1] One two. [S2] Three.", "[S1] Four."]
    cast = [
        CastDialogue(number, text, tuple(parse_script(text)), {1: "one", 2: "two"})
        for number, text in enumerate(scripts)
    ]
    engine = new_engine()
    turns = speak_dialogues(speech, engine, cast)
    assert engine.wait_idle(WAIT_S)
    assert engine.holdings() == AT_REST
    engine.stop()
    assert [(turn.dialogue, turn.turn, turn.text) for turn in turns] == [
        (0, 0, "One two."), (0, 1, "Three."), (1, 0, "Four."),
    ]  # fmt: skip
    np.testing.assert_array_equal(turns[1].before, turns[0].full[-FRAME:])
    assert len(turns[0].before) == len(turns[2].before) == 0
    assert all(turn.first_frames.shape == (4, FRAME) for turn in turns)
