"""The audio frame header, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer_protocol import HEADER_BYTES, AudioFrame, AudioKind, HeaderError

GOLDEN = bytes.fromhex("01 02 01 00  04030201  08070605  0c0b0a09") + b"payload"
FRAME = AudioFrame(
    handle=0x01020304,
    turn_index=0x05060708,
    frame=0x090A0B0C,
    kind=AudioKind.PCM_S16LE,
    last=True,
    payload=b"payload",
)


def test_golden_bytes() -> None:
    assert HEADER_BYTES == 16
    assert FRAME.pack() == GOLDEN
    assert AudioFrame.unpack(GOLDEN) == FRAME


def test_kinds_on_the_wire() -> None:
    assert [(kind.name, kind.value) for kind in AudioKind] == [("OPUS", 1), ("PCM_S16LE", 2), ("MULAW", 3)]


u32 = st.integers(0, 2**32 - 1)


@given(
    st.builds(
        AudioFrame,
        handle=u32,
        turn_index=u32,
        frame=u32,
        kind=st.sampled_from(AudioKind),
        last=st.booleans(),
        payload=st.binary(min_size=1),
    )
)
def test_round_trip(frame: AudioFrame) -> None:
    assert AudioFrame.unpack(frame.pack()) == frame


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "0 bytes"),
        (GOLDEN[:16], "16 bytes"),
        (b"\x02" + GOLDEN[1:], "version 2"),
        (b"\x01\x00" + GOLDEN[2:], "kind 0"),
        (b"\x01\x04" + GOLDEN[2:], "kind 4"),
        (b"\x01\x01\x02" + GOLDEN[3:], "flags 0x2"),
        (b"\x01\x01\x01\x09" + GOLDEN[4:], "reserved byte 0x9"),
    ],
)
def test_foreign_data_is_a_typed_error(data: bytes, named: str) -> None:
    with pytest.raises(HeaderError, match=named):
        AudioFrame.unpack(data)


@given(st.binary(max_size=64))
def test_any_bytes_give_a_frame_or_a_typed_error(data: bytes) -> None:
    try:
        frame = AudioFrame.unpack(data)
    except HeaderError:
        return
    assert frame.pack() == data


@pytest.mark.parametrize("number", [-1, 2**32])
def test_a_number_that_does_not_fit_is_refused(number: int) -> None:
    frame = AudioFrame(handle=0, turn_index=0, frame=number, kind=AudioKind.OPUS, payload=b"x")
    with pytest.raises(HeaderError, match="frame"):
        frame.pack()


def test_a_frame_without_audio_is_refused() -> None:
    with pytest.raises(HeaderError, match="empty"):
        AudioFrame(handle=0, turn_index=0, frame=0, kind=AudioKind.OPUS, payload=b"").pack()
