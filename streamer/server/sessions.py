"""The sessions of a server: who has how many, and those whose socket was lost and that wait for another."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from streamer.server.keys import Identity
from streamer.server.outbox import NotHeld
from streamer.server.rate import SessionLimits
from streamer.server.rejection import Rejection
from streamer.server.signing import Signer, TokenError
from streamer_protocol import ErrorCode, Limits, SessionStart, make_error

if TYPE_CHECKING:
    from streamer.server.context import DialogueContext

_log = logging.getLogger(__name__)
_PURPOSE = "resume"
_MANY = 2**31


class Sessions:
    """All sessions, by their id. Everything belongs to one event loop."""

    def __init__(self, limits: Limits, signer: Signer, max_sessions: int) -> None:
        self._limits = limits
        self._max_sessions = max_sessions
        self._signer = signer
        self._per_key = SessionLimits(limits.max_sessions_per_key)
        self._sessions: dict[str, DialogueContext] = {}
        self._waiting: dict[str, asyncio.TimerHandle] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def waiting(self) -> int:
        """How many have lost their socket and may be resumed."""
        return len(self._waiting)

    def all(self) -> list[DialogueContext]:
        """Every session that has not ended."""
        return list(self._sessions.values())

    def limits_for(self, identity: Identity) -> Limits:
        """The limits that hold for this key. Without keys, the engine's sessions are for whoever comes."""
        own = self._max_sessions if identity.kind == "open" else identity.max_sessions
        return self._limits if own is None else replace(self._limits, max_sessions_per_key=own)

    def has_room(self, identity: Identity) -> bool:
        """Count one more session of this key, to be given back by :meth:`dismiss`; False if that would be too many."""
        limit = self.limits_for(identity).max_sessions_per_key
        # Without keys it is the engine that refuses, and says so.
        return self._per_key.acquire(identity.name, _MANY if identity.kind == "open" else limit)

    def admit(self, start: SessionStart, identity: Identity) -> None:
        """:meth:`has_room`, or a Rejection."""
        if not self.has_room(identity):
            limit = self.limits_for(identity).max_sessions_per_key
            text = f"session.start: key `{identity.name}` has {limit} sessions, which is all it may have"
            raise Rejection(make_error(ErrorCode.TOO_MANY_SESSIONS, text, context=start.context, retry_after_ms=1000))

    def dismiss(self, identity: Identity) -> None:
        """Count one less."""
        self._per_key.release(identity.name)

    def add(self, session: DialogueContext) -> None:
        """Take note of a session that has begun; it was admitted."""
        self._sessions[session.id] = session
        self._none.clear()

    def discard(self, session: DialogueContext) -> None:
        """Forget a session that has ended. Twice does no harm."""
        if self._sessions.pop(session.id, None) is not None:
            self._stop_waiting(session)
            self.dismiss(session.identity)
            if not self._sessions:
                self._none.set()

    def token(self, session: DialogueContext) -> str | None:
        """What the session's client may come back with. Once it is known to have arrived, those before it are spent."""
        if not self._limits.resume_grace_ms:
            return None
        number = secrets.randbits(32)
        session.resume_numbers.append(number)
        claims = {"s": session.id, "n": number}
        return self._signer.sign(_PURPOSE, claims, (self._limits.max_session_ms + self._limits.resume_grace_ms) / 1000)

    def park(self, session: DialogueContext) -> None:
        """Keep a session that has lost its socket for the grace time."""
        loop = asyncio.get_running_loop()
        self._waiting[session.id] = loop.call_later(
            self._limits.resume_grace_ms / 1000, lambda: self.end(session, "not resumed in time")
        )

    def claim(self, start: SessionStart, identity: Identity) -> tuple[DialogueContext, int]:
        """The session that ``start`` resumes, and where its outbox is to go on; raises Rejection."""
        assert start.resume is not None
        try:
            claims = self._signer.verify(_PURPOSE, start.resume)
        except TokenError as error:
            raise _failed(start, f"`resume`: {error}") from error
        session = self._sessions.get(str(claims.get("s")))
        if session is None or session.ending:
            raise _failed(start, "`resume`: the session has ended")
        if claims.get("n") not in session.resume_numbers:
            raise _failed(start, "`resume`: the token is spent; each session.ready brings the next")
        if session.identity.name != identity.name:
            raise _failed(start, "`resume`: the session belongs to another key")
        if session.name != start.context:
            raise _failed(start, f"`context`: the session's is `{session.name}`")
        try:
            position = session.outbox.position_after(start.last_frame, start.messages_after)
        except NotHeld as error:
            raise _failed(start, f"`last_frame`: {error}") from error
        self._stop_waiting(session)
        return session, position

    def end(self, session: DialogueContext, reason: str) -> None:
        """End a session from outside, without waiting for it."""
        self.spawn(session.end(reason))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what nobody waits for, to its end and with its failures in the log."""
        task = asyncio.get_running_loop().create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._ended)

    async def wait_none(self) -> None:
        """Return when there is no session, with or without a socket."""
        await self._none.wait()

    async def settle(self) -> None:
        """Return when nothing started by :meth:`spawn` runs any more."""
        while self._endings:
            await asyncio.wait(set(self._endings))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._endings.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a session could not be ended in order", exc_info=task.exception())

    def _stop_waiting(self, session: DialogueContext) -> None:
        timer = self._waiting.pop(session.id, None)
        if timer is not None:
            timer.cancel()


def _failed(start: SessionStart, text: str) -> Rejection:
    return Rejection(make_error(ErrorCode.RESUME_FAILED, f"session.start: {text}", context=start.context))
