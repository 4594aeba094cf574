"""One dialogue as data: who speaks with which voice, what was said and heard, and the next generation request.

No threads and no I/O. A turn is generated as the continuation of all recent turns: their text stands before its own,
their audio is what the model goes on from.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from streamer.engine import GenerationRequest
from streamer.models import DelayConfig, SamplingParams
from streamer.reading import Reading
from streamer.text import Turn, build_prompt, format_script, is_speakable, merge_neighbours
from streamer.text.positions import script_rows
from streamer.voices import Voice
from streamer.word_times import WORD

FRAME_MS = 80
FRAMES_PER_SECOND = 12.5
# Generous estimates of how long a character is spoken, to stop a generation that runs away.
_SECONDS_PER_LETTER = 0.075
_SECONDS_PER_IDEOGRAPH = 0.25
_RUNAWAY_FACTOR = 3.0
_RUNAWAY_SECONDS = 2.0
# So much more than the window is kept, for when the newest turns turn out not to have been heard.
_KEPT_WINDOWS = 4


@dataclass(frozen=True, slots=True)
class DialogueSettings:
    """What does not change while a dialogue goes on.

    ``history_seconds``: how much recent audio a turn continues from, in whole turns; references always stay.
    ``language`` is what the model is told, None for nothing. ``words``: each generation is followed through its text.
    """

    voices: Mapping[int, Voice]
    sampling: SamplingParams
    seed: int = 0
    history_seconds: float = 60.0
    max_turn_seconds: float = 120.0
    language: str | None = None
    words: bool = False


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What one turn has of its own; None is the dialogue's. The dialogue's seed gives each turn another."""

    sampling: SamplingParams | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Truncated:
    """What the history keeps of a turn that was cut: ``heard_ms`` of its audio, and ``text`` of its words."""

    turn: str
    index: int
    heard_ms: int
    text: str


