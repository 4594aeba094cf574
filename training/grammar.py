"""Sentences of our own: small talk, questions, numbers, names, times, and rare words in plain frames.

A sentence has two forms: ``written`` is what a user would type (``at 3:30``), ``spoken`` is what a teacher reads
aloud (``at three thirty``), so that the model and not the teacher's own number rules decides how digits sound.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.evaluation.spelling import ONES, say_decimal, say_number, say_ordinal, say_time, say_year, spell_numbers


def _read_vocabulary() -> dict[str, list[str]]:
    """Lists by name: ``[name]`` begins one; entries are parted by ``|``, or by spaces where there is no ``|``."""
    lists: dict[str, list[str]] = {}
    for section in (Path(__file__).parent / "vocabulary.txt").read_text(encoding="utf-8").split("\n\n"):
        name, _, entries = section.strip().partition("\n")
        parts = re.split(r"\s*[|\n]\s*" if "|" in entries else r"\s+", entries)
        lists[name.strip("[]")] = parts
    return lists


_VOCABULARY = _read_vocabulary()
_SLOT = re.compile(r"\{(\w)\}")
_KEEPS_CAPITAL = re.compile(rf"(I|I'm|I've|I'll|Mr|Mrs|Ms|Dr|{'|'.join(_VOCABULARY['names'])})\b")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence as typed and as read aloud."""

    written: str
    spoken: str


def make_sentence(rng: random.Random, rare_words: Sequence[str] = ()) -> Sentence:
    """A random sentence; with ``rare_words`` it is a plain frame around some of them."""
    frame = rng.choice(_VOCABULARY["word_frames"] if rare_words else _VOCABULARY["frames"])
    written, spoken = _fill(frame, rng, rare_words)
    if rng.random() < 0.25:
        opener = rng.choice(_VOCABULARY["openers"])
        written, spoken = _join(opener, written), _join(opener, spoken)
    return Sentence(_tidy(written), _tidy(spoken))


def _fill(frame: str, rng: random.Random, rare_words: Sequence[str]) -> tuple[str, str]:
    written, spoken, end = "", "", 0
    for slot in _SLOT.finditer(frame):
        kind = slot[1]
        pair = (word := rng.choice(rare_words), word) if kind == "w" else _SLOTS[kind](rng)
        written += frame[end : slot.start()] + pair[0]
        spoken += frame[end : slot.start()] + pair[1]
        end = slot.end()
    return written + frame[end:], spoken + frame[end:]


def _word(kind: str) -> Callable[[random.Random], tuple[str, str]]:
    def pick(rng: random.Random) -> tuple[str, str]:
        word = rng.choice(_VOCABULARY[kind])
        return word, word

    return pick


def _number(low: int, high: int) -> Callable[[random.Random], tuple[str, str]]:
    def pick(rng: random.Random) -> tuple[str, str]:
        value = rng.randint(low, high)
        spoken = say_number(value)
        return (str(value) if rng.random() < 0.6 else spoken), spoken

    return pick


def _clock(rng: random.Random) -> tuple[str, str]:
    hour, minute = rng.randint(1, 12), rng.choice((0, 5, 10, 15, 20, 30, 40, 45, 50))
    return f"{hour}:{minute:02}", say_time(hour, minute)


def _year(rng: random.Random) -> tuple[str, str]:
    value = rng.randint(1900, 2030)
    return str(value), say_year(value)


def _price(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.3:
        written = f"${rng.randint(2, 99)}.{rng.choice((25, 50, 75, 95, 99))}"
    else:
        written = f"${rng.randint(2, 99)}" if rng.random() < 0.5 else f"${_round(rng):,}"
    return written, spell_numbers(written)


def _large_number(rng: random.Random) -> tuple[str, str]:
    value = _round(rng) if rng.random() < 0.6 else rng.randint(1000, 9999)
    spoken = say_number(value)
    # Four digits without a comma might be a year.
    return (f"{value:,}" if rng.random() < 0.8 else spoken), spoken


def _round(rng: random.Random) -> int:
    return rng.randint(1, 99) * 10 ** rng.randint(1, 4)


def _share(rng: random.Random) -> tuple[str, str]:
    value = rng.choice((rng.randint(2, 100), 5 * rng.randint(1, 20)))
    return f"{value}%", f"{say_number(value)} percent"


def _decimal(rng: random.Random) -> tuple[str, str]:
    places = 1 if rng.random() < 0.8 else 2
    written = f"{rng.uniform(0, 30):.{places}f}"
    return written, say_decimal(*written.split("."))


def _date(rng: random.Random) -> tuple[str, str]:
    month, (written, spoken) = rng.choice(_VOCABULARY["months"]), _ordinal(rng)
    # "May 3" is read as "May 3rd".
    if written[0].isdigit() and rng.random() < 0.3:
        written = written[:-2]
    return f"{month} {written}", f"{month} {spoken}"


def _ordinal(rng: random.Random) -> tuple[str, str]:
    value = rng.randint(1, 30)
    spoken = say_ordinal(value)
    suffix = "th" if 11 <= value <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    return (f"{value}{suffix}" if rng.random() < 0.4 else spoken), spoken


def _phone(rng: random.Random) -> tuple[str, str]:
    digits = [rng.randint(0, 9) for _ in range(rng.randint(3, 5))]
    return " ".join(map(str, digits)), " ".join(ONES[d] for d in digits)


_SLOTS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "n": _word("things"),
    "a": _word("qualities"),
    "v": _word("actions"),
    "l": _word("places"),
    "t": _word("times"),
    "m": _word("names"),
    "f": _word("feelings"),
    "s": _word("surnames"),
    "h": _word("regions"),
    "u": _number(2, 99),
    "d": _number(2, 900),
    "c": _clock,
    "y": _year,
    "o": _ordinal,
    "p": _phone,
    "k": _price,
    "q": _large_number,
    "r": _share,
    "x": _decimal,
    "e": _date,
}


def _join(opener: str, sentence: str) -> str:
    if opener[-1] in ".!?" or _KEEPS_CAPITAL.match(sentence):
        return f"{opener} {sentence}"
    return f"{opener} {sentence[0].lower()}{sentence[1:]}"


def _tidy(sentence: str) -> str:
    with_articles = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", sentence)
    return with_articles[0].upper() + with_articles[1:]
