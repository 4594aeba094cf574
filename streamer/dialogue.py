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
from streamer.text import Turn, build_prompt, format_script, is_speakable, merge_neighbours
from streamer.voices import Voice

FRAME_MS = 80
FRAMES_PER_SECOND = 12.5
# Generous estimates of how long a character is spoken, to stop a generation that runs away.
_SECONDS_PER_LETTER = 0.075
_SECONDS_PER_IDEOGRAPH = 0.25
_RUNAWAY_FACTOR = 3.0
_RUNAWAY_SECONDS = 2.0
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"\[[^\]]*\]|[{_IDEOGRAPH}]|[^\s\[{_IDEOGRAPH}]+|\[")


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
    """One generation of the past: what was said under which id, and its frames, each (n_vq,) int64.

    ``sent_ms`` is how much of it the listener was sent or, once it was cut short, has heard. ``complete`` is False
    while it is being generated.
    """

    turn: str
    index: int
    turns: list[Turn]
    frames: list[np.ndarray] = field(default_factory=list)
    sent_ms: int = 0
    complete: bool = False

    def cut(self, heard_ms: int) -> None:
        """Forget what comes after the first ``heard_ms``: its frames, and the words that were not spoken by then."""
        n_frames = min(heard_ms // FRAME_MS, len(self.frames))
        self.turns = cut_text(self.turns, n_frames / self._expected_frames())
        del self.frames[n_frames:]
        self.sent_ms = heard_ms
        self.complete = True

    def _expected_frames(self) -> float:
        """Frames of the whole text: counted, or estimated by a usual speaking rate where it was not made to its end."""
        if self.complete:
            return max(len(self.frames), 1)
        estimate = sum(speaking_seconds(turn.text) for turn in self.turns) * FRAMES_PER_SECOND
        return max(estimate, len(self.frames), 1)


class Dialogue:
    """The history of one dialogue, and prompts made from it."""

    def __init__(self, config: DelayConfig, tokenizer: Any, settings: DialogueSettings) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._settings = settings
        self.history: list[Spoken] = []

    def begin(self, turn: str, index: int, turns: Sequence[Turn]) -> Spoken:
        """Open the next entry of the history; frames are added to it as they are sent."""
        spoken = Spoken(turn, index, list(turns))
        self.history.append(spoken)
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
            format_script(merge_neighbours(script)),
            references=self._references(),
            prompt_audio=prompt_audio,
        )
        if prompt_audio is None:
            # The model would choose audio_start itself; what comes next is never in doubt, so a row is saved.
            start = rows.new_full((1, rows.shape[1]), self._config.audio_pad_code)
            start[0, 0] = self._config.audio_start_token_id
            rows = torch.cat((rows, start))
        return GenerationRequest(
            prompt_rows=rows,
            sampling=self._settings.sampling,
            seed=_derived_seed(self._settings.seed, spoken.index),
            max_rows=self._max_rows(spoken.turns),
            known_codes=None if prompt_audio is None else known_tail(prompt_audio, self._config.n_vq),
        )

    def end(self, spoken: Spoken, *, whole: bool) -> None:
        """The generation of an entry is over; if not ``whole``, only what was sent of it stays."""
        if whole:
            spoken.complete = True
        elif not spoken.complete:
            spoken.cut(spoken.sent_ms)
        self._drop_unheard()

    def keep_heard(self, played_ms: int, turn: str | None = None) -> None:
        """Forget what the listener did not hear of one entry or, with ``turn`` None, of all.

        ``played_ms`` counts all audio that was heard since the dialogue began.
        """
        begin_ms = 0
        for spoken in self.history:
            heard_ms = min(max(played_ms - begin_ms, 0), spoken.sent_ms)
            if turn in (None, spoken.turn) and (heard_ms < spoken.sent_ms or not spoken.complete):
                spoken.cut(heard_ms)
            begin_ms += spoken.sent_ms
        self._drop_unheard()

    def _drop_unheard(self) -> None:
        # An entry without words may still have been heard, and then counts in what was played.
        self.history = [spoken for spoken in self.history if spoken.sent_ms or not spoken.complete]

    def _window(self, newest: Spoken) -> list[Spoken]:
        """The most recent entries before the newest whose audio fits the window."""
        left = int(self._settings.history_seconds * FRAMES_PER_SECOND)
        window: list[Spoken] = []
        for spoken in reversed(self.history):
            if spoken is newest or not (spoken.frames and spoken.turns):
                continue
            left -= len(spoken.frames)
            if left < 0:
                break
            window.append(spoken)
        return window[::-1]

    def _references(self) -> list[torch.Tensor | None] | None:
        """Reference codes of everyone who has spoken, by speaker number; who has no voice is skipped."""
        voices = self._settings.voices
        speakers = {turn.speaker for spoken in self.history for turn in spoken.turns}
        references: list[torch.Tensor | None] = [None] * max(speakers)
        for speaker in speakers & voices.keys():
            references[speaker - 1] = voices[speaker].reference(self._config.n_vq)
        return references if any(r is not None for r in references) else None

    def _max_rows(self, turns: Sequence[Turn]) -> int:
        seconds = _RUNAWAY_SECONDS + _RUNAWAY_FACTOR * sum(speaking_seconds(turn.text) for turn in turns)
        limit = min(seconds, self._settings.max_turn_seconds)
        return max(int(limit * FRAMES_PER_SECOND), 1) + self._config.n_vq


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


def cut_text(turns: Sequence[Turn], share: float) -> list[Turn]:
    """The first ``share`` (0 to 1) of the turns' text, to the nearest border of a word, ideograph or [cue]."""
    left = round(sum(len(turn.text) for turn in turns) * share)
    kept: list[Turn] = []
    for turn in turns:
        if left <= 0:
            break
        ends = [0, *(word.end() for word in _WORD.finditer(turn.text))]
        text = turn.text if left >= len(turn.text) else turn.text[: min(ends, key=lambda end: abs(end - left))]
        if is_speakable(text):
            kept.append(Turn(turn.speaker, text))
        left -= len(turn.text)
    return kept


def _derived_seed(seed: int, index: int) -> int:
    """A seed for each turn of a dialogue: equal inputs, equal speech; different turns, different draws."""
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
