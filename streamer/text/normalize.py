"""Makes dialogue text ready to speak: one spelling for tags, pauses, laughter and white space.

Two upstream normalisers are the guides (the tests list where we differ). What this one promises beyond
them: it is idempotent, takes linear time, never raises, and loses no letter apart from laughter, which
becomes a cue.
"""

from __future__ import annotations

import itertools
import re
import unicodedata

from streamer.text.script import split_tags

# A base letter with more marks than this is decoration, and sorting long runs of marks takes quadratic time.
_MAX_MARKS = 8

_URL = r"(?:https?://|www\.)[-\w.~:/?#@!$&()*+,;=%]*[\w/]"
_EMAIL = r"(?<![\w.%+-])[\w.%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
_KEEP = rf"(?a:{_URL}|{_EMAIL})"

# Spellings that stand for plain letters and digits; folding anything else would change how it is read.
_FOLD = re.compile("[０-９Ａ-Ｚａ-ｚﬀ-ﬆｦ-ﾟ\U0001d400-\U0001d7ff]+")

_DECORATION = re.compile(
    rf"(?P<keep>{_KEEP})|(?P<times>(?<=\d) ?\*\*? ?(?=\d))"
    r"|(?P<apostrophe>(?<=[^\W_])’(?=[^\W_]))"
    r"|[“”„‟‘’‚‛\"«»‹›「」『』【】《》〈〉〖〗〘〙〔〕〝〞〟＂]|`+|\*+"
    r"|(?<!\w)_+|(?<!_)_+(?!\w)"
)

# Control characters are gone from the text by then, so they can mark what goes (0) and addresses (1).
_BESIDE_ADDRESS = re.compile("\1\0+|(?<!\0)\0+\1")
_UNMARKED = {0: None, 1: None}

_PLAIN_MARK = r",.;:!?…⋯—―，。；：、！？\u2190-\u21ff"
_MARK = (
    rf"\.{{2,}}|[{_PLAIN_MARK}]|-{{2,}}>?|->|(?<!=)=+>"
    # A lone hyphen is a dash only where nothing is joined to it.
    rf"|(?<![^ {_PLAIN_MARK}])[-–](?![^ {_PLAIN_MARK}])"
)
_SPOKEN = re.compile(
    rf"(?P<keep>{_KEEP}|\[[^\[\]]{{1,64}}\])"
    r"|(?P<laugh>\b[hH][aA](?:[,-]? ?[hH][aA])+\b)"
    r"|(?P<xiao>哈{2,})"
    rf"|(?P<run> ?(?:(?:{_MARK}) ?)+)"
)
_MARKS = re.compile(_MARK)
_ASCII_MARKS, _WIDE_MARKS = ",.;:!?", "，。；：、！？"
_TO_WIDE = {"?": "？", "!": "！", ".": "。", ",": "，"}

# Persian writes a zero-width non-joiner inside words; anywhere else it is noise.
_STRAY_NON_JOINER = re.compile("(?<![\u0600-\u06ff])\u200c+|\u200c+(?![\u0600-\u06ff])")
_PICTURES = [(0x2300, 0x23FF), (0x2500, 0x27BF), (0x2B00, 0x2BFF), (0xFFFC, 0xFFFD), (0x1F000, 0x1FAFF)]
_SELECTORS = [(0x20E3, 0x20E3), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF)]


def normalize_text(text: str) -> str:
    """The normal form of one turn's text, or of a whole script with its tags (``[S1]Hello.[S2]Hi.``).

    Tags lose the space after them, ``[1]`` becomes ``[S1]``, neighbouring turns of one speaker become one,
    and empty turns go. Addresses, times, fractions, decimals and apostrophes stay as they are.
    """
    pieces = ((speaker, _spoken(raw)) for speaker, raw in split_tags(_undecorated(_clean(text))))
    turns = itertools.groupby((piece for piece in pieces if piece[1]), key=lambda piece: piece[0])
    # Joining two turns makes a new border, so the joined text is spelled out once more.
    joined = ((speaker, _spoken(" ".join(said for _, said in group))) for speaker, group in turns)
    return "".join(said if speaker is None else f"[S{speaker}]{said}" for speaker, said in joined)


