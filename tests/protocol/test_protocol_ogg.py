"""The Ogg Opus writer, judged by a page parser of our own and by independent decoders."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import opuslib_next
import pytest
from support import decode_with_ffmpeg, ffmpeg

from streamer_protocol import OggOpusWriter, packet_samples_48k

RATE_HZ = 24_000


@dataclass(frozen=True)
class Page:
    flags: int
    granule: int
    number: int
    lacing: bytes
    body: bytes


def bitwise_crc(data: bytes) -> int:
    """RFC 3533's checksum, one bit at a time."""
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        crc &= 0xFFFFFFFF
    return crc


def pages_of(data: bytes) -> list[Page]:
    pages = []
    while data:
        magic, version, flags, granule, _serial, number, crc, segments = struct.unpack_from("<4sBBqIIIB", data)
        assert (magic, version) == (b"OggS", 0)
        lacing = data[27 : 27 + segments]
        length = 27 + segments + sum(lacing)
        assert bitwise_crc(data[:22] + bytes(4) + data[26:length]) == crc
        pages.append(Page(flags, granule, number, lacing, data[27 + segments : length]))
        data = data[length:]
    return pages


def packets_of(pages: list[Page]) -> list[bytes]:
    packets, current = [], b""
    for page in pages:
        assert bool(page.flags & 1) == bool(current)
        at = 0
        for size in page.lacing:
            current += page.body[at : at + size]
            at += size
            if size < 255:
                packets.append(current)
                current = b""
    assert current == b""
    return packets


@pytest.mark.parametrize("size", [1, 254, 255, 256, 510, 65_024, 65_025, 65_026, 200_000])
def test_packets_of_every_length_come_back(size: int) -> None:
    rng = np.random.default_rng(size)
    packets = [rng.bytes(n) for n in (3, size, 255, size, 7)]
    writer = OggOpusWriter(serial=1)
    data = b"".join(writer.packet(packet, 3840) for packet in packets) + writer.close()
    pages = pages_of(data)
    assert packets_of(pages)[2:] == packets
    assert [page.number for page in pages] == list(range(len(pages)))
    assert all(page.granule == -1 for page in pages if page.lacing and set(page.lacing) == {255})
    assert pages[-1].granule == 5 * 3840


def test_a_packet_is_split_only_if_no_page_can_hold_it() -> None:
    writer = OggOpusWriter(serial=1)
    data = b"".join(writer.packet(bytes([n]) * 30_000, 960) for n in range(1, 5)) + writer.close()
    assert not any(page.flags & 1 for page in pages_of(data))


def test_headers_stand_alone_and_say_what_was_asked() -> None:
    writer = OggOpusWriter(sample_rate=16_000, channels=2, pre_skip=99, serial=5, vendor="Würze")
    pages = pages_of(writer.packet(b"\x08x", 960, flush=True))
    assert [page.flags for page in pages] == [2, 0, 0]
    assert [page.granule for page in pages] == [0, 0, 960]
    assert pages[0].body == b"OpusHead" + bytes([1, 2]) + struct.pack("<HIhB", 99, 16_000, 0, 0)
    assert pages[1].body == b"OpusTags" + struct.pack("<I", 6) + "Würze".encode() + bytes(4)


def test_pages_leave_every_second_or_at_once() -> None:
    writer = OggOpusWriter(serial=1)
    headers = writer.packet(b"\x08", 24_000)
    assert len(pages_of(headers)) == 2
    second = pages_of(writer.packet(b"\x08", 24_000))
    assert [(page.granule, len(page.lacing)) for page in second] == [(48_000, 2)]
    assert writer.packet(b"\x08", 960) == b""
    flushed = pages_of(writer.packet(b"\x08", 960, flush=True))
    assert [(page.granule, len(page.lacing)) for page in flushed] == [(49_920, 2)]


@pytest.mark.parametrize("flush", [False, True])
def test_the_last_page_is_marked_and_nothing_follows(flush: bool) -> None:
    writer = OggOpusWriter(serial=1)
    data = writer.packet(b"\x08", 960, flush=flush) + writer.close()
    assert [page.flags & 4 for page in pages_of(data)][-1] == 4
    assert sum(page.flags & 4 for page in pages_of(data)) == 4
    assert writer.close() == b""
    with pytest.raises(ValueError, match="closed"):
        writer.packet(b"\x08", 960)


