"""The normaliser: where it agrees with two upstream ones and why not, and what it promises for any text."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.text import normalize_text

CASES = json.loads((Path(__file__).parents[1] / "data" / "golden" / "normalization.json").read_text(encoding="utf-8"))

# What ours makes of each golden text, and why that is neither upstream's answer (None where it is one).
OURS: list[tuple[str, str | None]] = [
    ("[S1]hello there[S2]hi", None),
    (
        "[S1]Wait, what? No, really?[S2][laugh], yes.",
        "English pauses are ASCII commas with a space; turns of one speaker are joined with a space",
    ),
    ("[S1][笑]，真的吗。[S2]是的，他说，好的，可以。", None),
    (
        "[S1]It costs $3.50 (or 20% less), see https://example.com/a_b?c=1 and mail me@x.org.",
        "an address is kept letter for letter",
    ),
    ("no tags at all, just text", None),
    ("[S2]empty first", "an empty turn has nothing to say"),
    ("[S1]line one line two[S2]spaced out", "tags as the first normaliser, runs of spaces as the second"),
    (
        "[S3]bold under code #tag @user 10:30 3/4 1,000,000",
        "emphasis marks are dropped in all three spellings, and a time keeps its colon",
    ),
    ("旁白书名引号，破折号。", None),
    ("[S1]emoji and and ™ and zero width", "pictures and zero-width characters can't be spoken"),
    (
        "[S1]arrow, and <b>html</b> {x} [pause] [laugh]",
        "an arrow is a pause, no pause comes before the first word, and English has ASCII commas",
    ),
    ("", None),
]
SAME_AS_DIALOGUE = {0, 2, 4, 8, 11}
SAME_AS_FAMILY = {4, 11}


def test_golden_has_the_twelve_texts() -> None:
    assert len(CASES) == len(OURS) == 12


@pytest.mark.parametrize("index", range(12))
def test_against_both_upstream_normalisers(index: int) -> None:
    case, (ours, reason) = CASES[index], OURS[index]
    assert normalize_text(case["text"]) == ours
    assert (ours == case["dialogue_normalized"]) == (index in SAME_AS_DIALOGUE)
    assert (ours == case["family_normalized"]) == (index in SAME_AS_FAMILY)
    assert (reason is None) == (index in SAME_AS_DIALOGUE | SAME_AS_FAMILY)


@pytest.mark.parametrize(
    "text",
    [
        "At 10:30, 3/4 of 1,000,000 is 0.75.",
        "See https://example.com/a--b_c/?q=1;2&r=*x*#top or www.example.org/_a_.",
        "Mail first.last+tag@mail.example.co.uk, please.",
        "Don't say 'maybe', it's Ann's.",
        "5 - 3 = 2, pages 10–20, well-known, snake_case, 2 * 3, 4*5.",
        "e.g. this, etc., and v1.2.",
        "[laugh] Yes. [pause] No.",
        "你好，世界！真的？是。",
        "現在10：30",
        "می\u200cخواهم",
        "Ça va? ¿Qué tal? Grüß Gott! Привет. שלום. 안녕하세요.",
    ],
)
def test_left_alone(text: str) -> None:
    assert normalize_text(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("“Yes,” she said -- then... nothing…", "Yes, she said, then, nothing."),
        ("don’t stop!!! ok?!?", "don't stop! ok?"),
        ("hello , world ;  bye", "hello, world, bye"),
        ("Note: one; two", "Note, one, two"),
        ("好...的——对。", "好，的，对。"),
        ("ha ha", "[laugh]"),
        ("Hahaha! 哈哈", "[laugh]! [笑]"),
        ("aha, hat, 哈", "aha, hat, 哈"),
        ("hi😀there 👨\u200d👩\u200d👧 1️⃣", "hi there 1"),
        ("a\u00adb\u200bc\ufeff\u202ed", "abcd"),
        ("ＡＢＣ１２３ ﬁne ｶﾞ", "ABC123 fine ガ"),
        ("cafe\u0301 cafe”\u0301", "café café"),
        ("a\tb\r\nc\u00a0d", "a b c d"),
        ("...and then", "and then"),
        ("**me@x.org**_or_ https://x.org/“a_b”", "me@x.org or https://x.org/ a_b"),
        ("z" + "\u0323\u0301" * 50, "ẓ" + "\u0323" * 3 + "\u0301" * 4),
        ("[S1]a.[s1]b[2]c", "[S1]a. b[S2]c"),
        ("[S*1]x", "[S1]x"),
        ("lone \ud800 surrogate", "lone surrogate"),
    ],
)
def test_made_speakable(text: str, expected: str) -> None:
    assert normalize_text(text) == expected


# Characters that take part in a rule, so that random texts are full of near misses.
TRICKY = " \n\t.,;:!?…—–-=>→，。；：、！？“”\"‘’'「」*_`[]S12ahA哈字あ1٣é\u0301\u200c\u200d\ufe0f😀http:/w@ｶﾞﬁＡ\u0628"
TEXTS = st.one_of(
    st.text(alphabet=TRICKY, max_size=40),
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            [
                *TRICKY,
                "[S1]",
                "[2]",
                "ha ha",
                "http://",
                "www.a",
                "a@b.c",
                "...",
                "--",
                "->",
                " - ",
                "[pause]",
            ]
        ),
        max_size=14,
    ).map("".join),
)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(TEXTS)
def test_idempotent(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once


def letters(text: str) -> str:
    """The letters of a text in their plainest spelling, without tags and laughter."""
    text = re.sub(r"\[[sS]?[1-5]\]", "", text)
    plain = unicodedata.normalize("NFKD", "".join(c for c in text if unicodedata.category(c)[0] == "L"))
    plain = "".join(c for c in plain if unicodedata.category(c)[0] == "L").casefold()
    return re.sub("laugh|笑|(ha)+|哈+", "", plain)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(TEXTS)
def test_no_letter_is_lost(text: str) -> None:
    once = normalize_text(text)
    assert letters(once) == letters(text)


@pytest.mark.parametrize(
    "unit",
    [
        " ",
        "_",
        "*",
        "=",
        "-",
        "...",
        "…",
        "[",
        "http://.",
        "a@",
        "ha ",
        "哈",
        "[S1]a[S2]",
        "\u0301\u0327",
        "\u0344",
    ],
)
def test_a_long_run_of_anything_is_read_once(unit: str) -> None:
    # A rule that backtracks would need minutes for this.
    once = normalize_text(f"a{unit * (300_000 // len(unit))}b")
    assert normalize_text(once) == once
