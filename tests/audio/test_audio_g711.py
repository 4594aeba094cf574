"""µ-law against the tables of ITU-T G.711 and against an independent codec."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from support import ffmpeg

from streamer.audio import mulaw_decode, mulaw_encode

ALL_CODES = bytes(range(256))
ALL_SAMPLES = np.arange(-32768, 32768).astype(np.int16)


def test_every_code_comes_back() -> None:
    # 0x7F is the second spelling of zero.
    assert mulaw_encode(mulaw_decode(ALL_CODES)) == ALL_CODES.replace(b"\x7f", b"\xff")


@pytest.mark.parametrize(
    ("sample", "code"),
    [(0, 0xFF), (32767, 0x80), (-32768, 0x00), (-1, 0x7F), (4, 0xFE), (-4, 0x7E)],
)
def test_known_samples(sample: int, code: int) -> None:
    assert mulaw_encode(np.array([sample], np.int16)) == bytes([code])


def test_segments_begin_at_the_tables_decision_values() -> None:
    for segment, decision in enumerate([31, 95, 223, 479, 991, 2015, 4063]):
        below, at = mulaw_encode(np.array([4 * decision - 1, 4 * decision], np.int16))
        assert (below, at) == (0xFF - 16 * segment - 15, 0xFF - 16 * (segment + 1))


@pytest.mark.parametrize(("code", "value"), [(0x80, 8031), (0x8F, 4191), (0x90, 3999), (0xEF, 33), (0xFE, 2)])
def test_decoded_values_of_the_table(code: int, value: int) -> None:
    assert mulaw_decode(bytes([code, code ^ 0x80])).tolist() == [4 * value, -4 * value]


def test_error_is_at_most_half_a_step() -> None:
    decoded = mulaw_decode(mulaw_encode(ALL_SAMPLES)).astype(int)
    error = np.abs(decoded - ALL_SAMPLES)
    inside = np.abs(ALL_SAMPLES.astype(int)) < 4 * 8159
    assert (error[inside] <= np.maximum(4, np.abs(ALL_SAMPLES[inside].astype(int)) / 16 + 5)).all()
    assert (np.diff(decoded) >= 0).all()


def test_against_ffmpeg() -> None:
    def converted(source: str, target: str, data: bytes) -> bytes:
        command = [ffmpeg(), *f"-v error -f {source} -ar 8000 -ac 1 -i - -f {target} -".split()]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    theirs = np.frombuffer(converted("mulaw", "s16le", ALL_CODES), "<i2")
    assert np.array_equal(theirs, mulaw_decode(ALL_CODES))
    ours = np.frombuffer(mulaw_encode(ALL_SAMPLES), np.uint8).astype(int)
    encoded = np.frombuffer(converted("s16le", "mulaw", ALL_SAMPLES.astype("<i2").tobytes()), np.uint8)
    # ffmpeg rounds to the nearest value, the standard has decision values: a border moves by a few units.
    differs = (ours & 0x7F) != (encoded & 0x7F)
    assert differs.mean() < 0.02
    assert (np.abs((ours & 0x7F) - (encoded & 0x7F).astype(int)) <= 1).all()
