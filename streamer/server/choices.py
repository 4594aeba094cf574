"""What a client chose, as the speech needs it; a wrong choice is a Rejection that names the field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from streamer.models import SamplingParams
from streamer.server.journal import Journal
from streamer.server.rejection import Rejection
from streamer.speech import Speech
from streamer.voices import UnknownVoice, Voice
from streamer_protocol import (
    ClientMessage,
    ErrorCode,
    Sampling,
    ScriptAppend,
    SessionStart,
    TurnAppend,
    TurnCreate,
    make_error,
    message_type,
)


def refuse_unserved(speech: Speech, start: SessionStart) -> None:
    """Raise Rejection for what this model can't do."""
    if start.words and not speech.follows_words:
        text = "session.start: `words`: this model declares no alignment heads"
        raise Rejection(make_error(ErrorCode.NOT_SUPPORTED, text, context=start.context))


def chosen_voices(speech: Speech, start: SessionStart) -> dict[int, Voice]:
    """The voices by speaker number."""
    chosen: dict[int, Voice] = {}
    for speaker, voice_id in start.voices.items():
        try:
            chosen[int(speaker[1:])] = speech.voices.get(voice_id)
        except UnknownVoice as error:
            text = f"session.start: `voices.{speaker}`: {error}"
            raise Rejection(make_error(ErrorCode.UNKNOWN_VOICE, text, context=start.context)) from error
    return chosen


def sampling_params(
    base: SamplingParams, sampling: Sampling, of: ClientMessage, turn: str | None = None
) -> SamplingParams:
    """``base`` with what is given; ``of`` is the message that gave it, for ``turn``."""
    given = {k: v for k, v in msgspec.structs.asdict(sampling).items() if v is not None}
    try:
        return replace(base, **given)
    except ValueError as error:
        text = f"{message_type(of)}: `sampling`: {error}"
        # An invalid message is one that changed nothing; the turn was accepted, and is to be forgotten.
        code = ErrorCode.INVALID_MESSAGE if turn is None else ErrorCode.NOT_SUPPORTED
        raise Rejection(make_error(code, text, context=of.context, turn=turn)) from error


def refuse_unreported(journal: Journal, message: TurnCreate | TurnAppend | ScriptAppend) -> None:
    """Raise Rejection for the id of a turn whose turn.completed is still to come.

    To the client it is free once the turn was refused; two turns of one id at a time are one report too many. To be
    asked before anything is waited for: a report that comes meanwhile would be taken for the new turn's.
    """
    named = str(message.script) if isinstance(message, ScriptAppend) else message.turn
    for turn in journal.expected():
        if turn == named or (isinstance(message, ScriptAppend) and turn.rpartition(".")[0] == named):
            text = f"{message_type(message)}: `turn` `{turn}` is taken until its turn.completed"
            raise Rejection(make_error(ErrorCode.DUPLICATE_TURN, text, context=message.context, turn=named))


class Cast:
    """Who has spoken in a dialogue: ``max_speakers`` different ones at most."""

    def __init__(self, max_speakers: int) -> None:
        self._max_speakers = max_speakers
        self._speakers: set[int] = set()

    def admit(self, speakers: Iterable[int], to: ClientMessage, turn: str) -> None:
        """Let them speak in ``turn`` (or script), which the message asks for; raises Rejection if that are too many."""
        together = self._speakers.union(speakers)
        if len(together) > self._max_speakers:
            text = (
                f"{message_type(to)}: {len(together)} speakers in this dialogue, max_speakers is {self._max_speakers}"
            )
            raise Rejection(make_error(ErrorCode.TOO_MANY_SPEAKERS, text, context=to.context, turn=turn))
        self._speakers = together
