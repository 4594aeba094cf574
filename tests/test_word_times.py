"""Words and turns timed by where in the text the voice is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.word_times import TurnBegin, TurnBorders, Word, WordClock, WordTime, turn_begins, words_of

FRAME_MS = 80
SCRIPT = "[S1]One two, three four five.[S2]Six! [laugh] Seven eight."
WORDS = words_of(SCRIPT)
AT = {word.text: word.begin + len(word.text) - 1 for word in WORDS}
ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT = AT.values()


def times(chars: list[int], n_frames: int | None = None, script: str = SCRIPT) -> list[WordTime]:
    clock = WordClock(words_of(script), FRAME_MS)
    over = [word for char in chars for word in clock.push(char)]
    return over + clock.finish(len(chars) if n_frames is None else n_frames)


def borders(chars: list[int], script: str = SCRIPT) -> list[TurnBegin]:
    clock = TurnBorders(turn_begins(script))
    return [begin for char in chars for begin in clock.push(char)] + clock.finish(len(chars))


def test_words_are_what_is_said() -> None:
    assert [word.text for word in WORDS] == ["One", "two,", "three", "four", "five.", "Six!", "Seven", "eight."]
    assert words_of("[S1]你好，world — 3 times… [一笑] ok") == [
        Word("你", 4),
        Word("好", 5),
        Word("，world", 6),
        Word("3", 15),
        Word("times…", 17),
        Word("ok", 29),
    ]
    assert words_of("a [b c") == [Word("a", 0), Word("b", 3), Word("c", 5)]
    assert words_of("[S1][laugh] ... !") == []


def test_a_word_is_over_when_the_next_one_begins() -> None:
    clock = WordClock(WORDS[:3], FRAME_MS)
    pushed = [clock.push(char) for char in (ONE, ONE, TWO, TWO, TWO, THREE)]
    assert pushed == [[], [], [WordTime("One", 0, 160)], [], [], [WordTime("two,", 160, 400)]]
    assert clock.finish(7) == [WordTime("three", 400, 560)]
    assert clock.finish(7) == clock.push(ONE) == clock.push(THREE) == []


def test_silence_before_the_first_word_is_not_part_of_it() -> None:
    assert times([0, 1, ONE, TWO])[0] == WordTime("One", 160, 240)


def test_looking_back_changes_nothing() -> None:
    assert times([ONE, TWO, ONE, TWO, THREE, ONE, THREE]) == times([ONE, TWO, TWO, TWO, THREE, THREE, THREE])


def test_a_word_that_is_passed_over_shares_the_time_of_the_one_before() -> None:
    found = times([TWO, TWO, TWO, FOUR, FIVE, SIX, SEVEN, EIGHT])
    # "two," and "three" have 4 and 5 characters; nothing is left for "One".
    assert found[:3] == [WordTime("One", 0, 0), WordTime("two,", 0, 106), WordTime("three", 106, 240)]


def test_a_far_jump_is_believed_only_when_the_next_frame_confirms_it() -> None:
    glitch = times([ONE, ONE, FIVE, ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT])
    assert glitch == times([ONE, ONE, ONE, ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT])
    clock = WordClock(WORDS, FRAME_MS)
    assert [clock.push(char) for char in (ONE, ONE, ONE, FIVE)] == [[]] * 4
    # It counts from where it was seen first.
    assert clock.push(FIVE)[-1] == WordTime("four", 180, 240)
    # Two frames that disagree are believed as far as both go.
    for pair in ([EIGHT, FIVE], [FIVE, EIGHT]):
        assert times([ONE, *pair, FIVE, FIVE, SIX])[4] == WordTime("five.", 80, 400)


def test_words_that_were_never_looked_at_have_times_within_what_is_left() -> None:
    found = times([ONE, TWO], n_frames=10)
    assert [word.word for word in found] == [word.text for word in WORDS]
    assert found[1].start_ms == 80
    assert found[-1].end_ms == 800
    assert times([], n_frames=0) == [WordTime(word.text, 0, 0) for word in WORDS]


@given(st.lists(st.integers(0, len(SCRIPT)), max_size=40))
def test_whatever_the_head_looks_at_each_word_comes_once_and_in_order(chars: list[int]) -> None:
    found = times(chars)
    assert [word.word for word in found] == [word.text for word in WORDS]
    ends = [time for word in found for time in word[1:]]
    assert ends == sorted(ends)
    assert ends[0] >= 0 and ends[-1] <= len(chars) * FRAME_MS
    begun = borders(chars)
    assert [begin.turn for begin in begun] == [1]
    assert 0 < begun[0].frame <= len(chars) or not chars


def test_a_turn_begins_with_the_second_frame_about_it() -> None:
    assert borders([ONE, FIVE, SIX, SIX, SEVEN]) == [TurnBegin(1, 3)]
    assert borders([ONE, SIX, FIVE, FIVE, SIX, SEVEN, EIGHT]) == [TurnBegin(1, 5)]
    # The tag itself is the turn's.
    assert borders([ONE, SCRIPT.index("[S2]"), SIX]) == [TurnBegin(1, 2)]


def test_a_turn_begins_when_it_was_jumped_over_or_never_reached() -> None:
    script = "[S1]One.[S2]Two.[S3]Three.[S1]Four."
    first, _, third, fourth = (begin + 5 for begin in turn_begins(script))
    assert borders([first, third, third, fourth, fourth], script) == [
        TurnBegin(1, 2),
        TurnBegin(2, 2),
        TurnBegin(3, 4),
    ]
    assert borders([first, first], script) == [TurnBegin(1, 2), TurnBegin(2, 2), TurnBegin(3, 2)]
    assert borders([third, third, first, third], script)[0] == TurnBegin(1, 1)
    assert borders([0, 0], "no tags") == []
