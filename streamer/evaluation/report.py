"""Judged turns as a table, as a JSON report, and against limits."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from streamer import __version__
from streamer.evaluation.judging import JudgedTurn

_PACKAGES = ("torch", "faster-whisper", "Resemblyzer", "librosa", "numpy")
_HEADERS = (
    "source", "voice", "turns", "WER", "ACC", "ACC all", "SIM", "runaway", "border", "clicks", "s/turn",
    "lead s", "trail s", "noise dB", "rise st", "TTFA ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over some turns, None where no turn has the figure.

    ``word_error_rate`` is errors by words, ``click_ratio`` weighs turns by their borders, ``ttfa_ms`` is the median.
    ``question_rise_semitones``: how much higher yes/no questions end than statements.
    """

    turns: int
    word_error_rate: float
    speaker_accuracy: float | None
    speaker_accuracy_all: float | None
    similarity: float | None
    runaway_rate: float
    click_ratio: float | None
    n_clicks: int
    seconds: float
    leading_seconds: float
    trailing_seconds: float
    lead_noise_dbfs: float | None
    question_rise_semitones: float | None
    ttfa_ms: float | None

    @classmethod
    def of(cls, turns: Sequence[JudgedTurn]) -> Summary:
        """Of at least one turn."""
        n_borders = sum(turn.n_borders for turn in turns)
        roughness = sum(turn.n_borders * turn.click_ratio for turn in turns if turn.click_ratio is not None)
        ttfa_ms = [turn.ttfa_ms for turn in turns if turn.ttfa_ms is not None]
        return cls(
            turns=len(turns),
            word_error_rate=sum(turn.n_errors for turn in turns) / sum(turn.n_words for turn in turns),
            speaker_accuracy=_mean([turn.right_in_dialogue for turn in turns]),
            speaker_accuracy_all=_mean([turn.right_among_all for turn in turns]),
            similarity=_mean([turn.similarity for turn in turns]),
            runaway_rate=float(np.mean([turn.runaway is not None for turn in turns])),
            click_ratio=roughness / n_borders if n_borders else None,
            n_clicks=sum(turn.n_clicks for turn in turns),
            seconds=float(np.mean([turn.seconds for turn in turns])),
            leading_seconds=float(np.mean([turn.leading_seconds for turn in turns])),
            trailing_seconds=float(np.mean([turn.trailing_seconds for turn in turns])),
            lead_noise_dbfs=_mean([turn.lead_noise_dbfs for turn in turns]),
            question_rise_semitones=_question_rise(turns),
            ttfa_ms=float(np.median(ttfa_ms)) if ttfa_ms else None,
        )


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits that the model's own speech must keep; None asks for nothing."""

    max_wer: float | None = None
    min_acc: float | None = None
    max_runaway: float | None = None

    def failures(self, summary: Summary) -> list[str]:
        """One line for each limit that is not kept."""
        accuracy = summary.speaker_accuracy
        checks = (
            ("--max-wer", "word error rate", summary.word_error_rate, self.max_wer, False),
            ("--min-acc", "speaker accuracy", accuracy, self.min_acc, True),
            ("--max-runaway", "runaway rate", summary.runaway_rate, self.max_runaway, False),
        )
        return [
            f"{option} {limit:g}: the {name} is {'unknown' if value is None else f'{value:.4f}'}"
            for option, name, value, limit, at_least in checks
            if limit is not None and (value is None or (value < limit if at_least else value > limit))
        ]


def summaries(turns: Sequence[JudgedTurn]) -> dict[str, dict[str, Summary]]:
    """By source, then by voice; ``all`` comes last."""
    found: dict[str, dict[str, Summary]] = {}
    for source in dict.fromkeys(turn.source for turn in turns):
        own = [turn for turn in turns if turn.source == source]
        voices = sorted({turn.voice for turn in own if turn.voice is not None})
        found[source] = {voice: Summary.of([turn for turn in own if turn.voice == voice]) for voice in voices}
        found[source]["all"] = Summary.of(own)
    return found


def table_of(named: Mapping[str, Mapping[str, Summary]]) -> Table:
    """A line for each voice and one for all, source by source."""
    table = Table()
    for place, header in enumerate(_HEADERS):
        table.add_column(header, justify="left" if place < 2 else "right", no_wrap=True)
    for source, rows in named.items():
        for number, (voice, summary) in enumerate(rows.items(), start=1):
            table.add_row(source, voice, *_cells(summary), end_section=number == len(rows))
    return table


def report_of(model: str, settings: Mapping[str, Any], turns: Sequence[JudgedTurn]) -> dict[str, Any]:
    """Everything, ready to be written as JSON."""
    return {
        "model": model,
        "settings": dict(settings),
        "versions": {"streamer": __version__, "python": platform.python_version(), **dict(_versions())},
        "summary": {
            source: {voice: asdict(summary) for voice, summary in rows.items()}
            for source, rows in summaries(turns).items()
        },
        "turns": [asdict(turn) for turn in turns],
    }


def _cells(s: Summary) -> list[str]:
    rates = (s.word_error_rate, s.speaker_accuracy, s.speaker_accuracy_all, s.similarity, s.runaway_rate)
    times = (s.seconds, s.leading_seconds, s.trailing_seconds)
    return [
        str(s.turns),
        *(_number(rate, 3) for rate in rates),
        _number(s.click_ratio, 2),
        str(s.n_clicks),
        *(_number(seconds, 2) for seconds in times),
        _number(s.lead_noise_dbfs, 1),
        _number(s.question_rise_semitones, 1),
        _number(s.ttfa_ms, 0),
    ]


def _question_rise(turns: Sequence[JudgedTurn]) -> float | None:
    """The mean final pitch of yes/no questions above that of statements; None without one of each."""
    asked = _mean([turn.final_pitch_semitones for turn in turns if turn.ending == "yes_no_question"])
    stated = _mean([turn.final_pitch_semitones for turn in turns if turn.ending == "statement"])
    return None if asked is None or stated is None else asked - stated


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _mean(values: Sequence[float | bool | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _versions() -> Iterator[tuple[str, str | None]]:
    for name in _PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, None
