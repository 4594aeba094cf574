"""What all sockets of one server share."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamer.server.metrics import Metrics
from streamer.server.sessions import Sessions
from streamer.speech import Speech

if TYPE_CHECKING:
    from streamer.server.socket import DialogueSocket


@dataclass(slots=True, eq=False)
class ServerState:
    """Sockets in service, sessions, whether the server is stopping, and the counter of context handles."""

    speech: Speech
    sessions: Sessions
    metrics: Metrics
    draining: bool = False
    sockets: set[DialogueSocket] = field(default_factory=set)
    no_sockets: asyncio.Event = field(default_factory=asyncio.Event)
    _handles: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def add(self, socket: DialogueSocket) -> None:
        """Take note of an accepted socket."""
        self.sockets.add(socket)
        self.no_sockets.clear()

    def discard(self, socket: DialogueSocket) -> None:
        """Forget a socket of which nothing is left."""
        self.sockets.discard(socket)
        if not self.sockets:
            self.no_sockets.set()

    def next_handle(self) -> int:
        """A number for a new context's audio headers, unique in this process until 32 bits have gone round."""
        return next(self._handles) % 2**32
