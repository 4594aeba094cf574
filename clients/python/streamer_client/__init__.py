"""Client of a dialogue streamer server (asyncio).

    async with connect("ws://127.0.0.1:8000", voices={"S1": "heart", "S2": "joe"}) as dialogue:
        async for event in dialogue.say("[S1] Hello. [S2] Hi."):
            ...

Needs neither torch nor the server's packages.
"""

from streamer_client.address import dialogue_url
from streamer_client.audio import OpusDecoder, float_to_pcm
from streamer_client.connection import Dialogue, connect
from streamer_client.errors import (
    ClientError,
    ConnectionLost,
    DialogueError,
    HandshakeError,
    NotDecoded,
    OpusUnavailable,
    ProtocolError,
)
from streamer_client.events import Audio, Event
from streamer_client.files import AudioFileWriter
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
    TurnWords,
)

__all__ = [
    "Audio",
    "AudioFileWriter",
    "AudioFormat",
    "ClientError",
    "ConnectionLost",
    "Dialogue",
    "DialogueError",
    "Error",
    "Event",
    "HandshakeError",
    "LocalProtocolError",
    "NotDecoded",
    "OpusDecoder",
    "OpusUnavailable",
    "ProtocolError",
    "Queued",
    "Sampling",
    "ScriptAccepted",
    "SessionClosed",
    "SessionIdle",
    "SessionReady",
    "TurnCompleted",
    "TurnStarted",
    "TurnWords",
    "connect",
    "dialogue_url",
    "float_to_pcm",
]
