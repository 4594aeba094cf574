"""Dialogues through a real server: over its WebSocket, with lossless audio, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from streamer.evaluation.dialogues import CastDialogue
from streamer.evaluation.errors import EvaluationError
from streamer_client import Audio, AudioFormat, DialogueError, Event, Sampling, ScriptAccepted, TurnCompleted, connect
from streamer_protocol import Mode

Source = Literal["model", "recordings", "codec"]
SAMPLE_RATE = 24_000


@dataclass(frozen=True, slots=True, eq=False)
class SpokenTurn:
    """What is to be judged: (n,) samples at 24 kHz that begin with a frame of the codec.

    ``voice`` is None where several voices speak: a whole dialogue in one pass. ``cast``: the dialogue's voices.
    ``reason`` is the server's for ending the turn.
    """

    source: Source
    dialogue: int
    turn: int
    voice: str | None
    cast: tuple[str, ...]
    text: str
    samples: npt.NDArray[np.float32]
    reason: str = "end"
    ttfa_ms: float | None = None


@dataclass(frozen=True, slots=True)
class SpeakingSettings:
    """How to speak. A dialogue's seed is ``seed`` plus its number; ``sampling`` left empty is the model's own."""

    mode: Mode = "turns"
    seed: int = 0
    clients: int = 8
    sampling: Sampling = field(default_factory=Sampling)
    api_key: str | None = None


async def speak_dialogues(
    url: str,
    dialogues: Sequence[CastDialogue],
    settings: SpeakingSettings,
    on_spoken: Callable[[], None] = lambda: None,
) -> tuple[str, list[SpokenTurn]]:
    """The model's name and every turn, in order. ``on_spoken`` is called after each dialogue.

    Raises EvaluationError ``turn_failed`` for a turn that was not spoken, ClientError as the client does.
    """
    free = asyncio.Semaphore(settings.clients)

    async def speak(dialogue: CastDialogue) -> tuple[str, list[SpokenTurn]]:
        async with free:
            spoken = await _speak(url, dialogue, settings)
        on_spoken()
        return spoken

    tasks = [asyncio.create_task(speak(dialogue)) for dialogue in dialogues]
    try:
        results = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return results[0][0], [turn for _, turns in results for turn in turns]


async def _speak(url: str, dialogue: CastDialogue, settings: SpeakingSettings) -> tuple[str, list[SpokenTurn]]:
    async with connect(
        url,
        voices={f"S{speaker}": voice for speaker, voice in dialogue.voices.items()},
        audio=AudioFormat(format="pcm_s16le", sample_rate=SAMPLE_RATE),
        mode=settings.mode,
        seed=settings.seed + dialogue.number,
        sampling=settings.sampling,
        api_key=settings.api_key,
    ) as session:
        try:
            heard = [event async for event in session.say(dialogue.text)]
        except DialogueError as error:
            raise EvaluationError("turn_failed", f"dialogue {dialogue.number + 1}: {error}") from error
        return session.ready.model, _turns(dialogue, settings.mode, heard)


def _turns(dialogue: CastDialogue, mode: Mode, heard: Sequence[Event]) -> list[SpokenTurn]:
    """What was spoken, from all events of a script."""
    names = [turn.turn for event in heard if isinstance(event, ScriptAccepted) for turn in event.turns]
    ends = {event.turn: event for event in heard if isinstance(event, TurnCompleted)}
    audio: dict[str, list[npt.NDArray[np.float32]]] = {name: [np.zeros(0, np.float32)] for name in names}
    for event in heard:
        if isinstance(event, Audio):
            audio[event.turn].append(event.pcm)
    parts = _parts(dialogue, mode)
    if len(parts) != len(names):
        message = f"dialogue {dialogue.number + 1}: the server made {len(names)} turns of {len(parts)}"
        raise EvaluationError("turn_failed", message)
    spoken = []
    for number, ((voice, text), name) in enumerate(zip(parts, names, strict=True)):
        reason, ttfa_ms = ends[name].reason, ends[name].ttfa_ms
        if reason not in ("end", "max_length"):
            message = f"dialogue {dialogue.number + 1}, turn {number + 1}: ended with {reason!r}"
            raise EvaluationError("turn_failed", message)
        place = (dialogue.number, number, voice, dialogue.cast)
        spoken.append(SpokenTurn("model", *place, text, np.concatenate(audio[name]), reason, ttfa_ms))
    return spoken


def _parts(dialogue: CastDialogue, mode: Mode) -> list[tuple[str | None, str]]:
    """Voice and text of everything that the server speaks as one turn."""
    if mode == "script":
        return [(None, " ".join(turn.text for turn in dialogue.turns))]
    return [(dialogue.voices[turn.speaker], turn.text) for turn in dialogue.turns]
