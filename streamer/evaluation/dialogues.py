"""The dialogues that an evaluation speaks: files of them, the held-out ones that ship, and who speaks which part."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec

from streamer.evaluation.errors import EvaluationError
from streamer.evaluation.json_lines import read_json_lines
from streamer.evaluation.spelling import spell_numbers
from streamer.evaluation.words import plain_words
from streamer.text import ScriptError, Turn, parse_script

SHIPPED = Path(__file__).parents[1] / "assets" / "eval"
HELD_OUT = SHIPPED / "held_out.jsonl"


class DialogueLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a file of dialogues: a script and, where it matters, whose voice is whose."""

    text: str
    voices: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class CastDialogue:
    """A dialogue to be spoken. ``voices`` has the voice id of every speaker number in ``turns``."""

    number: int
    text: str
    turns: tuple[Turn, ...]
    voices: dict[int, str]

    @property
    def cast(self) -> tuple[str, ...]:
        """The voices that speak, each once."""
        return tuple(dict.fromkeys(self.voices[speaker] for speaker in sorted(self.voices)))


def read_dialogues(path: Path, voices: Sequence[str], limit: int | None = None) -> list[CastDialogue]:
    """The first ``limit`` dialogues of a file, cast with ``voices``; EvaluationError names the line and the field."""
    return [
        _cast(number, where, line, voices)
        for number, (where, line) in enumerate(read_json_lines(path, DialogueLine)[:limit])
    ]


def cast_voices(voices: Sequence[str], number: int, speakers: Collection[int]) -> dict[int, str]:
    """Who speaks in dialogue ``number``: all voices come equally often in each place, with changing partners.

    With fewer voices than speakers some voices speak for several.
    """
    first = number % len(voices)
    others = [voices[(first + step) % len(voices)] for step in range(1, len(voices))]
    shift = number // len(voices) % max(len(others), 1)
    order = [voices[first], *others[shift:], *others[:shift]]
    return {speaker: order[place % len(order)] for place, speaker in enumerate(sorted(speakers))}


@lru_cache(maxsize=1)
def held_out_sentences() -> frozenset[str]:
    """Every sentence of the dialogues that ship, in lower-case words, numbers too: what a corpus must not hold."""
    texts = [line.text for path in sorted(SHIPPED.glob("*.jsonl")) for _, line in read_json_lines(path, DialogueLine)]
    turns = (turn for text in texts for turn in re.split(r"\[S\d\]", text))
    sentences = (sentence for turn in turns for sentence in re.split(r"(?<=[.!?])\s+", turn))
    plain = (" ".join(re.findall(r"[a-z']+", spell_numbers(sentence.lower()))) for sentence in sentences)
    return frozenset(words for words in plain if words)


def _cast(number: int, where: str, line: DialogueLine, voices: Sequence[str]) -> CastDialogue:
    try:
        turns = tuple(parse_script(line.text))
    except ScriptError as error:
        raise EvaluationError("bad_line", f"{where}: `text`: {error.message}") from error
    for turn in turns:
        if not plain_words(turn.text):
            message = f"{where}: `text`: the judges know English only and find no word in {turn.text[:40]!r}"
            raise EvaluationError("bad_line", message)
    speakers = {turn.speaker for turn in turns}
    chosen: dict[int, str] = {}
    for name, voice in line.voices.items():
        if not re.fullmatch(r"S[1-5]", name) or int(name[1]) not in speakers:
            raise EvaluationError("bad_line", f"{where}: `voices`: {name[:40]!r} is no speaker of this dialogue")
        if voice not in voices:
            known = ", ".join(voices)
            message = f"{where}: `voices.{name}`: no voice {voice[:80]!r}; known voices: {known}"
            raise EvaluationError("unknown_voice", message)
        chosen[int(name[1])] = voice
    free = [voice for voice in voices if voice not in chosen.values()] or voices
    return CastDialogue(number, line.text, turns, cast_voices(free, number, speakers - chosen.keys()) | chosen)
