"""Dialogue scripts: ``[S1] … [S2] …`` in, turns out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_SPEAKERS = 5

TAG = re.compile(r"\[(?:[sS]([1-5])|([1-5]))\]")
_NAMED_TAG = re.compile(r"\[[sS](\d+)\]")
_BARE_TAG = re.compile(r"\[(\d+)\]")


class ScriptError(ValueError):
    """A script that cannot be spoken: ``code`` is stable, ``field`` names what to change."""

    def __init__(self, code: str, message: str, field: str = "text") -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker (1 to 5) says before the next one does."""

    speaker: int
    text: str

    def __post_init__(self) -> None:
        if not 1 <= self.speaker <= MAX_SPEAKERS:
            raise ValueError(f"speaker is {self.speaker}, expected 1 to {MAX_SPEAKERS}")


def parse_script(text: str) -> list[Turn]:
    """Turns of a script, in order; neighbouring turns of one speaker become one.

    ``[S1]`` to ``[S5]`` (either case) and ``[1]`` to ``[5]`` are tags, text before the first tag is speaker
    1's, and other brackets (``[laugh]``) stay text. A turn without a letter or digit is dropped.

    Raises ScriptError ``too_many_speakers`` for a tag beyond ``[S5]`` and ``no_speech`` when nothing is left.
    """
    _check_tags(text)
    pieces = ((speaker or 1, raw.strip()) for speaker, raw in split_tags(text))
    groups = itertools.groupby((p for p in pieces if is_speakable(p[1])), key=lambda piece: piece[0])
    turns = [Turn(speaker, " ".join(said for _, said in group)) for speaker, group in groups]
    if not turns:
        raise ScriptError("no_speech", "text has no letter or digit, so there is nothing to say")
    return turns


def merge_neighbours(turns: Iterable[Turn]) -> list[Turn]:
    """Turns as a script holds them: neighbouring ones of one speaker are one."""
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].speaker == turn.speaker:
            turn = Turn(turn.speaker, f"{merged.pop().text} {turn.text}")
        merged.append(turn)
    return merged


def format_script(turns: Iterable[Turn]) -> str:
    """One string, ``[S1]Hello.[S2]Hi.``: the form the models were trained on."""
    return "".join(f"[S{turn.speaker}]{turn.text}" for turn in turns)


def is_speakable(text: str) -> bool:
    """Whether the text has a letter or a digit in any script."""
    return any(map(str.isalnum, text))


def has_tag(text: str) -> bool:
    """Whether the text names a speaker."""
    return TAG.search(text) is not None


def split_tags(text: str) -> Iterator[tuple[int | None, str]]:
    """``(speaker, raw text)`` of every piece, the one before the first tag (speaker None) included."""
    speaker: int | None = None
    start = 0
    for tag in TAG.finditer(text):
        yield speaker, text[start : tag.start()]
        speaker, start = int(tag[1] or tag[2]), tag.end()
    yield speaker, text[start:]


def _check_tags(text: str) -> None:
    # [6] is a footnote in most texts, but a sixth speaker where [1] to [5] are the tags in use.
    bare_in_use = any(tag[2] for tag in TAG.finditer(text))
    for pattern in (_NAMED_TAG, _BARE_TAG) if bare_in_use else (_NAMED_TAG,):
        for tag in pattern.finditer(text):
            if not TAG.fullmatch(tag[0]):
                raise ScriptError(
                    "too_many_speakers",
                    f"text has the speaker tag {tag[0][:16]}; speakers are [S1] to [S{MAX_SPEAKERS}]",
                )
