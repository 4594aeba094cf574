"""Client of a dialogue streamer server (asyncio).

    async with connect("ws://127.0.0.1:8000", voices={"S1": "heart", "S2": "joe"}) as dialogue:
        async for event in dialogue.say("[S1] Hello. [S2] Hi."):
            ...

A lost connection is resumed by itself; `open_connection` holds several dialogues. Needs neither torch nor the
server's packages.
"""

from streamer_client.address import dialogue_url
from streamer_client.audio import OpusDecoder, float_to_pcm
from streamer_client.connecting import connect, open_connection
from streamer_client.connection import Connection
from streamer_client.dialogue import Dialogue
from streamer_client.errors import (
    ClientError,
    ConnectionLost,
    DialogueError,
    EventsNotRead,
    HandshakeError,
    NotDecoded,
    OpusUnavailable,
    ProtocolError,
)
from streamer_client.events import Audio, Event, Reconnecting, Resumed
from streamer_client.files import AudioFileWriter
from streamer_client.live import LiveTurn
from streamer_client.settings import Backoff, ClientSettings
from streamer_protocol import (
    AudioFormat,
    Error,
    LocalProtocolError,
    Queued,
    Sampling,
    ScriptAccepted,
    SessionClosed,
    SessionIdle,
    SessionReady,
    TurnCompleted,
    TurnStarted,
    TurnTruncated,
    TurnWords,
)

__all__ = [
    "Audio",
    "AudioFileWriter",
    "AudioFormat",
    "Backoff",
    "ClientError",
    "ClientSettings",
    "Connection",
    "ConnectionLost",
    "Dialogue",
    "DialogueError",
    "Error",
    "Event",
    "EventsNotRead",
    "HandshakeError",
    "LiveTurn",
    "LocalProtocolError",
    "NotDecoded",
    "OpusDecoder",
    "OpusUnavailable",
    "ProtocolError",
    "Queued",
    "Reconnecting",
    "Resumed",
    "Sampling",
    "ScriptAccepted",
    "SessionClosed",
    "SessionIdle",
    "SessionReady",
    "TurnCompleted",
    "TurnStarted",
    "TurnTruncated",
    "TurnWords",
    "connect",
    "dialogue_url",
    "float_to_pcm",
    "open_connection",
]
