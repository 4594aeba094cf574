"""When each word is said and each turn begins, from where in the text the voice is at each frame.

No tensors and no clocks: positions in, times out. What the alignment heads look at moves on word by word, now and then
two at once or back by one for a frame; a longer jump that lasts one frame is an error of theirs.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from streamer.text.script import TAG, is_speakable

# A [cue], an ideograph, or what stands between spaces; a bracket that is never closed is one by itself.
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"\[[^\]]*\]|[{_IDEOGRAPH}]|[^\s\[{_IDEOGRAPH}]+|\[")
# Of 740 steps of the embedded model's head on the held-out dialogues 95 % go to the next word, one goes further than
# the word after it.
_NEAR_WORDS = 2


@dataclass(frozen=True, slots=True)
class Word:
    """A word as written, with the marks that touch it, and the character of its script that it begins at."""

    text: str
    begin: int


class WordTime(NamedTuple):
    """A word and when it is said, counted from the first frame. The pause after a word is part of it."""

    word: str
    start_ms: int
    end_ms: int

    def later(self, ms: int) -> WordTime:
        """The same, counted from ``ms`` earlier."""
        return WordTime(self.word, self.start_ms + ms, self.end_ms + ms)


class TurnBegin(NamedTuple):
    """Turn ``turn`` of a script, the first being 0, begins with frame ``frame``."""

    turn: int
    frame: int


def words_of(script: str) -> list[Word]:
    """The words of a text or script, in order. Tags, [cues] and lone marks are none; an ideograph is one by itself."""
    found = ((match[0], match.start()) for match in WORD.finditer(script))
    return [Word(text, begin) for text, begin in found if not text.startswith("[") and is_speakable(text)]


def turn_begins(script: str) -> list[int]:
    """The character that each turn of a script begins at: its tag's first."""
    return [tag.start() for tag in TAG.finditer(script)]


class WordClock:
    """Times of one generation's words. Each comes exactly once, in order; none begins before the one before it ends."""

    def __init__(self, words: Sequence[Word], frame_ms: int) -> None:
        self._words = list(words)
        self._begins = [word.begin for word in self._words]
        self._frame_ms = frame_ms
        self._n_frames = 0
        # The word being said and the frame it began with; -1 before the first.
        self._word, self._frame = -1, 0
        # A word too far ahead to be believed at once, and the frame at which it was seen.
        self._ahead: tuple[int, int] | None = None

    def push(self, text_char: int) -> list[WordTime]:
        """The next frame is about character ``text_char`` of the script; the words that are over by that."""
        frame, seen = self._n_frames, bisect_right(self._begins, text_char) - 1
        self._n_frames += 1
        if seen - self._word > _NEAR_WORDS:
            if self._ahead is None:
                self._ahead = seen, frame
                return []
            seen, frame = min(seen, self._ahead[0]), self._ahead[1]
        self._ahead = None
        if seen <= self._word:
            return []
        over = self._times(seen, frame)
        self._word, self._frame = seen, frame
        return over

    def finish(self, n_frames: int) -> list[WordTime]:
        """The generation is over after ``n_frames``: all words that are left. What comes later changes nothing."""
        over = self._times(len(self._words), max(n_frames, self._frame))
        self._word = len(self._words)
        return over

    def _times(self, until: int, frame: int) -> list[WordTime]:
        """The words before ``until`` that have no times yet, which share the time up to ``frame`` by their lengths."""
        words = self._words[max(self._word, 0) : until]
        start_ms, end_ms = self._frame * self._frame_ms, frame * self._frame_ms
        lengths = list(itertools.accumulate((len(word.text) for word in words), initial=0))
        borders_ms = [start_ms + (end_ms - start_ms) * length // max(lengths[-1], 1) for length in lengths]
        spans = itertools.pairwise(borders_ms)
        return [WordTime(word.text, start, end) for word, (start, end) in zip(words, spans, strict=True)]


class TurnBorders:
    """With which frame each later turn of a script begins that is spoken in one pass; each begins exactly once.

    It is the second of two frames in a row that are about it or a later one: so nothing that was sent already changes
    hands, and the voice before, whose last silence the heads pass over in advance, has its own to the end more often.
    """

    def __init__(self, begins: Sequence[int]) -> None:
        self._begins = list(begins)
        self._n_frames = 0
        self._turn = 0
        self._seen_before = 0

    def push(self, text_char: int) -> list[TurnBegin]:
        """The next frame is about character ``text_char`` of the script; the turns that begin with this frame."""
        seen = max(bisect_right(self._begins, text_char) - 1, 0)
        until = min(seen, self._seen_before)
        self._seen_before = seen
        self._n_frames += 1
        return self._begin(until, self._n_frames - 1)

    def finish(self, n_frames: int) -> list[TurnBegin]:
        """The generation is over after ``n_frames``: turns that were never looked at begin, and end, there."""
        return self._begin(len(self._begins) - 1, n_frames)

    def _begin(self, until: int, frame: int) -> list[TurnBegin]:
        begun = [TurnBegin(turn, frame) for turn in range(self._turn + 1, until + 1)]
        self._turn = max(self._turn, until)
        return begun
