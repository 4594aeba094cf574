"""Ogg Opus writing: ready Opus packets into pages (RFC 3533, RFC 7845), without an encoder, without I/O."""

from __future__ import annotations

import secrets
import struct
import zlib

OPUS_RATE_HZ = 48_000  # granule positions count samples of this rate whatever the encoder was given
DEFAULT_PRE_SKIP_SAMPLES = 312  # 6.5 ms: libopus' look-ahead at every rate, except in low-delay mode
MAX_PAGE_SEGMENTS = 255

_CONTINUED, _FIRST, _LAST = 1, 2, 4
_NO_PACKET_ENDS = -1
_PAGE_SAMPLES = OPUS_RATE_HZ  # RFC 7845 §3: at most about a second a page
_PAGE_HEADER = struct.Struct("<4sBBqIIIB")
_CRC_OFFSET = 22
_REVERSED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_SILK_SAMPLES = (480, 960, 1920, 2880)
_HYBRID_SAMPLES = (480, 960)
_CELT_SAMPLES = (120, 240, 480, 960)


def packet_samples_48k(packet: bytes) -> int:
    """Length of an Opus packet in samples at 48 kHz, from its first bytes (RFC 6716 §3.1).

    Raises ValueError for an empty packet, or one whose frame count is missing, 0 or over 120 ms.
    """
    if not packet:
        raise ValueError("an Opus packet has at least one byte")
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        samples = _SILK_SAMPLES[config % 4]
    elif config < 16:
        samples = _HYBRID_SAMPLES[config % 2]
    else:
        samples = _CELT_SAMPLES[config % 4]
    frames = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[code]
    if not 0 < frames * samples <= 5760:
        raise ValueError(f"an Opus packet cannot hold {frames} frames of {samples} samples")
    return frames * samples


class OggOpusWriter:
    """Turns Opus packets into the bytes of an Ogg Opus stream.

    `sample_rate` is the encoder's input rate in Hz (informative), `pre_skip` the samples at 48 kHz that a
    player drops at the start, `serial` the stream number (random if None). What `packet` and `close` return,
    in order, is the file; cut after any of them, it stays playable up to there.
    """

    def __init__(
        self,
        sample_rate: int = 24_000,
        channels: int = 1,
        pre_skip: int = DEFAULT_PRE_SKIP_SAMPLES,
        serial: int | None = None,
        vendor: str = "dialogue-streamer",
    ) -> None:
        if channels not in (1, 2):
            raise ValueError(f"channels must be 1 or 2, not {channels}")
        self._serial = secrets.randbits(32) if serial is None else serial
        self._head = b"OpusHead" + struct.pack("<BBHIhB", 1, channels, pre_skip, sample_rate, 0, 0)
        name = vendor.encode()
        self._tags = b"OpusTags" + struct.pack("<I", len(name)) + name + struct.pack("<I", 0)
        self._page_number = 0
        self._granule_samples = 0
        self._paged_samples = 0  # granule position at the end of the last page written
        self._continued = False
        self._lacing: list[int] = []
        self._body: list[bytes] = []
        self._closed = False

    def packet(self, opus_packet: bytes, samples_48k: int, flush: bool = False) -> bytes:
        """Add one packet of `samples_48k` samples; returns the pages that are ready, all with `flush`.

        Raises ValueError for an empty packet, or after `close`.
        """
        if self._closed:
            raise ValueError("the Ogg stream is closed")
        if not opus_packet:
            raise ValueError("an Opus packet has at least one byte")
        out = self._headers()
        if self._lacing and len(self._lacing) + len(opus_packet) // 255 + 1 > MAX_PAGE_SEGMENTS:
            out += self._page(self._granule_samples)
        out += self._lace(opus_packet)
        self._granule_samples += samples_48k
        if flush or self._granule_samples - self._paged_samples >= _PAGE_SAMPLES:
            out += self._page(self._granule_samples)
        return out

    def close(self) -> bytes:
        """The rest of the stream, its last page marked as the end; empty the second time."""
        if self._closed:
            return b""
        self._closed = True
        headers = self._headers()
        granule = self._granule_samples if self._lacing else _NO_PACKET_ENDS
        return headers + self._page(granule, flags=_LAST)

    def _headers(self) -> bytes:
        """Identification and comment pages, the first time."""
        if self._page_number:
            return b""
        out = self._lace(self._head) + self._page(0, flags=_FIRST)
        return out + self._lace(self._tags) + self._page(0)

    def _lace(self, packet: bytes) -> bytes:
        """Put a packet on the current page; returns the pages that it fills up."""
        out = b""
        start = 0
        for end in range(255, len(packet) + 255, 255):
            piece = packet[start:end]
            out += self._segment(piece)
            start = end
        if len(packet) % 255 == 0:
            out += self._segment(b"")
        return out

    def _segment(self, piece: bytes) -> bytes:
        out = b""
        if len(self._lacing) == MAX_PAGE_SEGMENTS:
            out = self._page(_NO_PACKET_ENDS)
            self._continued = True
        self._lacing.append(len(piece))
        self._body.append(piece)
        return out

    def _page(self, granule: int, flags: int = 0) -> bytes:
        """Close the current page, which may be empty."""
        flags |= _CONTINUED if self._continued else 0
        header = _PAGE_HEADER.pack(b"OggS", 0, flags, granule, self._serial, self._page_number, 0, len(self._lacing))
        page = bytearray(header + bytes(self._lacing) + b"".join(self._body))
        page[_CRC_OFFSET : _CRC_OFFSET + 4] = _crc_bytes(bytes(page))
        self._page_number += 1
        self._continued = False
        self._paged_samples = self._granule_samples
        self._lacing.clear()
        self._body.clear()
        return bytes(page)


def _crc_bytes(page: bytes) -> bytes:
    """Ogg's checksum, little-endian: CRC-32 with zlib's polynomial, but unreflected, from 0, not inverted.

    Reversing the bits of each byte going in and coming out makes zlib compute it at C speed.
    """
    crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(_REVERSED_BITS)
