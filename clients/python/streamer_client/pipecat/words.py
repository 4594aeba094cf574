"""When each word of a turn is said, where the model does not tell: estimated by an even speaking rate."""

from __future__ import annotations

import re
from typing import NamedTuple

# Characters that are words by themselves: kana, and Chinese characters.
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}][^\w\s]*|[^\s{_ALONE}]+")
_IS_ALONE = re.compile(rf"[{_ALONE}]")
_ALONE_WEIGHT = 3.5  # a syllable or more, where a letter is much less
_USUAL_MS = 65.0  # for a letter, English
_USUAL_WEIGHT = 50.0
_LOOKAHEAD_MS = 400.0


class TimedWord(NamedTuple):
    """A word, from when on it is heard (seconds from the start of its turn), and whether spaces set it apart."""

    text: str
    start_s: float
    spaced: bool


class SpeakingRate:
    """Milliseconds for a letter, learned from turns that were spoken to their end."""

    def __init__(self) -> None:
        self._weight = _USUAL_WEIGHT
        self._audio_ms = _USUAL_WEIGHT * _USUAL_MS

    @property
    def letter_ms(self) -> float:
        """The mean so far."""
        return self._audio_ms / self._weight

    def learn(self, weight: float, audio_ms: float) -> None:
        """A text of this weight took so long."""
        if weight and audio_ms:
            self._weight += weight
            self._audio_ms += audio_ms


class TurnWords:
    """The words of one turn whose text comes in pieces. Each is given out once, in order."""

    def __init__(self, rate: SpeakingRate) -> None:
        self._letter_ms = rate.letter_ms
        self._tail = ""
        self._waiting: list[str] = []
        self._next_ms = 0.0
        self.weight = 0.0

    def write(self, text: str) -> None:
        """The next piece; a word is known once the next one begins, or at `close`."""
        self._tail += text
        words = _WORD.findall(self._tail)
        if words and not self._tail[-1].isspace():
            self._tail = words.pop()
        elif words:
            self._tail = ""
        self._take(words)

    def close(self) -> None:
        """The text is complete."""
        self._take(_WORD.findall(self._tail))
        self._tail = ""

    def due(self, sent_ms: float, heard_ms: float) -> list[TimedWord]:
        """Words whose audio is there and that are about to be heard: a later estimate is a better one."""
        until_ms = min(sent_ms, heard_ms + _LOOKAHEAD_MS)
        words: list[TimedWord] = []
        while self._waiting and self._next_ms < until_ms:
            words.append(self._give(self._letter_ms))
        return words

    def rest(self, audio_ms: float) -> list[TimedWord]:
        """The words left, spread evenly over what is left of the turn's `audio_ms`."""
        self.close()
        left_ms = max(audio_ms - self._next_ms, 0.0)
        letter_ms = left_ms / max(sum(map(_weight, self._waiting)), 1.0)
        self._next_ms = min(self._next_ms, audio_ms)
        return [self._give(letter_ms) for _ in range(len(self._waiting))]

    def _take(self, words: list[str]) -> None:
        self._waiting += words
        self.weight += sum(map(_weight, words))

    def _give(self, letter_ms: float) -> TimedWord:
        word = self._waiting.pop(0)
        timed = TimedWord(word, self._next_ms / 1000, not _IS_ALONE.match(word))
        self._next_ms += _weight(word) * letter_ms
        return timed


def _weight(word: str) -> float:
    return _ALONE_WEIGHT if _IS_ALONE.match(word) else len(word) + 1.0
