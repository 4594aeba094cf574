"""What was played, and when each word is said, as far as can be told: pure arithmetic, on a clock of the test's."""

from __future__ import annotations

import pytest
from clients.pipecat_running import CHUNK_MS  # skips without Pipecat
from hypothesis import given
from hypothesis import strategies as st

from streamer_client.pipecat.playback import Playback
from streamer_client.pipecat.words import SpeakingRate, TurnWords


def test_playing_goes_on_with_time_and_no_further_than_the_audio() -> None:
    playback = Playback()
    playback.push("a", 500, 0)
    assert playback.played_ms(300) == 0, "the transport has not begun"
    playback.started(400)
    assert playback.played_ms(600) == 200
    assert playback.played_ms(2000) == 500
    playback.push("a", 500, 2000)
    assert playback.played_ms(2100) == 600, "it goes on when more is there"
    playback.stopped(2150)
    assert playback.played_ms(9000) == 1000, "what was handed over before the transport fell silent was played"


def test_the_next_turn_begins_when_the_transport_says_so() -> None:
    playback = Playback()
    for turn in ("a", "b"):
        playback.push(turn, 500, 0)
        playback.end(turn)
    playback.started(0)
    assert playback.played_ms(800) == 500
    playback.stopped(800)
    playback.started(810)
    assert not playback.holds("a")
    assert playback.heard_ms("b", 910) == 100
    assert playback.played_ms(910) == 600


def test_what_is_dropped_does_not_count() -> None:
    playback = Playback()
    for turn in ("a", "b", "c"):
        playback.push(turn, 500, 0)
    playback.started(0)
    for turn in ("a", "b"):
        playback.drop(turn, 200)
    assert playback.heard_ms("c", 200) == 0
    assert playback.played_ms(300) == 300, "c follows, which was not interrupted"
    playback.drop("c", 300)
    playback.stopped(310)
    playback.push("d", 500, 320)
    assert playback.played_ms(400) == 300
    playback.started(400)
    assert playback.played_ms(500) == 400


def test_turns_that_nobody_plays_are_not_kept_for_ever() -> None:
    playback = Playback()
    for n in range(1000):
        playback.push(str(n), CHUNK_MS, n)
    assert sum(playback.holds(str(n)) for n in range(1000)) < 100


@given(
    st.lists(st.tuples(st.sampled_from(["push", "end", "started", "stopped", "drop"]), st.integers(0, 3)), max_size=40)
)
def test_played_never_shrinks_nor_outgrows_what_was_pushed(steps: list[tuple[str, int]]) -> None:
    playback = Playback()
    pushed_ms = played_ms = 0.0
    newest = 0
    for now_ms, (step, turn) in enumerate(steps):
        if step == "push":
            newest = max(newest, turn)
            playback.push(str(newest), 7, now_ms * 5)
            pushed_ms += 7
        elif step in ("end", "drop"):
            playback.end(str(turn)) if step == "end" else playback.drop(str(turn), now_ms * 5)
        else:
            getattr(playback, step)(now_ms * 5)
        now_played_ms = playback.played_ms(now_ms * 5)
        assert played_ms <= now_played_ms <= pushed_ms
        played_ms = now_played_ms


@given(st.text(alphabet="ab .,\n你好、", max_size=60), st.lists(st.integers(1, 7), max_size=20))
def test_every_word_is_given_once_in_order_however_the_text_is_cut(text: str, sizes: list[int]) -> None:
    words = TurnWords(SpeakingRate())
    given_out, at, sent_ms = [], 0, 0.0
    for size in [*sizes, len(text)]:
        words.write(text[at : at + size])
        at += size
        sent_ms += 80
        given_out += words.due(sent_ms, sent_ms)
    audio_ms = sent_ms + 500
    given_out += words.rest(audio_ms)
    assert "".join(word.text for word in given_out) == "".join(text.split())
    starts = [word.start_s for word in given_out]
    assert starts == sorted(starts)
    assert all(0 <= start <= audio_ms / 1000 for start in starts)


def test_words_wait_for_their_audio_and_for_the_listener() -> None:
    words = TurnWords(SpeakingRate())
    words.write("One two three four five six seven. ")
    assert [word.text for word in words.due(80, 0)] == ["One"]
    assert len(words.due(10_000, 0)) < 3, "a later estimate is a better one"
    assert words.due(10_000, 10_000)[-1].text == "seven."


def test_the_words_left_fill_the_audio_left() -> None:
    words = TurnWords(SpeakingRate())
    words.write("aaa bbb ccc ddd")
    assert [word.start_s for word in words.rest(4000)] == [0, 1, 2, 3]


def test_the_rate_is_learned() -> None:
    rate = SpeakingRate()
    before_ms = rate.letter_ms
    for _ in range(100):
        rate.learn(100, 100 * 200)
    assert before_ms < 100 < rate.letter_ms == pytest.approx(200, rel=0.05)
    rate.learn(0, 5000)
    rate.learn(10, 0)
    assert rate.letter_ms == pytest.approx(200, rel=0.05)


def test_chinese_words_stand_without_spaces() -> None:
    words = TurnWords(SpeakingRate())
    words.write("你好，world。")
    assert [(word.text, word.spaced) for word in words.rest(1000)] == [
        ("你", False),
        ("好，", False),
        ("world。", True),
    ]
