"""Settings of the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from streamer.audio import DEFAULT_COMPLEXITY
from streamer_protocol import Limits


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where to listen and what to allow.

    ``max_frame_bytes``: a WebSocket message above this closes the socket unread; between ``limits.max_message_bytes``
    and this it is read and answered with an error. ``drain_s``: how long running turns may go on at shutdown.
    ``send_buffer_bytes``: unsent data per socket before its session waits for the reader. ``opus_complexity``: 0 to 10,
    how much work the encoder may do for its sound. ``max_connections``: TCP connections at once, whatever they are for.
    ``replay_bytes``: what a session keeps of what it sent, until the client is known to have it, before it waits.
    ``live_text_pause_s``: text in pieces is spoken as it stands when no more has come for so long.

    ``keys_file``: the API keys; without it everybody may do everything. ``secret_file``: what tokens are signed with;
    without it a new secret at each start. ``origins``: web pages that may connect besides those of this server itself,
    ``*`` for all. ``host_names``: what the server is called besides its address. ``tls_cert``, ``tls_key``: PEM files.
    ``voices_store``: the folder of uploaded voices; without it there are no uploads. ``log_text``: whether what is
    spoken may be logged.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    limits: Limits = field(default_factory=Limits)
    max_frame_bytes: int = 16 * 2**20
    heartbeat_s: float = 20.0
    drain_s: float = 10.0
    send_buffer_bytes: int = 32 * 2**10
    opus_complexity: int = DEFAULT_COMPLEXITY
    max_connections: int = 8192
    replay_bytes: int = 2**20
    live_text_pause_s: float = 0.25
    keys_file: Path | None = None
    secret_file: Path | None = None
    origins: tuple[str, ...] = ()
    host_names: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    voices_store: Path | None = None
    log_text: bool = False
