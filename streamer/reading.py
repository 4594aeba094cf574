"""Following one generation through its text: when its words are said, and where its turns meet."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from streamer.text.positions import ScriptRows
from streamer.word_times import TurnBorders, Word, WordClock, WordTime, turn_begins, words_of


@dataclass(frozen=True, slots=True)
class Said:
    """Words of the turn that is being spoken; ``over``: what comes now, frame and all, is the next turn's."""

    words: list[WordTime]
    over: bool


class Reading:
    """Of the last ``n_turns`` turns of a script, which are being generated; what stands before them was said.

    Word times count from the beginning of each turn in this generation. Raises ValueError for turns without a word.
    """

    def __init__(self, rows: ScriptRows, script: str, texts: Sequence[str], frame_ms: int) -> None:
        own = words_of(script)[-sum(len(words_of(text)) for text in texts) :] if texts else []
        if not own:
            raise ValueError("texts: there is no word to follow")
        first_tag = script.rindex("[S", 0, own[0].begin)
        begins = [begin for begin in turn_begins(script) if begin >= first_tag]
        self.text_rows = rows.rows_of(own[0].begin, len(script))
        self._rows = rows
        self._borders = TurnBorders(begins)
        self._clocks = [WordClock(words, frame_ms) for words in _by_turn(own, begins)]
        self._turn = 0
        self._n_frames = 0
        self._turn_began = 0

    def push(self, text_row: int) -> list[Said]:
        """The next frame, which is about this prompt row: what is known by it."""
        text_char = self._rows.character(text_row)
        said = self._pass_borders(len(self._borders.push(text_char)))
        words = self._clocks[self._turn].push(text_char)
        self._n_frames += 1
        return [*said, Said(words, over=False)] if words else said

    def finish(self) -> list[Said]:
        """The generation is over: the words that are left, and the turns that were never looked at."""
        said = self._pass_borders(len(self._borders.finish(self._n_frames)))
        words = self._clocks[self._turn].finish(self._n_frames - self._turn_began)
        return [*said, Said(words, over=False)] if words else said

    def _pass_borders(self, n_turns: int) -> list[Said]:
        said: list[Said] = []
        for _ in range(n_turns):
            words = self._clocks[self._turn].finish(self._n_frames - self._turn_began)
            said.append(Said(words, over=True))
            self._turn += 1
            self._turn_began = self._n_frames
        return said


def _by_turn(words: Sequence[Word], begins: Sequence[int]) -> list[list[Word]]:
    turns: list[list[Word]] = [[] for _ in begins]
    for word in words:
        turns[bisect_right(begins, word.begin) - 1].append(word)
    return turns
