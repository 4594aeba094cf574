"""What a dialogue remembers: what was heard, and the words that were spoken by then."""

from __future__ import annotations

import numpy as np
import pytest
from support import GOLDEN, load_model

from streamer.dialogue import (
    Dialogue,
    DialogueSettings,
    Spoken,
    Truncated,
    TurnOptions,
    cut_text,
    known_tail,
    speaking_seconds,
)
from streamer.models import SamplingParams, load_tokenizer
from streamer.text import Turn


def new_dialogue(history_seconds: float = 60.0, max_turn_seconds: float = 60.0) -> Dialogue:
    settings = DialogueSettings({}, SamplingParams(), 1, history_seconds, max_turn_seconds)
    return Dialogue(load_model("delay-nvq4").config, load_tokenizer(GOLDEN / "delay-nvq4" / "model"), settings)


def spoken(dialogue: Dialogue, turn: str, text: str, n_frames: int, speaker: int = 1) -> Spoken:
    entry = dialogue.begin(turn, len(dialogue.history), [Turn(speaker, text)])
    entry.frames += [np.full(4, len(dialogue.history) % 32) for _ in range(n_frames)]
    entry.sent_ms = 80 * n_frames
    dialogue.end(entry, whole=True)
    return entry


def part(dialogue: Dialogue, turn: str, index: int, text: str, n_frames: int) -> Spoken:
    entry = dialogue.begin(turn, index, [Turn(1, text)])
    entry.frames += [np.full(4, index) for _ in range(n_frames)]
    entry.sent_ms = 80 * n_frames
    dialogue.end(entry, whole=True)
    return entry


def memory(dialogue: Dialogue) -> list[tuple[str, int]]:
    return [(" ".join(t.text for t in e.turns), len(e.frames)) for e in dialogue.history]


def test_what_was_played_counts_through_all_turns() -> None:
    dialogue = new_dialogue()
    spoken(dialogue, "a", "one two three four", 10)
    spoken(dialogue, "b", "five six seven eight", 10)
    dialogue.keep_heard(10 * 80 + 5 * 80)
    assert memory(dialogue) == [("one two three four", 10), ("five six", 5)]
    # The listener's clock goes on from what it heard.
    spoken(dialogue, "c", "nine ten", 4)
    dialogue.keep_heard(15 * 80 + 4 * 80)
    assert memory(dialogue)[2] == ("nine ten", 4)
    dialogue.keep_heard(15 * 80)
    assert memory(dialogue) == [("one two three four", 10), ("five six", 5)]
    dialogue.keep_heard(0)
    assert memory(dialogue) == []


def test_audio_heard_without_a_whole_word_still_counts_in_the_clock() -> None:
    dialogue = new_dialogue()
    spoken(dialogue, "a", "Extraordinary", 10)
    dialogue.keep_heard(160)
    assert memory(dialogue) == [("", 2)]
    entry = spoken(dialogue, "b", "one two three four", 10)
    dialogue.keep_heard(160 + 400)
    assert memory(dialogue) == [("", 2), ("one two", 5)]
    request = dialogue.request(dialogue.begin("c", 2, [Turn(1, "Go on.")]))
    gen_slot = load_model("delay-nvq4").config.audio_assistant_gen_slot_token_id
    assert int((request.prompt_rows[:, 0] == gen_slot).sum()) == len(entry.frames)


def test_only_the_named_turn_is_cut() -> None:
    dialogue = new_dialogue()
    spoken(dialogue, "a", "one two", 10)
    spoken(dialogue, "b", "three four", 10)
    dialogue.keep_heard(400, "b")
    assert memory(dialogue) == [("one two", 10)]
    dialogue.keep_heard(10**9)
    assert memory(dialogue) == [("one two", 10)]


