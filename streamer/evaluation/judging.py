"""The judgement of every turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.evaluation.endings import Ending, ending_of
from streamer.evaluation.judges import Judges, Samples
from streamer.evaluation.signals import SILENCE, border_clicks, lead_noise_dbfs, silence_seconds
from streamer.evaluation.speaking import SAMPLE_RATE, SpokenTurn
from streamer.evaluation.words import plain_words, word_errors

# A reader at ease: a moment to begin and end, and so long for each letter with numbers spelled out.
_SECONDS_A_TURN, _SECONDS_A_LETTER = 0.5, 0.075
_RUNAWAY_FACTOR = 2.5
_RUNAWAY_TRAILING_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class JudgedTurn:
    """What there is to say of one turn; ``dialogue`` and ``turn`` count from 0.

    ``voice``, ``right_in_dialogue``, ``right_among_all``, ``nearest_voice``, ``similarity`` and
    ``final_pitch_semitones`` are None where a turn has several voices. ``runaway`` says why a turn is one:
    ``max_length``, ``too_long`` or ``trailing_silence``. ``click_ratio``, ``lead_noise_dbfs`` and
    ``final_pitch_semitones`` are None where there is nothing to measure. ``ending`` is the text's.
    """

    source: str
    dialogue: int
    turn: int
    voice: str | None
    text: str
    heard: str
    n_words: int
    n_errors: int
    right_in_dialogue: bool | None
    right_among_all: bool | None
    nearest_voice: str | None
    similarity: float | None
    reason: str
    runaway: str | None
    seconds: float
    leading_seconds: float
    trailing_seconds: float
    lead_noise_dbfs: float | None
    n_borders: int
    n_clicks: int
    click_ratio: float | None
    ending: Ending
    final_pitch_semitones: float | None
    ttfa_ms: float | None


def judge_turns(
    turns: Sequence[SpokenTurn],
    references: Mapping[str, Samples],
    frame_samples: int,
    judges: Judges,
    on_judged: Callable[[], None] = lambda: None,
) -> Iterator[JudgedTurn]:
    """Judge each turn alone. ``references``: the voices' own recordings at 24 kHz, by id."""
    known = {voice: judges.encoder.embed(samples, SAMPLE_RATE) for voice, samples in references.items()}
    for turn in turns:
        yield _judge(turn, known, frame_samples, judges)
        on_judged()


def expected_seconds(text: str) -> float:
    """How long a text takes to say: half a second and 75 ms for each letter, numbers spelled out."""
    return _SECONDS_A_TURN + _SECONDS_A_LETTER * sum(map(len, plain_words(text)))


def runaway(text: str, seconds: float, trailing_seconds: float, reason: str) -> str | None:
    """Why a turn seems to have gone on after its text was said, or None.

    ``max_length``: the server stopped it; ``too_long``: more than 2.5 times :func:`expected_seconds`;
    ``trailing_silence``: more than 1.5 s of it.
    """
    if reason == "max_length":
        return reason
    if seconds > _RUNAWAY_FACTOR * expected_seconds(text):
        return "too_long"
    return "trailing_silence" if trailing_seconds > _RUNAWAY_TRAILING_SECONDS else None


def _judge(
    turn: SpokenTurn, known: Mapping[str, npt.NDArray[np.float32]], frame_samples: int, judges: Judges
) -> JudgedTurn:
    said = plain_words(turn.text)
    # Judges make something up of silence.
    audible = bool(np.any(np.abs(turn.samples) > SILENCE))
    heard = judges.recogniser.words(turn.samples, SAMPLE_RATE) if audible else []
    likeness: dict[str, float] = {}
    if turn.voice is not None:
        own = judges.encoder.embed(turn.samples, SAMPLE_RATE) if audible else None
        likeness = {voice: 0.0 if own is None else float(own @ reference) for voice, reference in known.items()}
    in_dialogue = {voice: likeness[voice] for voice in turn.cast if voice in likeness}
    leading, trailing = silence_seconds(turn.samples, SAMPLE_RATE)
    seconds = len(turn.samples) / SAMPLE_RATE
    clicks = border_clicks(turn.samples, SAMPLE_RATE, frame_samples)
    return JudgedTurn(
        source=turn.source,
        dialogue=turn.dialogue,
        turn=turn.turn,
        voice=turn.voice,
        text=turn.text,
        heard=" ".join(heard),
        n_words=len(said),
        n_errors=word_errors(said, heard),
        right_in_dialogue=_nearest(in_dialogue, audible) == turn.voice if turn.voice else None,
        right_among_all=_nearest(likeness, audible) == turn.voice if turn.voice else None,
        nearest_voice=_nearest(likeness, audible),
        similarity=likeness[turn.voice] if turn.voice else None,
        reason=turn.reason,
        runaway=runaway(turn.text, seconds, trailing, turn.reason),
        seconds=seconds,
        leading_seconds=leading,
        trailing_seconds=trailing,
        lead_noise_dbfs=lead_noise_dbfs(turn.samples, SAMPLE_RATE) if audible else None,
        n_borders=clicks.n_borders,
        n_clicks=clicks.n_clicks,
        click_ratio=clicks.ratio,
        ending=ending_of(turn.text),
        final_pitch_semitones=judges.final_pitch(turn.samples, SAMPLE_RATE) if audible and turn.voice else None,
        ttfa_ms=turn.ttfa_ms,
    )


def _nearest(likeness: Mapping[str, float], audible: bool) -> str | None:
    return max(likeness, key=likeness.__getitem__) if likeness and audible else None
