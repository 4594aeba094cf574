"""Words as they are counted: numbers spelled out, marks gone, errors as edit distance with a cap."""

from __future__ import annotations

import pytest

from streamer.evaluation.spelling import say_decimal, say_number, say_ordinal, say_time, say_year, spell_numbers
from streamer.evaluation.words import plain_words, word_errors


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (342, "three hundred forty two"),
        (1000, "one thousand"),
        (21_007, "twenty one thousand seven"),
        (999_999, "nine hundred ninety nine thousand nine hundred ninety nine"),
        (2_000_300, "two million three hundred"),
    ],
)
def test_numbers_in_words(value: int, words: str) -> None:
    assert say_number(value) == words


def test_ordinals_years_and_times_in_words() -> None:
    ordinals = {1: "first", 5: "fifth", 12: "twelfth", 20: "twentieth", 21: "twenty first", 30: "thirtieth"}
    ordinals |= {100: "one hundredth"}
    assert {n: say_ordinal(n) for n in ordinals} == ordinals
    years = {1900: "nineteen hundred", 1905: "nineteen oh five", 1987: "nineteen eighty seven"}
    years |= {2000: "two thousand", 2009: "two thousand nine", 2015: "twenty fifteen"}
    assert {n: say_year(n) for n in years} == years
    assert [say_time(3, 0), say_time(3, 5), say_time(12, 30)] == ["three o'clock", "three oh five", "twelve thirty"]


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("At 3:05, or 11:00?", "At three oh five, or eleven o'clock?"),
        ("3:00 o'clock", "three o'clock"),
        ("$1,500 in 1987", "one thousand five hundred dollars in nineteen eighty seven"),
        ("9,000 people", "nine thousand people"),
        ("1,250,000", "one million two hundred fifty thousand"),
        (
            "$4.50, $1.01 or $1,000.00.",
            "four dollars and fifty cents, one dollar and one cent or one thousand dollars.",
        ),
        ("2.5, not 0.125. 7 more.", "two point five, not zero point one two five. seven more."),
        ("1,200.5 miles", "one thousand two hundred point five miles"),
        ("$4.5. $1,200.999.", "four dollars and fifty cents. one thousand two hundred point nine nine nine dollars."),
        ("$1.5 million, $2 billion", "one point five million dollars, two billion dollars"),
        ("at 7.15", "at seven.fifteen"),
        ("the 21st, 50 %", "the twenty first, fifty percent"),
        ("room 12 of 1066", "room twelve of one thousand sixty six"),
        ("call 12345678", "call one two three four five six seven eight"),
        ("No number.", "No number."),
    ],
)
def test_only_the_numbers_of_a_text_are_spelled_out(written: str, spoken: str) -> None:
    assert spell_numbers(written) == spoken


def test_a_decimal_is_read_digit_by_digit() -> None:
    assert [say_decimal("3", "14"), say_decimal("20", "05")] == ["three point one four", "twenty point zero five"]


def test_spelling_of_numbers_and_marks_does_not_count() -> None:
    words = plain_words("It’s $20, at 3:05 — isn't it?")
    assert words == ["its", "twenty", "dollars", "at", "three", "oh", "five", "isnt", "it"]
    assert plain_words("7.15") == plain_words("7:15")
    assert plain_words("Forty-two!") == plain_words("42")
    assert plain_words(" ... '' ") == []


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [("a b c", "a b c", 0), ("a b c", "a x c", 1), ("a b c", "b c", 1), ("a b", "a x b", 1), ("a b", "", 2)],
)
def test_word_errors(said: str, heard: str, errors: int) -> None:
    assert word_errors(said.split(), heard.split()) == errors


def test_one_hallucination_counts_at_most_twice_its_words() -> None:
    assert word_errors(["yes"], ["x"] * 50) == 2