def _clean(text: str) -> str:
    """Composed characters, without what cannot be spoken, and single spaces."""
    text = text.translate(_CHARACTERS)
    if not text.isascii():
        text = _FOLD.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)
        text = _STRAY_NON_JOINER.sub("", _composed(text))
    return _single_spaces(text)


def _undecorated(text: str) -> str:
    """Without quotation marks, brackets and emphasis marks, except inside addresses."""

    def marked(found: re.Match[str]) -> str:
        if found["keep"]:
            return f"\1{found[0]}\1"
        return found[0] if found["times"] else "'" if found["apostrophe"] else "\0"

    # Decoration beside an address leaves a space, lest its neighbour become part of the address.
    marked_text = _BESIDE_ADDRESS.sub(" ", _DECORATION.sub(marked, text))
    # Without the quotation mark between them, a letter and an accent come together.
    return _single_spaces(_composed(marked_text.translate(_UNMARKED)))


def _spoken(text: str) -> str:
    """One turn's text with its pauses and laughter spelled the models' way."""

    def said(found: re.Match[str]) -> str:
        if found["run"]:
            return _pause(found)
        return "[laugh]" if found["laugh"] else "[笑]" if found["xiao"] else found[0]

    return _SPOKEN.sub(said, text.strip())


def _pause(found: re.Match[str]) -> str:
    """One mark for a run of marks and spaces: the strongest one, in the width of the writing around it."""
    run, text = found[0], found.string
    before, after = text[max(found.start() - 1, 0) : found.start()], text[found.end() : found.end() + 1]
    marks = _MARKS.findall(run)
    if _is_literal(run, marks, before, after):
        return run
    neutral = [mark for mark in marks if mark not in _ASCII_MARKS + _WIDE_MARKS]
    strongest = _strongest(marks)
    if strongest == "," and neutral and not after:
        strongest = "."
    if strongest in ".," and not before:
        return ""
    if len(neutral) == len(marks):
        wide = _is_wide(before) or (not before.isalnum() and _is_wide(after))
    else:
        wide = any(mark in _WIDE_MARKS for mark in marks)
    if wide:
        return _TO_WIDE[strongest]
    # An abbreviation keeps its point before the comma: "etc., and".
    return (".," if marks == [".", ","] else strongest) + (" " if after else "")


def _is_literal(run: str, marks: list[str], before: str, after: str) -> bool:
    """Whether the run is part of a word, number, time or range: ``3.50``, ``10:30``, ``5 - 3``."""
    between_digits = before.isdigit() and after.isdigit()
    if len(marks) != 1 or not after:
        return False
    if marks[0] in _ASCII_MARKS:
        return not run.endswith(" ")
    return between_digits and (run == "：" or run.strip() in ("-", "–"))


def _strongest(marks: list[str]) -> str:
    for mark in "?!":
        if mark in marks or _TO_WIDE[mark] in marks:
            return mark
    return "." if "." in marks or "。" in marks else ","


def _is_wide(character: str) -> bool:
    """Whether it is written with full-width punctuation: ideographs, kana, and those marks themselves."""
    return "\u2e80" <= character <= "\u9fff" or "\uf900" <= character <= "\uffef" or character >= "\U00020000"


def _composed(text: str) -> str:
    return text if text.isascii() else _cap_marks(unicodedata.normalize("NFC", _cap_marks(text)))


def _cap_marks(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= _MAX_MARKS:
            kept.append(character)
    return "".join(kept)


def _single_spaces(text: str) -> str:
    return " ".join(text.split())


class _CharacterMap(dict[int, "str | int"]):
    """``str.translate`` table, filled as characters turn up."""

    def __missing__(self, code: int) -> str | int:
        mapped = _mapped(code)
        # Bounded, so that text made of every character there is cannot fill the memory.
        if len(self) < 10_000:
            self[code] = mapped
        return mapped


def _mapped(code: int) -> str | int:
    """The character itself, a space for what separates words, or nothing for what has no width."""
    character = chr(code)
    category = unicodedata.category(character)
    if _within(code, _SELECTORS) or category in ("Cs", "Co") or (category == "Cf" and code != 0x200C):
        return ""
    if category[0] == "Z" or category == "Cc":
        return " "
    if _within(code, _PICTURES) and category[0] in "SC":
        return " "
    return code


def _within(code: int, ranges: list[tuple[int, int]]) -> bool:
    return any(low <= code <= high for low, high in ranges)


_CHARACTERS = _CharacterMap()
