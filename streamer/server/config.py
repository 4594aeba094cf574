"""Settings of the server."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamer.audio import DEFAULT_COMPLEXITY
from streamer_protocol import Limits


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where to listen and what to allow.

    ``max_frame_bytes``: a WebSocket message above this closes the socket unread; between ``limits.max_message_bytes``
    and this it is read and answered with an error. ``drain_s``: how long running turns may go on at shutdown.
    ``send_buffer_bytes``: unsent data per socket before its session waits for the reader. ``opus_complexity``: 0 to 10,
    how much work the encoder may do for its sound.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    limits: Limits = field(default_factory=Limits)
    max_frame_bytes: int = 16 * 2**20
    heartbeat_s: float = 20.0
    drain_s: float = 10.0
    send_buffer_bytes: int = 32 * 2**10
    opus_complexity: int = DEFAULT_COMPLEXITY
