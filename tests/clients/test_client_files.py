"""Audio files from events: playable by others, also when the writer was stopped midway."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import opuslib_next
import pytest
from support import decode_with_ffmpeg

from streamer_client import Audio, AudioFileWriter, AudioFormat, ClientError, ProtocolError
from streamer_client.audio import OpusDecoder, float_to_pcm, mulaw_to_float
from streamer_client.events import audio_event
from streamer_client.queue import ByteBoundedQueue
from streamer_protocol import AudioFrame, AudioKind

OPUS = AudioFormat()
PCM = AudioFormat(format="pcm_s16le", sample_rate=16_000)
TONE = (8_000 * np.sin(np.arange(24_000) * 0.1)).astype("<i2")


def event(kind: AudioKind, payload: bytes, frame: int = 0, rate: int = 24_000, last: bool = False) -> Audio:
    packed = AudioFrame(handle=1, turn_index=0, frame=frame, kind=kind, last=last, payload=payload)
    return audio_event(packed, "main", "t1", rate, None)


def opus_events() -> list[Audio]:
    encoder = opuslib_next.Encoder(24_000, 1, "audio")
    frames = [TONE[at : at + 1920] for at in range(0, 23_040, 1920)]
    packets = [encoder.encode(frame.tobytes(), 1920) for frame in frames]
    return [event(AudioKind.OPUS, packet, n, last=n == 11) for n, packet in enumerate(packets)]


def played(path: Path) -> np.ndarray:
    """Samples at 24 kHz in 16-bit units, by an independent decoder."""
    return decode_with_ffmpeg(path.read_bytes(), 24_000) * 32768


def wav_samples(path: Path) -> tuple[int, np.ndarray]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getframerate(), np.frombuffer(file.readframes(10**6), "<i2")


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    error = found[2_400:].astype(float) - expected[2_400 : len(found)]
    assert np.sqrt(np.mean(error**2)) < 400


@pytest.mark.parametrize("suffix", [".opus", ".ogg", ".OPUS"])
def test_opus_packets_are_stored_as_received(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    events = opus_events()
    with AudioFileWriter(path, OPUS) as writer:
        for item in events:
            writer.write(item)
    data = path.read_bytes()
    assert all(item.payload in data for item in events)
    found = played(path)
    assert len(found) == 12 * 1920 - 156
    assert_close(found, TONE)


def test_opus_becomes_wav(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with AudioFileWriter(path, OPUS) as writer:
        for item in opus_events():
            writer.write(item)
    rate, found = wav_samples(path)
    assert (rate, len(found)) == (24_000, 12 * 1920)
    assert_close(found[156:], TONE)


def test_decoded_events_are_not_decoded_again(tmp_path: Path) -> None:
    silence = np.zeros(1920, np.float32)
    with AudioFileWriter(tmp_path / "a.wav", OPUS) as writer:
        for item in opus_events():
            writer.write(replace(item, decoded=silence))
    assert not wav_samples(tmp_path / "a.wav")[1].any()


def test_a_decoder_fills_the_samples_in() -> None:
    frame = AudioFrame(handle=1, turn_index=0, frame=0, kind=AudioKind.OPUS, payload=opus_events()[0].payload)
    found = audio_event(frame, "main", "t1", 24_000, OpusDecoder(24_000)).pcm
    assert found.shape == (1920,)
    assert abs(found).max() > 0.1


def test_pcm_and_mulaw_become_wav(tmp_path: Path) -> None:
    with AudioFileWriter(tmp_path / "p.wav", PCM) as writer:
        writer.write(event(AudioKind.PCM_S16LE, TONE[:320].tobytes(), rate=16_000))
        writer.write(event(AudioKind.PCM_S16LE, TONE[320:640].tobytes(), 1, rate=16_000))
    rate, found = wav_samples(tmp_path / "p.wav")
    assert rate == 16_000
    np.testing.assert_array_equal(found, TONE[:640])
    with AudioFileWriter(tmp_path / "m.wav", AudioFormat(format="mulaw")) as writer:
        writer.write(event(AudioKind.MULAW, bytes([0x80, 0xFF, 0x00]), rate=8_000))
    rate, found = wav_samples(tmp_path / "m.wav")
    assert (rate, found.tolist()) == (8_000, [32124, 0, -32124])


@pytest.mark.parametrize("suffix", [".opus", ".wav"])
def test_a_file_that_was_never_closed_plays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    writer = AudioFileWriter(path, OPUS)
    for item in opus_events():
        writer.write(item)
    copy = tmp_path / f"copy{suffix}"
    shutil.copy(path, copy)
    writer.close()
    writer.close()
    found = played(copy) if suffix == ".opus" else wav_samples(copy)[1]
    assert len(found) >= 12 * 1920 - 156


@pytest.mark.parametrize(
    ("name", "audio", "match"),
    [
        ("a.mp3", OPUS, r"a\.mp3: cannot write \.mp3; use one of \.opus, \.ogg, \.wav"),
        ("a", OPUS, "without a suffix"),
        ("a.opus", PCM, r"pcm_s16le; write \.wav"),
    ],
)
def test_a_file_that_cannot_be_written_says_so(tmp_path: Path, name: str, audio: AudioFormat, match: str) -> None:
    with pytest.raises(ClientError, match=match):
        AudioFileWriter(tmp_path / name, audio)
    assert not (tmp_path / name).exists()


def test_durations() -> None:
    assert {item.duration_ms for item in opus_events()} == {80.0}
    assert event(AudioKind.PCM_S16LE, bytes(640), rate=16_000).duration_ms == 20.0
    assert event(AudioKind.MULAW, bytes(480), rate=8_000).duration_ms == 60.0
    with pytest.raises(ProtocolError, match="641 bytes of 16-bit"):
        event(AudioKind.PCM_S16LE, bytes(641))


def test_samples_of_uncompressed_audio() -> None:
    pcm = event(AudioKind.PCM_S16LE, np.array([0, 16384, -32768], "<i2").tobytes()).pcm
    assert pcm.dtype == np.float32
    assert pcm.tolist() == [0.0, 0.5, -1.0]
    assert event(AudioKind.MULAW, b"\xff").pcm.tolist() == [0.0]
    assert float_to_pcm(np.array([2.0, -2.0, 0.5], np.float32)) == np.array([32767, -32768, 16384], "<i2").tobytes()


def test_mulaw_is_g711() -> None:
    """Checked against the segment end points of ITU-T G.711, table 2a, at 16 bits."""
    codes = bytes([0x80, 0x8F, 0x9F, 0xAF, 0xBF, 0xCF, 0xDF, 0xEF, 0xFE, 0xFF])
    levels = [32124, 16764, 8316, 4092, 1980, 924, 396, 132, 8, 0]
    assert (mulaw_to_float(codes) * 32768).tolist() == levels
    negative = bytes(code & 0x7F for code in codes)
    assert (mulaw_to_float(negative) * 32768).tolist() == [-level for level in levels]


WITHOUT_LIBOPUS = """
import ctypes.util, os.path
ctypes.util.find_library = lambda name: None
os.path.exists = lambda path: False
import streamer_client
try:
    streamer_client.OpusDecoder(24000)
except streamer_client.OpusUnavailable as error:
    print(error)
"""


def test_a_missing_libopus_is_explained() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_LIBOPUS], capture_output=True, text=True, timeout=60
    )
    for line in ("apt-get install libopus0", "dnf install opus", "brew install opus", "pcm_s16le"):
        assert line in run.stdout, run.stderr


async def test_the_queue_holds_its_writer_back_and_drops_nothing() -> None:
    queue: ByteBoundedQueue[int] = ByteBoundedQueue(10)

    async def write() -> None:
        for number in range(5):
            await queue.put(number, 6)
        queue.end(ClientError("over"))
        queue.end()

    writer = asyncio.create_task(write())
    await asyncio.wait([writer], timeout=0.01)
    assert not writer.done()
    assert [await queue.get() for _ in range(5)] == list(range(5))
    with pytest.raises(ClientError, match="over"):
        await queue.get()
    await writer


async def test_a_queue_without_limit_takes_everything() -> None:
    queue: ByteBoundedQueue[int] = ByteBoundedQueue(1)
    queue.lift_limit()
    for number in range(3):
        await queue.put(number, 100)
    queue.end()
    assert [await queue.get() for _ in range(4)] == [0, 1, 2, None]
