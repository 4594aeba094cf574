"""`Dialogue`: what a user says and hears on one open dialogue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

from streamer_client.errors import ConnectionLost, DialogueError
from streamer_client.events import Event
from streamer_client.live import LiveTurn
from streamer_client.session import Session
from streamer_protocol import (
    Error,
    Playback,
    Sampling,
    ScriptAccepted,
    ScriptAppend,
    SessionReady,
    Speaker,
    TurnAppend,
    TurnCancel,
    TurnCompleted,
    TurnCreate,
)


class Dialogue:
    """An open dialogue; made by `connect` or `Connection.dialogue`. All methods belong to the loop it was opened in.

    The connection reads for itself, so pings are answered while nobody reads events. Events wait in a queue without
    limit of number. At 64 MiB the connection is read no further and TCP holds the server back; if other dialogues share
    the connection, one that stays unread for 5 s more is closed instead, and its reader gets EventsNotRead.

    A lost connection is not the end: `Reconnecting` and `Resumed` among the events tell of it, nothing that the server
    said is missing or comes twice, and what is sent meanwhile goes out afterwards (1 MiB of it, then senders wait).
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def ready(self) -> SessionReady:
        """What the server said when it opened the session: model, voices, audio format, limits."""
        return self._session.ready

    async def say(
        self, text: str, *, sampling: Sampling | None = None, seed: int | None = None
    ) -> AsyncGenerator[Event, None]:
        """Speak a script ("[S1] Hello. [S2] Hi.") and yield events until all its turns are completed.

        Yields everything that arrives meanwhile, earlier turns included, so no audio is missed. `sampling` and `seed`
        (of the first turn; each next one has 1 more) stand in for the session's. Raises DialogueError if the server
        refuses the script or fails on one of its turns, ConnectionLost if it vanishes for good. Leaving the loop early
        stops nothing: call `cancel`.
        """
        session = self._session
        script = f"s{next(session.numbers)}"
        await session.send(ScriptAppend(context=session.name, text=text, script=script, sampling=sampling, seed=seed))
        unfinished: set[str] | None = None
        while (event := await session.queue.get()) is not None:
            if isinstance(event, ScriptAccepted) and event.script == script:
                unfinished = {turn.turn for turn in event.turns}
            elif isinstance(event, TurnCompleted) and unfinished is not None:
                unfinished.discard(event.turn)
            elif isinstance(event, Error):
                # Before the answer to the script, an error without a name can only be that answer.
                own = event.turn in unfinished if unfinished is not None else event.turn in (script, None)
                if own:
                    raise DialogueError.of(event)
            yield event
            if unfinished is not None and not unfinished:
                return
        raise ConnectionLost("the session was closed before the script was spoken to its end")

    async def say_stream(
        self,
        speaker: Speaker,
        texts: AsyncIterable[str],
        *,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Speak one turn whose text comes in pieces, such as an LLM's tokens; yield events until it is completed.

        Speech starts with the first speakable piece. Without any text there is no turn and no event. What `texts`
        raises cancels the turn and comes through after its last event. Leaving the loop early stops reading `texts`,
        and cancels the turn if its text was not complete. Otherwise as `say`.
        """
        pieces = aiter(texts)
        turn = self._new_live_turn(speaker, sampling, seed)
        if not await _write_first(turn, pieces):
            return
        feeder = asyncio.create_task(_write_rest(turn, pieces))
        try:
            while (event := await self._session.queue.get()) is not None:
                if isinstance(event, Error) and event.turn == turn.id:
                    raise DialogueError.of(event)
                yield event
                if isinstance(event, TurnCompleted) and event.turn == turn.id:
                    break
            else:
                raise ConnectionLost("the session was closed before the turn was spoken to its end")
            if feeder.done():
                feeder.result()
        finally:
            feeder.cancel()
            await asyncio.wait([feeder])
            if not feeder.cancelled():
                feeder.exception()  # marks it as seen
            await turn.abandon()

    async def turn(
        self, speaker: Speaker, text: str, *, sampling: Sampling | None = None, seed: int | None = None
    ) -> str:
        """Ask for one turn; returns its id. Its events come through `events`."""
        session = self._session
        turn = f"t{next(session.numbers)}"
        await session.send(
            TurnCreate(context=session.name, turn=turn, speaker=speaker, text=text, sampling=sampling, seed=seed)
        )
        return turn

    @asynccontextmanager
    async def live_turn(
        self, speaker: Speaker, *, sampling: Sampling | None = None, seed: int | None = None
    ) -> AsyncIterator[LiveTurn]:
        """A turn whose text is written piece by piece; leaving the block completes it, an exception cancels it.

        Its events come through `events`. Speech starts with the first speakable piece.
        """
        turn = self._new_live_turn(speaker, sampling, seed)
        try:
            yield turn
        except BaseException:
            await turn.abandon()
            raise
        await turn.commit()

    async def cancel(self, turn: str | None = None, played_ms: int | None = None) -> None:
        """Stop one turn, or all; `played_ms` counts all audio of the dialogue that the listener heard.

        Every cancelled turn still gets its `turn.completed`, with reason "cancelled"; `turn.truncated` tells what the
        dialogue keeps of the turns that were not heard to their end. Without a connection it is sent once there is one.
        """
        await self._session.send(TurnCancel(context=self._session.name, turn=turn, played_ms=played_ms))

    async def played(self, played_ms: int) -> None:
        """Report how much of all audio of the dialogue the listener has heard, so that the server can pace itself."""
        await self._session.send(Playback(context=self._session.name, played_ms=played_ms))

    async def events(self) -> AsyncGenerator[Event, None]:
        """Everything that arrives, in order, until the session is closed; what is waiting comes first.

        Errors that are not fatal are yielded; a fatal one raises DialogueError, a connection that is lost for good
        ConnectionLost, both after the last event. Only one task may read at a time.
        """
        while (event := await self._session.queue.get()) is not None:
            yield event

    async def ping(self, timeout_s: float = 10.0) -> float:
        """Round trip through the server in milliseconds. Raises ConnectionLost if no answer comes in time."""
        return await self._session.ping(timeout_s)

    async def close(self) -> None:
        """End the session, at once if the connection is away. What is being spoken is cancelled; safe to call twice."""
        await self._session.close()

    def _new_live_turn(self, speaker: Speaker, sampling: Sampling | None, seed: int | None) -> LiveTurn:
        session = self._session
        name = f"t{next(session.numbers)}"
        first = TurnAppend(context=session.name, turn=name, speaker=speaker, text="", sampling=sampling, seed=seed)
        turn = LiveTurn(first, session.send)
        session.live.add(turn)
        return turn


async def _write_first(turn: LiveTurn, pieces: AsyncIterator[str]) -> bool:
    """Write the first text that is not empty; whether there is one."""
    async for text in pieces:
        if text:
            await turn.write(text)
            return True
    return False


async def _write_rest(turn: LiveTurn, pieces: AsyncIterator[str]) -> None:
    try:
        async for text in pieces:
            if turn.over:
                return
            await turn.write(text)
    except DialogueError:
        # Whoever reads the events is told.
        return
    except BaseException:
        await turn.abandon()
        raise
    await turn.commit()
