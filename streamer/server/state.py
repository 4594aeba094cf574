"""What all sockets of one server share."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamer.speech import Speech

if TYPE_CHECKING:
    from streamer.server.socket import DialogueSocket


@dataclass(slots=True, eq=False)
class ServerState:
    """Sockets in service, whether the server is stopping, and the counter of context handles."""

    speech: Speech
    draining: bool = False
    sockets: set[DialogueSocket] = field(default_factory=set)
    _handles: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def next_handle(self) -> int:
        """A number for a new context's audio headers, unique in this process until 32 bits have gone round."""
        return next(self._handles) % 2**32
