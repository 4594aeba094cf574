"""Text that comes in pieces: where it may be spoken before the rest is there."""

from __future__ import annotations

import itertools

import pytest
import sentencex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.text.pieces import PieceReader

# The stuff that sentences are made of, so that borders of all kinds come up often.
WORDS = [
    "Hello",
    "yes",
    "3",
    "14",
    "Dr",
    "z.B",
    "x",
    "A",
    "你好",
    "今天",
    "आप",
    "don’t",
    "www.example.com/a,b",
    "é",
    "\ud800",
]
MARKS = [
    ".",
    ". ",
    "! ",
    "?",
    "...",
    "…",
    ", ",
    ",",
    ": ",
    "; ",
    " - ",
    "—",
    "。",
    "，",
    "、",
    "！？",
    "।",
    "。”",
    ".” ",
    "\n\n",
    "\n",
]
OTHERS = [" ", "  ", "[", "]", "[laugh] ", "(", ") ", "“", "🙂 ", "\u0301"]
TEXTS = st.lists(st.sampled_from([*WORDS, " "]) | st.sampled_from(MARKS) | st.sampled_from(OTHERS), max_size=40)
LANGUAGES = st.sampled_from([None, "en", "de", "fr", "zh-CN", "ja", "hi", "xx", "", "EN-us"])


def read(text: str, language: str | None = "en", cuts: list[int] | None = None) -> list[str]:
    """All pieces of a text that comes cut up at ``cuts``, or at once."""
    reader = PieceReader(language)
    borders = [0, *sorted(cuts or []), len(text)]
    pieces = [piece for a, b in itertools.pairwise(borders) for piece in reader.feed(text[a:b])]
    pieces += reader.flush()
    assert not reader.pending
    return pieces


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello there. How are you? Fine", ["Hello there.", "How are you?", "Fine"]),
        ("It costs 3.14 euros, Dr. Smith said. Yes.", ["It costs 3.14 euros,", "Dr. Smith said.", "Yes."]),
        ("About 1,000 of 2,500 people. So.", ["About 1,000 of 2,500 people.", "So."]),
        ("Look at www.example.com/a,b:c now. Then go.", ["Look at www.example.com/a,b:c now.", "Then go."]),
        ("Wait... what? Yes... No.", ["Wait... what?", "Yes...", "No."]),
        ("She said [laugh softly. Really] go. Now.", ["She said [laugh softly. Really] go.", "Now."]),
        ("All right. [laugh] Sure. Go.", ["All right.", "[laugh] Sure.", "Go."]),
        ("你好。[laugh]今天天气很好！是吗", ["你好。", "[laugh]今天天气很好！", "是吗"]),
        ("A title\n\nAnd its text\nover lines.", ["A title", "And its text\nover lines."]),
        ("नमस्ते। आप कैसे हैं? ठीक", ["नमस्ते।", "आप कैसे हैं?", "ठीक"]),
        ("“Go.” He went. Fine", ["“Go.”", "He went.", "Fine"]),
        ("In the year 10:30, 1, 2", ["In the year 10:30,", "1, 2"]),
        ("!!! Wow. 🙂 No", ["!!! Wow.", "🙂 No"]),
        ("No [cue " + "that. Ends " * 8, ["No [cue " + "that. Ends " * 5 + "that.", *["Ends that."] * 2, "Ends"]),
        ("", []),
        (" \n ", []),
        ("...", ["..."]),
    ],
)
def test_borders(text: str, pieces: list[str]) -> None:
    assert read(text) == pieces


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("In my humble opinion, it is so, and good.", "In my humble opinion,"),
        ("Well, you know, it is so, and good.", "Well, you know, it is so,"),
        ("I will tell you this: it is good.", "I will tell you this:"),
        ("I was there then - and so on.", "I was there then -"),
        ("I was there then—and so on.", "I was there then—"),
        ("I was quite well-known there", "I was quite well-known there"),
        ("From nineteen 10—20 or so", "From nineteen 10—20 or so"),
        ("今天，天气很好，我们走吧。", "今天，天气很好，"),
        ("Cues [like this one, yes] and that, too", "Cues [like this one, yes] and that,"),
        ("Yes. In my humble opinion, it is so.", "Yes."),
    ],
)
def test_the_first_piece_may_end_with_a_clause(text: str, first: str) -> None:
    assert read(text)[0] == first


