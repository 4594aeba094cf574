"""`PhoneLine`: one call, as the program that answers it sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType

from streamer_client.errors import ClientError
from streamer_client.live import LiveTurn
from streamer_client.twilio.call import Call
from streamer_client.twilio.events import CallEvent
from streamer_client.twilio.turns import Turns
from streamer_protocol import Speaker


class PhoneTurn:
    """A turn whose text is written piece by piece; made by `PhoneLine.live_turn`. `id` is its name in events."""

    def __init__(self, turn: LiveTurn | None, turns: Turns) -> None:
        self.id = "" if turn is None else turn.id
        self.empty = True
        self._turn = turn
        self._turns = turns

    async def write(self, text: str) -> bool:
        """Append a piece; False, and nothing done, once the turn was interrupted or refused, or the call is over."""
        if self._turn is None or not self._turns.takes_text(self.id):
            return False
        try:
            await self._turn.write(text)
        except ClientError:
            return False
        self.empty = self.empty and not text
        self._turns.write(self.id, text)
        return not self._turn.over and self._turns.takes_text(self.id)


class PhoneLine:
    """One call with its dialogue; made by `bridge`. Belongs to one event loop.

    Once the call is over, whatever is said comes to nothing: a caller may hang up at any time, and that is no error.
    Use it in an `async with` block, or call `close` in the end.
    """

    def __init__(self, call: Call, speaker: Speaker, task: asyncio.Task[None]) -> None:
        self._call = call
        self._speaker: Speaker = speaker
        self._task = task

    @property
    def over(self) -> bool:
        """Whether the call has ended."""
        return self._call.over

    async def events(self) -> AsyncGenerator[CallEvent, None]:
        """What happens, in order; the last is `HungUp`. Of more than 1024 that nobody reads, the oldest are lost."""
        while (event := await self._call.next_event()) is not None:
            yield event

    async def say(self, text: str, *, speaker: Speaker | None = None) -> str | None:
        """Speak one turn after those before; returns its id, or None if the text is empty or the call is over."""
        dialogue = self._call.dialogue
        if dialogue is None or not text:
            return None
        try:
            turn = await dialogue.turn(speaker or self._speaker, text)
        except ClientError:
            return None
        self._call.turns.add(turn, text)
        return turn

    @asynccontextmanager
    async def live_turn(self, *, speaker: Speaker | None = None) -> AsyncIterator[PhoneTurn]:
        """A turn whose text is written piece by piece, such as an LLM's tokens; speech starts with the first piece.

        Leaving the block completes the text, by an exception as well: what was written is said, unless `interrupt` is
        called.
        """
        dialogue, turns = self._call.dialogue, self._call.turns
        if dialogue is None:
            yield PhoneTurn(None, turns)
            return
        failure: BaseException | None = None
        with suppress(ClientError):
            async with dialogue.live_turn(speaker or self._speaker) as live:
                turn = PhoneTurn(live, turns)
                turns.add(live.id, "", live)
                try:
                    yield turn
                except BaseException as error:
                    failure = error
                if turn.empty:
                    turns.discard(live.id)
        if failure is not None:
            raise failure

    async def interrupt(self) -> None:
        """Silence the line at once, as when the caller begins to speak: all that was said so far is cut.

        The dialogue keeps what the caller has heard. `TurnHeard` tells it for each turn, soon after.
        """
        with suppress(ClientError):
            await self._call.interrupt()

    async def wait_heard(self) -> None:
        """Return when the caller has heard all that was said, or the call is over."""
        while self._call.turns and not self._call.over:
            await self._call.change()

    async def hang_up(self, reason: str = "hung up") -> None:
        """End the call now; to say goodbye first, `wait_heard`. Twilio goes on with the call's next TwiML, if any."""
        if not self._call.hang_up.done():
            self._call.hang_up.set_result(reason)
        await asyncio.wait([self._task])

    async def close(self) -> None:
        """Hang up unless the call is over, and give everything back; twice does no harm."""
        await self.hang_up()

    async def __aenter__(self) -> PhoneLine:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
