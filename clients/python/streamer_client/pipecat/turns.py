"""The agent's turns while they are written, spoken and heard, by Pipecat's context id and by the server's turn id."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from streamer_client.dialogue import Dialogue
from streamer_client.live import LiveTurn
from streamer_client.pipecat.words import TurnWords
from streamer_protocol import Error, ErrorCode, Limits, Speaker
from streamer_protocol.contexts import INERT_CODES

_REMEMBERED = 64


@dataclass(slots=True)
class AgentTurn:
    """One turn of the agent: one audio context of Pipecat, one live turn of the dialogue.

    `text_over`: no more text comes from the pipeline. `spoken_over`: no more audio comes from the server.
    """

    context_id: str
    live: LiveTurn
    words: TurnWords
    interruptible: bool = True
    first_piece_chars: int = 0
    started: bool = False
    text_over: bool = False
    spoken_over: bool = False
    sent_ms: float = 0.0
    writing: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def write(self, text: str) -> None:
        """The next piece of text. Raises ClientError."""
        self.first_piece_chars = self.first_piece_chars or len(text)
        self.words.write(text)
        await self.live.write(text)

    async def commit(self) -> None:
        """The text is complete; twice does no harm. Raises ClientError."""
        self.text_over = True
        await self.writing.aclose()

    def refused_by(self, error: Error, limits: Limits) -> bool:
        """Whether nothing of the turn will be spoken; an error may also be about a later piece of its text."""
        if self.started or error.code in INERT_CODES:
            return False
        return error.code != ErrorCode.TEXT_TOO_LONG or self.first_piece_chars > limits.max_text_chars


async def open_turn(
    dialogue: Dialogue, speaker: Speaker, context_id: str, words: TurnWords, *, interruptible: bool
) -> AgentTurn:
    """A turn to be written; the server hears of it with the first piece."""
    stack = AsyncExitStack()
    live = await stack.enter_async_context(dialogue.live_turn(speaker))
    return AgentTurn(context_id, live, words, interruptible, writing=stack)


class AgentTurns:
    """The turns that are not yet heard to their end, in order; and which context a forgotten one was."""

    def __init__(self) -> None:
        self._by_context: dict[str, AgentTurn] = {}
        self._by_id: dict[str, AgentTurn] = {}
        self._contexts: OrderedDict[str, str] = OrderedDict()

    def __iter__(self) -> Iterator[AgentTurn]:
        return iter(list(self._by_context.values()))

    def add(self, turn: AgentTurn) -> None:
        """Keep a turn."""
        self._by_context[turn.context_id] = self._by_id[turn.live.id] = turn
        self._contexts[turn.live.id] = turn.context_id
        while len(self._contexts) > _REMEMBERED:
            self._contexts.popitem(last=False)

    def of_context(self, context_id: str | None) -> AgentTurn | None:
        """The turn of an audio context."""
        return self._by_context.get(context_id or "")

    def of_id(self, turn_id: str | None) -> AgentTurn | None:
        """The turn that the server calls so."""
        return self._by_id.get(turn_id or "")

    def context_of(self, turn_id: str) -> str | None:
        """The audio context of a turn, also of one that was forgotten lately."""
        return self._contexts.get(turn_id)

    def forget(self, turn: AgentTurn) -> None:
        """The turn is over in every way."""
        self._by_context.pop(turn.context_id, None)
        self._by_id.pop(turn.live.id, None)

    @property
    def at_rest(self) -> bool:
        """Whether the server has nothing left to speak."""
        return all(turn.spoken_over for turn in self._by_context.values())
