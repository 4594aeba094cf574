"""Turns whose text is written piece by piece."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from weakref import WeakValueDictionary

from msgspec.structs import replace

from streamer_client.errors import ClientError, DialogueError
from streamer_protocol import (
    ClientMessage,
    Context,
    Error,
    LocalProtocolError,
    ServerMessage,
    TurnAppend,
    TurnCancel,
    TurnCommit,
    TurnCompleted,
)
from streamer_protocol.contexts import INERT_CODES


class LiveTurn:
    """One turn while its text is being written; made by `Dialogue.live_turn`.

    `id` is the turn's name in events. `over` turns True when it takes no more text: it was cancelled, refused, or is
    as long as a turn may be.
    """

    def __init__(self, first: TurnAppend, send: Callable[[ClientMessage], Awaitable[None]]) -> None:
        self.id = first.turn
        self.over = False
        self._first = first
        self._send = send
        self._opened = False
        self._closed = False
        self._error: Error | None = None

    async def write(self, text: str) -> None:
        """Append a piece of text; an empty one comes to nothing, and so does any once the turn was cancelled.

        Raises DialogueError if the server has refused the turn or its text.
        """
        if self._refused_or_over() or not text:
            return
        piece = TurnAppend(context=self._first.context, turn=self.id, text=text)
        try:
            await self._send(piece if self._opened else replace(self._first, text=text))
        except LocalProtocolError:
            # While it waited, the turn may have come to its end.
            if not self._refused_or_over():
                raise
        else:
            self._opened = True

    async def commit(self) -> None:
        """The text is complete. Without any, there is no turn. Twice does no harm."""
        if self._close():
            await self._send(TurnCommit(context=self._first.context, turn=self.id))

    async def abandon(self) -> None:
        """Cancel the turn, unless its text is complete."""
        if self._close():
            with suppress(ClientError):
                await self._send(TurnCancel(context=self._first.context, turn=self.id))

    def note(self, event: TurnCompleted | Error, context: Context | None) -> None:
        """What the server says about this turn; `context` has it applied."""
        turn = None if context is None else context.turns.get(self.id)
        self.over = turn is None or not turn.live
        if isinstance(event, Error):
            self._error = event

    def _close(self) -> bool:
        """Whether there is something to close, the first time."""
        was_open = self._opened and not self.over and not self._closed
        self._closed = True
        return was_open

    def _refused_or_over(self) -> bool:
        if self._error is not None:
            raise DialogueError.of(self._error)
        return self.over


class LiveTurns:
    """The live turns of a dialogue, as long as somebody holds them and they are not over."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, LiveTurn] = WeakValueDictionary()

    def add(self, turn: LiveTurn) -> None:
        """Watch for this turn's end."""
        self._turns[turn.id] = turn

    def note(self, event: ServerMessage, context: Context | None) -> None:
        """Tell the turn that the event is about."""
        if not isinstance(event, TurnCompleted | Error) or event.turn is None:
            return
        turn = self._turns.get(event.turn)
        if turn is None or (isinstance(event, Error) and event.code in INERT_CODES):
            return
        turn.note(event, context)
