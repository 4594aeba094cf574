"""Text that comes a few characters at a time, cut into pieces that can be spoken before the rest is there."""

from __future__ import annotations

import re
import unicodedata

import sentencex

# How far back a sentence is looked at, and how far an open bracket may be a [cue]: both bound the work a character.
_WINDOW_CHARS = 256
_CUE_CHARS = 64
# About a second of speech: with less, what comes next would be late. An ideograph is a syllable or two.
_CLAUSE_LETTERS = 12
_IDEOGRAPH_LETTERS = 3

_MAY_END = re.compile(r"[.!?;\n]|[^\x00-\x7f“”‘’«»]")
_CLAUSE_END = re.compile(r"[,;:][^\w\s]{0,3}\s|[，；：、،؛]|—|(?<=\s)(?:–|--?)\s")
# "J. Smith", "u.a.", "3. Mai": no end of a sentence in any language, though most languages' rules don't know it.
_NO_END = re.compile(r"(?:(?:^|\W)[^\W\d_]|(?:^|[^\w.,:])\d{1,2})\.[^\w.]*$")
_SURROGATES = re.compile("[\ud800-\udfff]")
# A letter of each kind that a next sentence might begin with.
_BEGINNINGS = ("A", "a", "1")


class PieceReader:
    """Reads one turn's text. Its first piece may be a clause, so that speech starts soon; later ones are sentences.

    However the text is cut up on its way in, the same pieces go out. Together they are the text, but for white space at
    their seams. A border is settled once, by the character after it: the time taken is linear in the text's length.
    """

    def __init__(self, language: str | None) -> None:
        """``language``: a code such as ``de`` or ``pt-BR``; English rules are used for None and for unknown ones."""
        self._language = (language or "en").lower().partition("-")[0]
        self._is_first = True
        self._start_over([])

    @property
    def pending(self) -> bool:
        """Whether there is text that is in no piece yet."""
        return not all(map(str.isspace, self._chars))

    def feed(self, text: str) -> list[str]:
        """The pieces that ``text`` completes."""
        pieces = []
        for character in text:
            if character.isalnum():
                end = self._border_before(character)
                if end:
                    pieces.append(self._cut(end))
                self._n_letters += _IDEOGRAPH_LETTERS if unicodedata.east_asian_width(character) in "WF" else 1
                self._chars.append(character)
                self._words_end, self._is_spaced = len(self._chars), False
                continue
            self._chars.append(character)
            if character in "[]":
                self._cue_start = len(self._chars) - 1 if character == "[" else None
            elif character.isspace() and not self._is_spaced:
                self._is_spaced = True
                if self._ends_here():
                    pieces.append(self._cut(len(self._chars)))
        return pieces

    def flush(self) -> list[str]:
        """What is left, as one piece or none: nothing more has come for a while, or nothing will."""
        return [self._cut(len(self._chars))] if self.pending else []

    def _cut(self, end: int) -> str:
        piece = "".join(self._chars[:end]).strip()
        self._is_first = False
        self._start_over(self._chars[end:])
        return piece

    def _start_over(self, rest: list[str]) -> None:
        """``rest``: marks and spaces before a word that is still to come."""
        self._chars = rest
        self._n_letters = 0
        self._words_end = 0
        self._is_spaced = False
        self._cue_start = rest.index("[") if "[" in rest else None

    def _border_before(self, character: str) -> int | None:
        """Where a piece ends, now that ``character`` begins another word."""
        gap = "".join(self._chars[self._words_end :])
        if not gap or not self._n_letters:
            return None
        end = None
        # 3.14 and example.com are words with a gap as well.
        if _MAY_END.search(gap) and not (gap.isascii() and not self._is_spaced):
            end = self._sentence_end(character)
        if end is None and self._may_end_with_clause:
            before = self._chars[self._words_end - 1]
            mark = _CLAUSE_END.search(gap)
            if mark and not (before.isdigit() and character.isdigit()):
                end = self._words_end + mark.end()
        return None if end is None else self._outside_cue(end)

    def _ends_here(self) -> bool:
        """Whether the first white space after a word ends a piece, whatever comes after it."""
        gap = "".join(self._chars[self._words_end :])
        if len(gap) < 2 or not self._n_letters or self._outside_cue(len(self._chars)) != len(self._chars):
            return False
        clause = _CLAUSE_END.search(gap) if self._may_end_with_clause else None
        if clause and clause.end() == len(gap):
            return True
        end = len(self._chars)
        return bool(_MAY_END.search(gap)) and all(self._sentence_end(letter) == end for letter in _BEGINNINGS)

    @property
    def _may_end_with_clause(self) -> bool:
        return self._is_first and self._n_letters >= _CLAUSE_LETTERS

    def _sentence_end(self, character: str) -> int | None:
        """Where the text's last sentence would end if ``character`` began a word."""
        window = _SURROGATES.sub("\ufffd", "".join(self._chars[-_WINDOW_CHARS:]))
        last = sentencex.segment(self._language, window + character)[-1]
        end = len(self._chars) + 1 - len(last)
        return end if end > self._words_end and not _NO_END.search(window) else None

    def _outside_cue(self, end: int) -> int | None:
        """``end``, before a bracket that is still open; None inside a cue's words."""
        start = self._cue_start
        if start is None or len(self._chars) - start > _CUE_CHARS:
            return end
        return min(end, start) if start > self._words_end else None