def test_a_stream_without_audio_is_whole() -> None:
    pages = pages_of(OggOpusWriter().close())
    assert [page.flags for page in pages] == [2, 0, 4]


def test_two_streams_differ_in_their_serial() -> None:
    assert OggOpusWriter().close() != OggOpusWriter().close()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="channels"):
        OggOpusWriter(channels=3)
    with pytest.raises(ValueError, match="at least one byte"):
        OggOpusWriter().packet(b"", 960)


def opus_packets(seconds: float, frame_ms: int) -> tuple[list[bytes], np.ndarray]:
    """A 440 Hz tone as Opus packets, and the tone."""
    times = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tone = (8_000 * np.sin(2 * np.pi * 440 * times)).astype("<i2")
    encoder = opuslib_next.Encoder(RATE_HZ, 1, "audio")
    samples = RATE_HZ * frame_ms // 1000
    whole = range(0, len(tone) - samples + 1, samples)
    return [encoder.encode(tone[at : at + samples].tobytes(), samples) for at in whole], tone


@pytest.mark.parametrize("frame_ms", [20, 40, 60, 80])
def test_packet_length_is_read_from_the_packet(frame_ms: int) -> None:
    packets, _ = opus_packets(0.5, frame_ms)
    assert {packet_samples_48k(packet) for packet in packets} == {48 * frame_ms}


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        (bytes([0 << 3]), 480),
        (bytes([11 << 3 | 1]), 5760),
        (bytes([12 << 3]), 480),
        (bytes([15 << 3 | 2]), 1920),
        (bytes([16 << 3]), 120),
        (bytes([31 << 3 | 3, 6]), 5760),
        (bytes([31 << 3 | 3, 0x80 | 4]), 3840),
    ],
)
def test_packet_length_of_each_kind(packet: bytes, samples: int) -> None:
    assert packet_samples_48k(packet) == samples


@pytest.mark.parametrize("packet", [b"", bytes([3]), bytes([3, 0]), bytes([31 << 3 | 3, 7])])
def test_packet_length_of_a_broken_packet(packet: bytes) -> None:
    with pytest.raises(ValueError, match="Opus packet"):
        packet_samples_48k(packet)


def decoded(data: bytes) -> np.ndarray:
    """Samples at 24 kHz in 16-bit units, by an independent decoder."""
    return decode_with_ffmpeg(data, RATE_HZ) * 32768


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("frame_ms", [20, 80])
def test_independent_decoders_play_it(frame_ms: int, flush: bool) -> None:
    packets, tone = opus_packets(2.4, frame_ms)
    writer = OggOpusWriter()
    pieces = [writer.packet(packet, 48 * frame_ms, flush=flush) for packet in packets]
    audio = decoded(b"".join(pieces) + writer.close())
    assert len(audio) == len(packets) * frame_ms * 24 - 156
    error = audio[2_400:] - tone[2_400 : len(audio)]
    assert np.sqrt(np.mean(error**2)) < 400


def test_a_file_cut_short_still_plays() -> None:
    packets, _ = opus_packets(3, 80)
    writer = OggOpusWriter()
    cut = b"".join(writer.packet(packet, 3840, flush=True) for packet in packets[:20])
    assert len(decoded(cut)) == 20 * 1920 - 156


@pytest.mark.parametrize("flush", [False, True])
def test_tools_find_nothing_to_complain_about(tmp_path: Path, flush: bool) -> None:
    packets, _ = opus_packets(2.4, 80)
    writer = OggOpusWriter()
    path = tmp_path / "tone.opus"
    path.write_bytes(b"".join(writer.packet(p, 3840, flush=flush) for p in packets) + writer.close())
    if shutil.which("opusinfo"):
        said = subprocess.run(["opusinfo", str(path)], capture_output=True, text=True, check=True, timeout=60)
        assert "WARNING" not in said.stdout + said.stderr
        assert "Playback length: 0m:02.393s" in said.stdout
    reported = {}
    for level in ("warning", "info"):
        command = [ffmpeg(), "-v", level, "-i", str(path), "-c", "copy", "-f", "null", "-"]
        reported[level] = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr
    assert reported["warning"] == ""
    assert "Audio: opus, 48000 Hz, mono" in reported["info"]
