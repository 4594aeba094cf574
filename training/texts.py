"""Sentences to be read aloud: from packages that ship texts, from our grammar, never from the held-out set.

Packaged texts are Debian's ``fortunes`` (files under ``/usr/share/games/fortunes``), the example sentences of WordNet
(``wordnet-base``) and ``chatterbot-corpus``; rare words come from the pronunciation lexicon in ``hibari-tts``, which
also decides what counts as a word.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamer.evaluation import held_out_sentences
from training.grammar import Sentence, make_sentence
from training.packages import package_folder

FORTUNES = Path("/usr/share/games/fortunes")
WORDNET = Path("/usr/share/wordnet")
# Files whose sentences are verse, code, spoofs in dialect, or jokes that a demonstration should not tell.
_LEFT_OUT = frozenset(
    (
        "ascii-art", "definitions", "drugs", "ethnic", "men-women", "perl", "politics", "sex", "songs-poems",
        "translate-me", "zippy",
    )
)  # fmt: skip
_NOT_SAID = frozenset(
    (
        "abortion", "ass", "bastard", "blood", "body", "bomb", "breast", "breasts", "cancer", "christ", "damn",
        "dead", "death", "die", "died", "drug", "drugs", "drunk", "fuck", "gay", "god", "gun", "guns", "hell", "jesus",
        "kill", "killed", "killing", "kills", "lust", "murder", "murdered", "naked", "nazi", "negro", "nigger", "nude",
        "penis", "piss", "rape", "raped", "sex", "sexual", "sexy", "shit", "slave", "slaves", "slut", "suicide",
        "terrorist", "torture", "tortured", "urine", "war", "whore",
    )
)  # fmt: skip
_PLAIN = re.compile(r"[A-Z][A-Za-z ,.?!'\-]+[.?!]")
_QUESTION = re.compile(
    r"(?i)(what|who|whose|which|why|how|when|where|do|does|did|are|is|was|were|can|could|would|have)\b"
)
_MAX_WORDS, _MAX_CHARACTERS = 14, 80


@dataclass(frozen=True, slots=True)
class Texts:
    """All that sentences are drawn from: packaged ones and a lexicon's words."""

    packaged: tuple[str, ...]
    rare_words: tuple[str, ...]

    @classmethod
    def load(cls, seed: int = 0) -> Texts:
        """Read the installed packages; ModuleNotFoundError names the one that is missing."""
        lexicon = _lexicon()
        held_out = held_out_sentences()
        sentences = {s for s in _packaged_sentences() if is_speakable_sentence(s, lexicon)}
        packaged = sorted(s for s in sentences if _plain_words(s) not in held_out)
        random.Random(seed).shuffle(packaged)
        rare = sorted(w for w in lexicon if re.fullmatch(r"[a-z]{4,10}", w) and w not in _NOT_SAID)
        return cls(tuple(packaged), tuple(rare))

    def draw(self, rng: random.Random, number: int) -> Sentence:
        """A sentence: a packaged one (by ``number``, so that all have their turn), our own, or rare words."""
        choice = rng.random()
        if choice < 0.45 and self.packaged:
            text = self.packaged[number % len(self.packaged)]
            return Sentence(text, text)
        sentence = make_sentence(rng) if choice < 0.8 else make_sentence(rng, rng.sample(self.rare_words, 3))
        if _plain_words(sentence.spoken) in held_out_sentences():
            return self.draw(rng, number)
        return sentence


def is_speakable_sentence(text: str, lexicon: frozenset[str]) -> bool:
    """Whether a sentence is plain, short, of known words, and fit for everyone's ears."""
    if not _PLAIN.fullmatch(text) or len(text) > _MAX_CHARACTERS or ".." in text or "--" in text:
        return False
    words = re.findall(r"[A-Za-z']+", text)
    if not 2 <= len(words) <= _MAX_WORDS or any(len(w) > 1 and w.isupper() for w in words):
        return False
    return all(w.lower() not in _NOT_SAID and _is_known(w.lower().strip("'"), lexicon) for w in words)


def _is_known(word: str, lexicon: frozenset[str]) -> bool:
    stem = word.removesuffix("'s")
    endings = ("", "s", "es", "ed", "d", "ing")
    stems = [stem.removesuffix(e) for e in endings] + [stem.removesuffix("ing") + "e"]
    return word in lexicon or any(s in lexicon for s in stems)


def _plain_words(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def _lexicon() -> frozenset[str]:
    path = package_folder("hibari", "hibari-tts") / "assets" / "lexicon_us_gold.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return frozenset(word.lower() for word in json.load(file))


def _packaged_sentences() -> Iterator[str]:
    for path in sorted(FORTUNES.glob("*")) if FORTUNES.is_dir() else []:
        if path.is_file() and not path.suffix and path.name not in _LEFT_OUT:
            for fortune in path.read_text(encoding="utf-8", errors="ignore").split("\n%\n"):
                yield from _split(fortune.replace('"', ""))
    yield from _wordnet_examples()
    yield from _chatterbot_sentences()


def _wordnet_examples() -> Iterator[str]:
    for path in sorted(WORDNET.glob("data.*")):
        for line in path.read_text(encoding="utf-8", errors="ignore").splitlines():
            for example in re.findall(r'"([^"]+)"', line.partition("|")[2]):
                yield from map(_whole_sentence, _split(example))


def _chatterbot_sentences() -> Iterator[str]:
    import yaml

    folder = package_folder("chatterbot_corpus", "chatterbot-corpus") / "data" / "english"
    for path in sorted(folder.glob("*.yml")):
        conversations = yaml.safe_load(path.read_text(encoding="utf-8")).get("conversations", [])
        for said in (str(line) for conversation in conversations for line in conversation):
            yield from map(_whole_sentence, _split(said))


def _whole_sentence(text: str) -> str:
    """With a capital and an end mark."""
    whole = text[0].upper() + text[1:]
    return whole if whole[-1] in ".?!" else whole + ("?" if _QUESTION.match(whole) else ".")


def _split(text: str) -> list[str]:
    pieces = re.split(r"(?<=[.!?])\s+", " ".join(text.split()))
    return [piece for piece in (p.strip(" -") for p in pieces) if piece]
