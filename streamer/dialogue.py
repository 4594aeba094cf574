"""One dialogue as data: who speaks with which voice, what was said and heard, and the next generation request.

No threads and no I/O. A turn is generated as the continuation of all recent turns: their text stands before its own,
their audio is what the model goes on from.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from streamer.engine import GenerationRequest
from streamer.models import DelayConfig, SamplingParams
from streamer.text import Turn, build_prompt, format_script
from streamer.voices import Voice

FRAME_MS = 80
FRAMES_PER_SECOND = 12.5
# Generous estimates of how long a character is spoken, to stop a generation that runs away.
_SECONDS_PER_LETTER = 0.075
_SECONDS_PER_IDEOGRAPH = 0.25
_RUNAWAY_FACTOR = 3.0
_RUNAWAY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class DialogueSettings:
    """What does not change while a dialogue goes on.

    ``history_seconds``: how much recent audio a turn continues from, in whole turns; references always stay.
    """

    voices: Mapping[int, Voice]
    sampling: SamplingParams
    seed: int = 0
    history_seconds: float = 60.0
    max_turn_seconds: float = 120.0


@dataclass(slots=True, eq=False)
class Spoken:
    """One generation of the past: the turns it spoke and its frames, each (n_vq,) int64."""

    turns: list[Turn]
    frames: list[np.ndarray] = field(default_factory=list)
    complete: bool = False


class Dialogue:
    """The history of one dialogue, and prompts made from it."""

    def __init__(self, config: DelayConfig, tokenizer: Any, settings: DialogueSettings) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._settings = settings
        self.history: list[Spoken] = []
        self._speakers: set[int] = set()
        self._n_requests = 0

    @property
    def n_frames(self) -> int:
        """Frames in the history."""
        return sum(len(spoken.frames) for spoken in self.history)

    def begin(self, turns: Sequence[Turn]) -> Spoken:
        """Open the next entry of the history; frames are added to it as they are sent."""
        spoken = Spoken(list(turns))
        self.history.append(spoken)
        self._speakers.update(turn.speaker for turn in turns)
        return spoken

    def request(self, spoken: Spoken) -> GenerationRequest:
        """What the engine is to generate for the newest entry of the history. Tokenises: not for an event loop."""
        past = self._window(spoken)
        script = [turn for entry in (*past, spoken) for turn in entry.turns]
        audio = [frame for entry in past for frame in entry.frames]
        prompt_audio = np.stack(audio) if audio else None
        rows = build_prompt(
            self._tokenizer,
            self._config,
            format_script(_merge_neighbours(script)),
            references=self._references(),
            prompt_audio=prompt_audio,
        )
        if prompt_audio is None:
            # The model would choose audio_start itself; what comes next is never in doubt, so a row is saved.
            start = rows.new_full((1, rows.shape[1]), self._config.audio_pad_code)
            start[0, 0] = self._config.audio_start_token_id
            rows = torch.cat((rows, start))
        self._n_requests += 1
        return GenerationRequest(
            prompt_rows=rows,
            sampling=self._settings.sampling,
            seed=_derived_seed(self._settings.seed, self._n_requests),
            max_rows=self._max_rows(spoken.turns),
            known_codes=None if prompt_audio is None else known_tail(prompt_audio, self._config.n_vq),
        )

    def keep_heard(self, n_frames: int) -> None:
        """Forget what the listener did not hear: all frames after the first ``n_frames`` of the history.

        The text of a turn cut short keeps the words that were spoken by then, taking its speech as even.
        """
        begin = 0
        kept = []
        for spoken in self.history:
            heard = min(max(n_frames - begin, 0), len(spoken.frames))
            begin += len(spoken.frames)
            if heard < len(spoken.frames) or not spoken.complete:
                share = heard / expected_frames(spoken, len(spoken.frames))
                spoken.turns = cut_text(spoken.turns, share)
                del spoken.frames[heard:]
                spoken.complete = True
            if spoken.frames and spoken.turns:
                kept.append(spoken)
        self.history = kept

    def _window(self, newest: Spoken) -> list[Spoken]:
        """The most recent entries before the newest whose audio fits the window."""
        left = int(self._settings.history_seconds * FRAMES_PER_SECOND)
        window: list[Spoken] = []
        for spoken in reversed(self.history):
            if spoken is newest or not spoken.frames:
                continue
            left -= len(spoken.frames)
            if left < 0:
                break
            window.append(spoken)
        return window[::-1]

    def _references(self) -> list[torch.Tensor | None] | None:
        """Reference codes of everyone who has spoken, by speaker number; who has no voice is skipped."""
        references: list[torch.Tensor | None] = [None] * max(self._speakers)
        for speaker in self._speakers & self._settings.voices.keys():
            references[speaker - 1] = self._settings.voices[speaker].reference(self._config.n_vq)
        return references if any(r is not None for r in references) else None

    def _max_rows(self, turns: Sequence[Turn]) -> int:
        seconds = _RUNAWAY_SECONDS + _RUNAWAY_FACTOR * sum(speaking_seconds(turn.text) for turn in turns)
        limit = min(seconds, self._settings.max_turn_seconds)
        return int(limit * FRAMES_PER_SECOND) + self._config.n_vq


def known_tail(audio: np.ndarray, n_vq: int) -> torch.Tensor:
    """The codes that the rows after a continued prompt must hold, -1 elsewhere: (n_vq-1, n_vq) int64.

    audio: (T, n_vq). The prompt's rows end with row T-1, which holds code k of frame T-1-k; the later codes of its last
    frames belong to rows still to be decoded, and were sent to the listener already.
    """
    known = torch.full((n_vq - 1, n_vq), -1, dtype=torch.int64)
    for row in range(n_vq - 1):
        for book in range(row + 1, n_vq):
            frame = len(audio) + row - book
            if frame >= 0:
                known[row, book] = int(audio[frame, book])
    return known


def speaking_seconds(text: str) -> float:
    """Rough length of a text when spoken, from its letters and digits."""
    spoken = [c for c in text if c.isalnum()]
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in spoken)
    return wide * _SECONDS_PER_IDEOGRAPH + (len(spoken) - wide) * _SECONDS_PER_LETTER


def expected_frames(spoken: Spoken, n_frames: int) -> float:
    """How many frames the whole entry has or, where it was cut short, would have had at a usual speaking rate."""
    if spoken.complete:
        return max(n_frames, 1)
    estimate = sum(speaking_seconds(turn.text) for turn in spoken.turns) * FRAMES_PER_SECOND
    return max(estimate, n_frames, 1)


def cut_text(turns: Sequence[Turn], share: float) -> list[Turn]:
    """The first ``share`` (0 to 1) of the turns' text, to the nearest whole word."""
    left = round(sum(len(turn.text) for turn in turns) * share)
    kept: list[Turn] = []
    for turn in turns:
        if left <= 0:
            break
        text = turn.text
        if left < len(text):
            ends = [0, *(m.end() for m in re.finditer(r"\S+", text))]
            # Scripts without spaces have no word borders to look for.
            nearest = min(ends, key=lambda end: abs(end - left)) if len(ends) > 2 else left
            text = text[:nearest].rstrip()
        if text:
            kept.append(Turn(turn.speaker, text))
        left -= len(turn.text)
    return kept


def _merge_neighbours(turns: Sequence[Turn]) -> list[Turn]:
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].speaker == turn.speaker:
            turn = Turn(turn.speaker, f"{merged.pop().text} {turn.text}")
        merged.append(turn)
    return merged


def _derived_seed(seed: int, n: int) -> int:
    """A seed for the n-th request of a dialogue: equal inputs, equal speech; different turns, different draws."""
    digest = hashlib.blake2b(f"{seed}:{n}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
