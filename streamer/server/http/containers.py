"""Audio packets as the bytes of a file that can be played while it grows."""

from __future__ import annotations

import struct
from typing import Literal, Protocol, TypeAlias

import numpy as np
import soundfile

from streamer.audio import AudioFormat
from streamer_protocol import OggOpusWriter

SAMPLE_RATE = 24_000
FRAME_MS = 80

ResponseFormat: TypeAlias = Literal["opus", "wav", "pcm", "flac"]

_UNKNOWN_BYTES = 0xFFFFFFFF
_SAMPLES_48K = FRAME_MS * 48


class Container(Protocol):
    """``packets``: what it is to be given; ``content_type``: what it makes. ``close`` twice does no harm."""

    packets: AudioFormat
    content_type: str

    def push(self, packet: bytes) -> bytes:
        """The bytes that can leave after one more packet of 80 ms; often none."""

    def close(self) -> bytes:
        """The bytes that end the file."""


class OggOpus:
    """Opus packets in Ogg, a page each: a page that waited for more would hold back sound."""

    packets: AudioFormat = "opus"
    content_type = "audio/ogg; codecs=opus"

    def __init__(self) -> None:
        self._ogg = OggOpusWriter(SAMPLE_RATE)

    def push(self, packet: bytes) -> bytes:
        return self._ogg.packet(packet, _SAMPLES_48K, flush=True)

    def close(self) -> bytes:
        return self._ogg.close()


class Pcm:
    """24 kHz, 16 bits, mono, little-endian, without a header, as OpenAI's."""

    packets: AudioFormat = "pcm_s16le"
    content_type = "audio/pcm"

    def push(self, packet: bytes) -> bytes:
        return packet

    def close(self) -> bytes:
        return b""


class Wav:
    """PCM behind a WAV header whose lengths are the largest there are: the true ones are not known yet."""

    packets: AudioFormat = "pcm_s16le"
    content_type = "audio/wav"

    def __init__(self) -> None:
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16)
        riff = struct.pack("<4sI4s", b"RIFF", _UNKNOWN_BYTES, b"WAVE")
        self._header = riff + form + struct.pack("<4sI", b"data", _UNKNOWN_BYTES)

    def push(self, packet: bytes) -> bytes:
        header, self._header = self._header, b""
        return header + packet

    def close(self) -> bytes:
        return self.push(b"")


class Flac:
    """FLAC by libsndfile, in blocks of 4096 samples: some 30 µs of work for 80 ms."""

    packets: AudioFormat = "pcm_s16le"
    content_type = "audio/flac"

    def __init__(self) -> None:
        self._sent = _OneWayFile()
        self._flac = soundfile.SoundFile(self._sent, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC")

    def push(self, packet: bytes) -> bytes:
        self._flac.write(np.frombuffer(packet, "<i2"))
        return self._sent.take()

    def close(self) -> bytes:
        if self._flac.closed:
            return b""
        self._flac.close()
        return self._sent.take()


class _OneWayFile:
    """A file for libsndfile that has left already up to its end.

    At its close the library goes back to the header to note length and checksum; that is dropped, as the header is
    gone. One that says 0 for both means "unknown" (RFC 9639, 8.2).
    """

    def __init__(self) -> None:
        self._new = bytearray()
        self._position = 0
        self._end = 0

    def write(self, data: bytes) -> int:
        n_bytes = len(data)
        if self._position == self._end:
            self._new += data
            self._end += n_bytes
        self._position += n_bytes
        return n_bytes

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._end)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def take(self) -> bytes:
        data = bytes(self._new)
        self._new.clear()
        return data


CONTAINERS: dict[ResponseFormat, type[OggOpus] | type[Wav] | type[Pcm] | type[Flac]] = {
    "opus": OggOpus,
    "wav": Wav,
    "pcm": Pcm,
    "flac": Flac,
}