def test_only_the_first_piece_ends_with_a_clause() -> None:
    reader = PieceReader(None)
    assert reader.feed("In my humble opinion, it is certainly true, and good. ") == [
        "In my humble opinion,",
        "it is certainly true, and good.",
    ]
    reader = PieceReader(None)
    assert reader.feed("Said in") == []
    assert reader.flush() == ["Said in"]
    assert reader.feed(" this humble opinion of mine, it is") == []


def test_speech_begins_as_soon_as_the_border_is_sure() -> None:
    reader = PieceReader("en")
    tokens = ["It", " is", " 3", ".", "14", " eu", "ros", ".", " Dr", ".", " No", " came", "!", " "]
    assert [reader.feed(token) for token in tokens] == [
        *[[]] * 8,
        ["It is 3.14 euros."],
        *[[]] * 4,
        ["Dr. No came!"],
    ]
    assert not reader.pending
    # In German a small letter would say that the sentence goes on.
    german = PieceReader("de")
    assert german.feed("Das ist gut. ") == []
    assert german.feed("S") == ["Das ist gut."]


def test_what_is_left_comes_out_once() -> None:
    reader = PieceReader(None)
    story = []
    for text in ("", "One two", " three. Four", " \n"):
        given_out = reader.feed(text)
        story.append((given_out, reader.pending, reader.flush(), reader.pending))
    assert story == [
        ([], False, [], False),
        ([], True, ["One two"], False),
        (["three."], True, ["Four"], False),
        ([], False, [], False),
    ]


@pytest.mark.parametrize("language", [None, "fr", "de", "xx", "", "pl-PL"])
def test_initials_and_ordinals_end_no_sentence_whatever_the_language(language: str | None) -> None:
    for text in ("M. Dupont u.a. J. Smith", "Am 3. Mai", "1. First"):
        assert read(text, language) == [text]
    assert read("It is 3.14. Now 115. Yes", language) == ["It is 3.14.", "Now 115.", "Yes"]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(TEXTS, st.lists(st.integers(0, 200), max_size=30), LANGUAGES)
@example(["Hello", ".", "”", " ", "yes"], [1, 5, 6, 7, 8], "en")
def test_cut_up_anyhow_a_text_gives_the_same_pieces_and_nothing_is_lost(
    parts: list[str], cuts: list[int], language: str | None
) -> None:
    text = "".join(parts)
    pieces = read(text, language)
    assert squeezed("".join(pieces)) == squeezed(text)
    assert all(piece and piece == piece.strip() for piece in pieces)
    assert all(any(map(str.isalnum, piece)) for piece in pieces[:-1])
    assert read(text, language, [cut % (len(text) + 1) for cut in cuts]) == pieces
    assert read(text, language, list(range(len(text)))) == pieces


@settings(max_examples=200, deadline=None, derandomize=True)
@given(TEXTS, st.data(), LANGUAGES)
def test_nothing_is_lost_when_the_wire_falls_silent(parts: list[str], data: st.DataObject, language: str) -> None:
    reader = PieceReader(language)
    pieces: list[str] = []
    for text in parts:
        pieces += reader.feed(text)
        if data.draw(st.booleans()):
            pieces += reader.flush()
    pieces += reader.flush()
    assert squeezed("".join(pieces)) == squeezed("".join(parts))


@pytest.mark.parametrize(
    "unit", ["Hello there, you. ", "a", "a ", "! ", "。", "é, ", "[a. b! ", "你。", "Dr. ", "\n\n"]
)
def test_the_work_a_character_takes_has_a_bound(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    def counted(language: str, text: str) -> list[str]:
        nonlocal looked_at
        looked_at += len(text)
        return segment(language, text)

    segment = sentencex.segment
    monkeypatch.setattr("streamer.text.pieces.sentencex.segment", counted)
    text = unit * (8000 // len(unit))
    assert squeezed("".join(read(text, "en", list(range(len(text)))))) == squeezed(text)
    # A border is looked at once when it may be one at once, and once when the next word has begun.
    n_borders = len(text) // len(unit) * unit.count(" ") + text.count("。")
    assert looked_at <= n_borders * 4 * 257