@dataclass(slots=True, eq=False)
class Spoken:
    """One generation of the past: what was said under which id, and its frames, each (n_vq,) int64.

    A turn whose text comes in pieces has several in a row, counted by ``part``. ``sent_ms`` is how much of it the
    listener was sent or, once it was cut short, has heard. ``complete`` is False while it is being generated.
    """

    turn: str
    index: int
    turns: list[Turn]
    options: TurnOptions = TurnOptions()
    part: int = 0
    reading: Reading | None = None
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

    def begin(self, turn: str, index: int, turns: Sequence[Turn], options: TurnOptions = TurnOptions()) -> Spoken:
        """Open the next entry of the history, a turn or the next part of one; frames are added as they are sent."""
        spoken = Spoken(turn, index, list(turns), options, len(self._parts(index)))
        self.history.append(spoken)
        return spoken

    def request(self, spoken: Spoken) -> GenerationRequest:
        """What the engine is to generate for the newest entry of the history. Tokenises: not for an event loop."""
        return self.draft(spoken)()

    def draft(self, spoken: Spoken) -> Callable[[], GenerationRequest]:
        """:meth:`request` as a call for another thread: it keeps to the history of now, whatever is cut meanwhile."""
        past = self._window(spoken)
        script = [turn for entry in (*past, spoken) for turn in entry.turns]
        audio = [frame for entry in past for frame in entry.frames]
        speakers = {turn.speaker for entry in self.history for turn in entry.turns}
        own, max_rows = spoken.options, self._max_rows(spoken)

        def request() -> GenerationRequest:
            text = format_script(merge_neighbours(script))
            rows = self._prompt(text, audio, speakers)
            if self._settings.words:
                at = script_rows(self._tokenizer, self._config, rows, text)
                spoken.reading = Reading(at, text, [turn.text for turn in spoken.turns], FRAME_MS)
            return GenerationRequest(
                prompt_rows=rows,
                sampling=self._settings.sampling if own.sampling is None else own.sampling,
                seed=self._seed(spoken),
                max_rows=max_rows,
                known_codes=known_tail(np.stack(audio), self._config.n_vq) if audio else None,
                text_rows=None if spoken.reading is None else spoken.reading.text_rows,
            )

        return request

    def split(self, spoken: Spoken, turn: str, index: int) -> Spoken:
        """The first turn of an entry that is being generated is over: what comes belongs to the next, a new entry."""
        rest = Spoken(turn, index, spoken.turns[1:], spoken.options, reading=spoken.reading)
        del spoken.turns[1:]
        spoken.complete = True
        self.history.append(rest)
        return rest

    def _prompt(self, text: str, audio: list[np.ndarray], speakers: set[int]) -> torch.Tensor:
        rows = build_prompt(
            self._tokenizer,
            self._config,
            text,
            references=self._references(speakers),
            prompt_audio=np.stack(audio) if audio else None,
            language=self._settings.language,
        )
        if audio:
            return rows
        # The model would choose audio_start itself; what comes next is never in doubt, so a row is saved.
        start = rows.new_full((1, rows.shape[1]), self._config.audio_pad_code)
        start[0, 0] = self._config.audio_start_token_id
        return torch.cat((rows, start))

    def has_room(self, index: int) -> bool:
        """Whether a turn is not yet as long as a turn may be."""
        return self._frames_left(index) > 0

    def end(self, spoken: Spoken, *, whole: bool) -> None:
        """The generation of an entry is over; if not ``whole``, only what was sent of it stays."""
        if whole:
            spoken.complete = True
        elif not spoken.complete:
            spoken.cut(spoken.sent_ms)
        self._drop_unheard()
        self._forget_old()

    def keep_heard(self, played_ms: int | None, turn: str | None = None) -> list[Truncated]:
        """Forget what the listener did not hear of one turn or, with ``turn`` None, of all; returns what was cut.

        ``played_ms`` counts all audio that was heard since the dialogue began; None: all that was sent. Turns of which
        nothing was sent are forgotten without a word.
        """
        begin_ms = 0
        cut: dict[int, str] = {}
        for spoken in self.history:
            heard_ms = spoken.sent_ms
            if played_ms is not None:
                heard_ms = min(max(played_ms - begin_ms, 0), spoken.sent_ms)
            if turn in (None, spoken.turn) and (heard_ms < spoken.sent_ms or not spoken.complete):
                if any(part.sent_ms for part in self._parts(spoken.index)):
                    cut[spoken.index] = spoken.turn
                spoken.cut(heard_ms)
            begin_ms += spoken.sent_ms
        truncated = [self._truncated(name, index) for index, name in cut.items()]
        self._drop_unheard()
        return truncated

    def all_heard(self, played_ms: int) -> bool:
        """Whether the listener has nothing left to hear, and nothing is being generated."""
        whole = all(spoken.complete for spoken in self.history)
        return whole and sum(spoken.sent_ms for spoken in self.history) <= played_ms

    def _truncated(self, turn: str, index: int) -> Truncated:
        parts = self._parts(index)
        text = " ".join(said.text for part in parts for said in part.turns)
        return Truncated(turn, index, sum(part.sent_ms for part in parts), text)

    def _parts(self, index: int) -> list[Spoken]:
        return [spoken for spoken in self.history if spoken.index == index]

    def _drop_unheard(self) -> None:
        # An entry without words may still have been heard, and then counts in what was played.
        self.history = [spoken for spoken in self.history if spoken.sent_ms or not spoken.complete]

    def _forget_old(self) -> None:
        """Let go of frames that no prompt will hold again, though what is newer be cut: a long dialogue stays small."""
        left = _KEPT_WINDOWS * self._settings.history_seconds * FRAMES_PER_SECOND
        for spoken in reversed(self.history):
            if left < 0 and spoken.index != self.history[-1].index:
                spoken.frames = []
            left -= len(spoken.frames)

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

    def _references(self, speakers: set[int]) -> list[torch.Tensor | None] | None:
        """Reference codes of everyone who has spoken, by speaker number; who has no voice is skipped."""
        voices = self._settings.voices
        references: list[torch.Tensor | None] = [None] * max(speakers)
        for speaker in speakers & voices.keys():
            references[speaker - 1] = voices[speaker].reference(self._config.n_vq)
        return references if any(r is not None for r in references) else None

    def _max_rows(self, spoken: Spoken) -> int:
        seconds = _RUNAWAY_SECONDS + _RUNAWAY_FACTOR * sum(speaking_seconds(turn.text) for turn in spoken.turns)
        limit = min(int(seconds * FRAMES_PER_SECOND), self._frames_left(spoken.index))
        return max(limit, 1) + self._config.n_vq

    def _frames_left(self, index: int) -> int:
        made = sum(len(part.frames) for part in self._parts(index))
        return max(int(self._settings.max_turn_seconds * FRAMES_PER_SECOND), 1) - made

    def _seed(self, spoken: Spoken) -> int:
        own, part = spoken.options.seed, spoken.part
        seed = _derived_seed(self._settings.seed, spoken.index) if own is None else own
        # The same draws for a later part of a turn would be no draws at all.
        return _derived_seed(seed, part) if part else seed


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
        ends = [0, *(word.end() for word in WORD.finditer(turn.text))]
        text = turn.text if left >= len(turn.text) else turn.text[: min(ends, key=lambda end: abs(end - left))]
        if is_speakable(text):
            kept.append(Turn(turn.speaker, text))
        left -= len(turn.text)
    return kept


def _derived_seed(seed: int, index: int) -> int:
    """A seed for each turn of a dialogue or part of a turn: equal inputs, equal speech; other turns, other draws."""
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