def test_what_was_cut_is_told_turn_by_turn_with_all_their_parts() -> None:
    dialogue = new_dialogue()
    part(dialogue, "a", 0, "zero", 5)
    part(dialogue, "b", 1, "one two", 10)
    part(dialogue, "b", 1, "three four", 10)
    part(dialogue, "c", 2, "five six", 10)
    assert dialogue.keep_heard(10**9) == []
    assert dialogue.keep_heard(None) == []
    cut = dialogue.keep_heard((5 + 10 + 5) * 80 + 30)
    assert cut == [Truncated("b", 1, 15 * 80 + 30, "one two three"), Truncated("c", 2, 0, "")]
    assert memory(dialogue) == [("zero", 5), ("one two", 10), ("three", 5)]
    assert dialogue.keep_heard((5 + 5) * 80, "b") == [Truncated("b", 1, 5 * 80, "one")]
    assert memory(dialogue) == [("zero", 5), ("one", 5)]
    assert dialogue.keep_heard(0, "never") == []


def test_without_a_report_a_turn_being_made_keeps_what_was_sent() -> None:
    dialogue = new_dialogue()
    part(dialogue, "a", 0, "zero", 5)
    entry = dialogue.begin("b", 1, [Turn(1, "one two three four five six seven eight")])
    entry.frames += [np.zeros(4)] * 8
    entry.sent_ms = 80 * 8
    cut = dialogue.keep_heard(None)
    assert [(c.turn, c.heard_ms) for c in cut] == [("b", 640)]
    assert cut[0].text
    assert memory(dialogue)[1] == (cut[0].text, 8)
    dialogue.end(entry, whole=False)
    assert memory(dialogue)[1] == (cut[0].text, 8)


def test_a_turn_of_which_nothing_was_sent_is_cut_without_a_word() -> None:
    dialogue = new_dialogue()
    dialogue.begin("a", 0, [Turn(1, "Hello.")])
    assert not dialogue.all_heard(10**9)
    assert dialogue.keep_heard(0) == []
    assert memory(dialogue) == []
    assert dialogue.all_heard(0)


def test_a_draft_keeps_to_the_history_it_was_made_from() -> None:
    dialogue = new_dialogue()
    spoken(dialogue, "a", "one two three four", 10)
    entry = dialogue.begin("b", 1, [Turn(2, "Yes.")])
    draft, expected = dialogue.draft(entry), dialogue.request(entry)
    dialogue.keep_heard(0)
    assert dialogue.history == []
    np.testing.assert_array_equal(draft().prompt_rows, expected.prompt_rows)


def test_parts_of_a_turn_draw_anew_and_share_its_bound() -> None:
    for options in (TurnOptions(), TurnOptions(seed=5)):
        dialogue = new_dialogue(max_turn_seconds=2.0)
        requests = []
        for _ in range(3):
            entry = dialogue.begin("a", 0, [Turn(1, "word " * 100)], options)
            requests.append(dialogue.request(entry))
            entry.frames += [np.zeros(4, np.int64)] * 8
            entry.sent_ms = 640
            dialogue.end(entry, whole=True)
        assert len({request.seed for request in requests}) == 3
        assert [request.max_rows for request in requests] == [25 + 4, 25 - 8 + 4, 25 - 16 + 4]
        assert options.seed in (None, requests[0].seed)
        assert dialogue.has_room(0)
        part(dialogue, "a", 0, "more", 1)
        assert not dialogue.has_room(0)
        assert dialogue.has_room(1)


def test_a_turn_cut_while_it_is_made_keeps_words_by_its_speaking_rate() -> None:
    dialogue = new_dialogue()
    entry = dialogue.begin("a", 0, [Turn(1, "one two three four five six seven eight")])
    half = round(speaking_seconds(entry.turns[0].text) * 12.5 / 2)
    entry.frames += [np.zeros(4)] * half
    entry.sent_ms = 80 * half
    dialogue.end(entry, whole=False)
    assert memory(dialogue) == [("one two three four", half)]


