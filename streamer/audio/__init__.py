"""Audio in and out: packets for listeners, recordings from files."""

from __future__ import annotations

from streamer.audio.files import AudioFileError, load_audio, normalize_loudness
from streamer.audio.g711 import mulaw_decode, mulaw_encode
from streamer.audio.opus import DEFAULT_COMPLEXITY, MAX_COMPLEXITY, OpusEncoder, OpusLibraryMissing
from streamer.audio.packetizer import AudioFormat, Packetizer

__all__ = [
    "DEFAULT_COMPLEXITY",
    "MAX_COMPLEXITY",
    "AudioFileError",
    "AudioFormat",
    "OpusEncoder",
    "OpusLibraryMissing",
    "Packetizer",
    "load_audio",
    "mulaw_decode",
    "mulaw_encode",
    "normalize_loudness",
]
