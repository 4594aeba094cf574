"""Another socket in place of a lost one: how often to try, what to tell meanwhile, and when to give up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random

from websockets.asyncio.client import ClientConnection as Socket

from streamer_client.errors import ConnectionLost, HandshakeError
from streamer_client.events import Reconnecting
from streamer_client.opening import Endpoint, open_socket
from streamer_client.session import Session
from streamer_client.settings import ClientSettings


class Reconnector:
    """Counts the attempts since the last success: a socket that breaks before anything new came over it is none."""

    def __init__(self, endpoint: Endpoint, settings: ClientSettings, random: Random) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._random = random
        self._attempt = 0
        self._heard_at_s = 0.0

    def heard(self, *, progress: bool) -> None:
        """The server speaks to a session; with `progress`, says something new. Then the next loss is a first one."""
        self._heard_at_s = time.monotonic()
        if progress:
            self._attempt = 0

    async def connect(self, lost: ConnectionLost, waiting: Callable[[], list[Session]]) -> Socket:
        """A new socket for the sessions that are `waiting`, as long as there are any.

        Raises ConnectionLost when the server's grace time is over, or when there is no point in trying.
        """
        reason = str(lost)
        if time.monotonic() - self._heard_at_s > self._settings.backoff.cap_s:
            # It held for a while, though nobody had anything to say.
            self._attempt = 0
        while sessions := waiting():
            left_s = max(session.deadline_s() for session in sessions) - time.monotonic()
            if left_s <= 0:
                text = f"{lost}, and no connection could be had for as long as the server keeps the session: {reason}"
                raise ConnectionLost(text)
            self._attempt += 1
            delay_s = min(self._settings.backoff.delay_s(self._attempt, self._random), left_s)
            for session in sessions:
                session.reconnecting(Reconnecting(self._attempt, round(delay_s * 1000), reason))
            await asyncio.sleep(delay_s)
            try:
                return await open_socket(self._endpoint, self._settings.attempt_timeout_s, self._settings.heartbeat_s)
            except HandshakeError as error:
                if error.final:
                    raise ConnectionLost(f"{lost}, and the server does not take it back: {error}") from error
                reason = str(error)
        raise lost
