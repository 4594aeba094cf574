"""Words of a text, the sounds they are made of, and about when each is said: what guides the language model's training.

A byte-level model has to find out for itself how words sound and which word it is saying. In training it is told both:
at a word's last byte an extra head names the word's phonemes and whether yes or no is asked for, and one attention head
is drawn to the word being said. The extra head is not exported; the model keeps what it learned from it.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from streamer.evaluation.spelling import ONES, spell_numbers
from training.packages import package_folder

_PHONEMES_PER_WORD = 10
# One more tells whether yes or no is asked for.
SOUNDS_PER_WORD = _PHONEMES_PER_WORD + 1
_WORD = re.compile(r"[A-Za-z0-9'’]+")
_STRESS = str.maketrans("", "", "ˈˌ")
_PHONEMES_PER_DIGIT = 4
# As in 6:00 and 20,000.
_AFTER_A_MARK = {"00": "o'clock", "000": "thousand"}
# How long the pause after a mark is, measured in phonemes.
_PAUSES = {",": 3.0, ";": 4.0, ":": 4.0, ".": 5.0, "!": 5.0, "?": 5.0}


@dataclass(frozen=True, slots=True)
class Word:
    """A word as written, and where it ends in the UTF-8 text that it is part of (offset of its last byte)."""

    text: str
    last_byte: int
    pause: float


def words_of(text: str) -> list[Word]:
    """The words of a text, in order; numbers are words, too."""
    found = list(_WORD.finditer(text))
    words: list[Word] = []
    for i, match in enumerate(found):
        until = found[i + 1].start() if i + 1 < len(found) else len(text)
        between = text[match.end() : until]
        pause = max((_PAUSES.get(mark, 0.0) for mark in between), default=0.0)
        words.append(Word(match[0], len(text[: match.end()].encode()) - 1, pause))
    return words


class SoundTable:
    """Phonemes of words, and of the same words where yes or no is asked for.

    sounds: (2 words, SOUNDS_PER_WORD) int64: first all words as they are, then all as parts of such a question.
    """

    def __init__(self, pronunciations: Mapping[str, str], alphabet: Sequence[str]) -> None:
        """``pronunciations``: phonemes by word, a character each; those not in ``alphabet`` are left out."""
        self.n_sounds = 1 + len(alphabet)
        numbers = {phoneme: number for number, phoneme in enumerate(alphabet, start=1)}
        self._indices = {word: index for index, word in enumerate(pronunciations)}
        self._lengths: list[int] = []
        plain = torch.zeros(len(pronunciations), SOUNDS_PER_WORD, dtype=torch.int64)
        for index, phonemes in enumerate(pronunciations.values()):
            ids = [numbers[p] for p in phonemes if p in numbers]
            self._lengths.append(len(ids))
            kept = ids[:_PHONEMES_PER_WORD]
            plain[index, : len(kept)] = torch.tensor(kept, dtype=torch.int64)
        asked = plain.clone()
        asked[:, -1] = 1
        self.sounds = torch.cat((plain, asked))

    @classmethod
    def of_corpus(cls, folder: Path, words: set[str]) -> SoundTable:
        """The table in ``<folder>/sounds.json``; where that lacks a word it is made anew, as hibari's American English
        pronounces each word alone. So a corpus can be taken to a machine that has no hibari."""
        path = folder / "sounds.json"
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["pronunciations"].keys() >= words:
                return cls(kept["pronunciations"], kept["alphabet"])
        from hibari.g2p import G2P

        pronounce = G2P(british=False)
        alphabet = _alphabet()
        pronunciations = {word: pronounce(read_alone(word)).translate(_STRESS) for word in sorted(words)}
        content = {"alphabet": alphabet, "pronunciations": pronunciations}
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return cls(pronunciations, alphabet)

    def index(self, word: str, *, asked: bool = False) -> int:
        """Row of ``sounds`` that the word has, or -1; ``asked``: as part of a question for yes or no."""
        index = self._indices.get(word, -1)
        return index + len(self._indices) if asked and index >= 0 else index

    def length(self, word: str) -> float:
        """About how many phonemes it takes to say a word; also of one that is not in the table."""
        if (index := self.index(word)) >= 0:
            return max(1.0, self._lengths[index])
        return float(sum(_PHONEMES_PER_DIGIT if c.isdigit() else 1 for c in word))


def read_alone(word: str) -> str:
    """What is said for a word between its neighbours, with digits as words: ``50`` as in 3:50, ``000`` as in 20,000.

    What a mark before it adds, dollars or percent, is left out.
    """
    if word in _AFTER_A_MARK:
        return _AFTER_A_MARK[word]
    return f"oh {ONES[int(word[1])]}" if re.fullmatch(r"0\d", word) else spell_numbers(word)


def word_spans(words: Sequence[Word], table: SoundTable) -> list[tuple[float, float]]:
    """Begin and end of each word as shares of an utterance, were all phonemes equally long."""
    spans: list[tuple[float, float]] = []
    at = 0.0
    for i, word in enumerate(words):
        length = table.length(word.text)
        spans.append((at, at + length))
        at += length + (word.pause if i + 1 < len(words) else 0.0)
    return [(begin / at, end / at) for begin, end in spans]


def _alphabet() -> list[str]:
    path = package_folder("hibari", "hibari-tts") / "assets" / "lexicon_us_gold.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        entries = json.load(file).values()
    forms = (form for entry in entries for form in (entry.values() if isinstance(entry, dict) else [entry]))
    return sorted(set("".join(form for form in forms if form).translate(_STRESS)) - {" "})