def test_a_turn_of_which_nothing_was_sent_leaves_nothing() -> None:
    dialogue = new_dialogue()
    dialogue.end(dialogue.begin("a", 0, [Turn(1, "Hello.")]), whole=False)
    assert memory(dialogue) == []


@pytest.mark.parametrize(
    ("text", "share", "kept"),
    [
        ("one two three", 0.0, ""),
        ("one two three", 0.4, "one"),
        ("one two three", 0.6, "one two"),
        ("one two three", 1.0, "one two three"),
        ("Hello", 0.4, ""),
        ("Hello", 0.6, "Hello"),
        ("[laugh]", 0.9, "[laugh]"),
        ("well [laugh] yes", 0.6, "well [laugh]"),
        ("你好，今天天气", 0.4, "你好，"),
        ("one ...", 0.9, "one ..."),
        ("a [b", 1.0, "a [b"),
    ],
)
def test_text_is_cut_between_words(text: str, share: float, kept: str) -> None:
    assert "".join(turn.text for turn in cut_text([Turn(1, text)], share)) == kept


def test_text_is_cut_through_turns() -> None:
    turns = [Turn(1, "one two"), Turn(2, "three four")]
    assert cut_text(turns, 0.75) == [Turn(1, "one two"), Turn(2, "three")]


@pytest.mark.parametrize("n_frames", range(8))
def test_known_codes_are_those_the_prompt_has_no_rows_for(n_frames: int) -> None:
    n_vq = 4
    audio = np.arange(n_frames * n_vq).reshape(n_frames, n_vq)
    known = known_tail(audio, n_vq)
    # Row r of the whole block holds code k of frame r - k; the prompt has the rows below n_frames.
    expected = [
        [int(audio[n_frames + row - k, k]) if row < k and n_frames + row - k >= 0 else -1 for k in range(n_vq)]
        for row in range(n_vq - 1)
    ]
    assert known.tolist() == expected


def test_old_turns_leave_the_prompt_whole_and_their_speakers_references_stay() -> None:
    dialogue = new_dialogue(history_seconds=2.0)
    for i in range(5):
        spoken(dialogue, f"t{i}", f"turn {i}", 10, speaker=1 + i % 2)
    request = dialogue.request(dialogue.begin("x", 5, [Turn(2, "now")]))
    text = load_tokenizer(GOLDEN / "delay-nvq4" / "model").decode(request.prompt_rows[:, 0])
    assert "[S2]turn 3[S1]turn 4[S2]now" in text
    assert "turn 2" not in text


def test_a_runaway_is_bounded_by_the_text_and_by_the_limit() -> None:
    dialogue = new_dialogue(max_turn_seconds=4.0)
    short = dialogue.request(dialogue.begin("a", 0, [Turn(1, "Hi.")]))
    long = dialogue.request(dialogue.begin("b", 1, [Turn(1, "word " * 100)]))
    assert short.max_rows < long.max_rows == 4 * 12.5 + 4
    tiny = new_dialogue(max_turn_seconds=0.01)
    assert tiny.request(tiny.begin("a", 0, [Turn(1, "Hi.")])).max_rows == 5


def test_a_long_dialogue_keeps_no_more_audio_than_it_may_need() -> None:
    dialogue = new_dialogue(history_seconds=2)
    for i in range(100):
        spoken(dialogue, f"t{i}", "one two", 20)
    assert sum(len(entry.frames) for entry in dialogue.history) <= 4 * 25 + 2 * 20
    # The clock still counts all of it, and what is cut from the end makes room for what came before.
    total_ms = 100 * 20 * 80
    cut = dialogue.keep_heard(total_ms - 40 * 80)
    assert [c.turn for c in cut] == ["t98", "t99"]
    entry = dialogue.begin("next", 100, [Turn(1, "three")])
    assert dialogue.request(entry).known_codes is not None
    # Even to the very beginning, which is long forgotten.
    assert dialogue.keep_heard(80)[0].heard_ms == 80
    assert len(dialogue.history) == 1
