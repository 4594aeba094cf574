"""Packets out of the codec's samples, in every format and rate."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.audio import Packetizer, mulaw_decode
from streamer.audio.packetizer import SAMPLE_RATES, AudioFormat

FRAME = 1920


def tone(samples: int, hertz: float = 440.0, rate: int = 24_000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.float32)


def int16(audio: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(audio * 32768), -32768, 32767)


def pcm_of(payloads: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(payloads), "<i2").astype(np.int64)


def test_pcm_at_24_khz_is_sample_exact_and_undelayed() -> None:
    audio = np.random.default_rng(0).uniform(-1.2, 1.2, (5, FRAME)).astype(np.float32)
    packetizer = Packetizer("pcm_s16le")
    for frame in audio:
        payloads = packetizer.push(frame)
        assert len(payloads) == 1
        assert np.array_equal(pcm_of(payloads), int16(frame))
    assert packetizer.flush() == []


@pytest.mark.parametrize("format", ["opus", "pcm_s16le", "mulaw"])
def test_one_packet_in_80_ms_in_every_format(format: AudioFormat) -> None:
    packetizer = Packetizer(format)
    assert packetizer.kind == {"opus": 1, "pcm_s16le": 2, "mulaw": 3}[format]
    assert [len(packetizer.push(tone(FRAME))) for _ in range(4)] == [1] * 4
    assert packetizer.flush() == []
    assert (packetizer.lookahead_samples > 0) == (format == "opus")


def test_no_wraparound_and_no_nan() -> None:
    audio = np.zeros(FRAME, np.float32)
    audio[:6] = [2.0, -2.0, np.nan, np.inf, -np.inf, 1.0]
    assert pcm_of(Packetizer("pcm_s16le").push(audio))[:6].tolist() == [32767, -32768, 0, 0, 0, 32767]
    # A full-scale square wave overshoots in the resampler.
    square = np.sign(tone(10 * FRAME, 1000.0))
    packetizer = Packetizer("pcm_s16le", 48_000)
    resampled = pcm_of(packetizer.push(square) + packetizer.flush())
    assert np.abs(np.diff(resampled)).max() < 50_000


@pytest.mark.parametrize("frame_ms", [20, 40, 60, 80])
def test_frames_and_the_last_one_filled_with_silence(frame_ms: int) -> None:
    packetizer = Packetizer("pcm_s16le", 24_000, frame_ms)
    size = packetizer.frame_samples
    audio = tone(5 * FRAME)
    payloads = [p for chunk in audio.reshape(5, FRAME) for p in packetizer.push(chunk)] + packetizer.flush()
    assert {len(p) for p in payloads} == {2 * size}
    assert len(payloads) == -(-5 * FRAME // size)
    heard = pcm_of(payloads)
    assert np.array_equal(heard[: len(audio)], int16(audio))
    assert not heard[len(audio) :].any()


OTHER_RATES = [rate for rate in SAMPLE_RATES if rate != 24_000]


@pytest.mark.parametrize("rate", OTHER_RATES)
def test_resampled_audio_is_packet_for_packet_and_without_a_seam_between_turns(rate: int) -> None:
    packetizer = Packetizer("pcm_s16le", rate)
    lag = packetizer.lookahead_samples
    assert 0 < lag <= rate * 0.007
    heard = []
    for turn in tone(10 * FRAME).reshape(2, 5, FRAME):
        payloads = [packetizer.push(chunk) for chunk in turn]
        assert [len(p) for p in payloads] == [1] * 5
        assert packetizer.flush() == []
        heard += [p for chunk in payloads for p in chunk]
    expected = tone(10 * FRAME * rate // 24_000, rate=rate)[:-lag] * 32768
    # The tone begins out of silence, which a filter cannot follow at once.
    settled = slice(2 * lag, None)
    assert np.abs(pcm_of(heard)[lag:] - expected)[settled].max() < 4


@pytest.mark.parametrize("rate", OTHER_RATES)
def test_resampled_packets_do_not_depend_on_the_chunks(rate: int) -> None:
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, 4 * FRAME + 13).astype(np.float32)
    whole, pieces = Packetizer("pcm_s16le", rate, 20), Packetizer("pcm_s16le", rate, 20)
    expected = pcm_of(whole.push(audio) + whole.flush())
    payloads = [p for piece in np.array_split(audio, 31) for p in pieces.push(piece)] + pieces.flush()
    assert np.abs(pcm_of(payloads) - expected).max() <= 1
    assert len(expected) >= len(audio) * rate / 24_000


def test_what_a_lower_rate_cannot_hold_is_gone_and_what_it_can_is_not() -> None:
    for hertz, kept in ((3_300, True), (4_100, False), (6_000, False)):
        packetizer = Packetizer("pcm_s16le", 8_000)
        heard = pcm_of([p for chunk in tone(10 * FRAME, hertz).reshape(10, FRAME) for p in packetizer.push(chunk)])
        level = np.sqrt(2 * np.mean((heard[1_000:] / 16_384) ** 2))
        assert (0.98 < level < 1.02) if kept else level < 10 ** (-70 / 20)


def test_mulaw_for_the_telephone() -> None:
    packetizer = Packetizer("mulaw", 8_000, 20)
    payloads = packetizer.push(tone(10 * FRAME)) + packetizer.flush()
    assert [len(p) for p in payloads] == [160] * 40
    heard = mulaw_decode(b"".join(payloads)) / 32768
    lag = packetizer.lookahead_samples
    error = heard[800 + lag : -800] - tone(6400, rate=8_000)[800 : -800 - lag]
    assert 10 * np.log10(0.125 / np.mean(error**2)) > 30


def test_chunks_of_any_size_give_the_same_packets() -> None:
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, 7 * FRAME + 13).astype(np.float32)
    whole = Packetizer("opus", 24_000, 60)
    expected = whole.push(audio) + whole.flush()
    pieces = Packetizer("opus", 24_000, 60)
    payloads: list[bytes] = []
    for piece in np.array_split(audio, 31):
        payloads += pieces.push(piece)
    assert payloads + pieces.flush() == expected


def test_opus_state_lasts_over_turns() -> None:
    second = Packetizer("opus")
    second.push(tone(3 * FRAME))
    second.flush()
    assert second.push(tone(FRAME, 200.0)) != Packetizer("opus").push(tone(FRAME, 200.0))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (("mp3",), "format is 'mp3'"),
        (("pcm_s16le", 96_000), "sample_rate is 96000"),
        (("pcm_s16le", 11_025), "sample_rate is 11025"),
        (("opus", 44_100), "sample_rate is 44100"),
        (("pcm_s16le", 24_000, 10), "frame_ms is 10"),
        (("opus", 24_000, 80, 1_000_000), "bitrate is 1000000"),
    ],
)
def test_settings_that_are_not_offered(given: tuple, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Packetizer(*given)


def test_nothing_after_close() -> None:
    packetizer = Packetizer("opus")
    packetizer.close()
    packetizer.close()
    for call in (lambda: packetizer.push(tone(FRAME)), packetizer.flush):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_only_mono() -> None:
    with pytest.raises(ValueError, match="audio has shape"):
        Packetizer("pcm_s16le").push(np.zeros((2, FRAME), np.float32))


def test_what_is_discarded_is_not_heard_in_the_next_turn() -> None:
    loud, quiet = np.full(1920, 0.5, np.float32), np.zeros(1920, np.float32)
    for sample_rate in (24_000, 16_000):
        packetizer = Packetizer("pcm_s16le", sample_rate, 60)
        packetizer.push(loud)
        packetizer.discard()
        payloads = packetizer.push(quiet) + packetizer.flush()
        assert payloads
        assert not np.frombuffer(b"".join(payloads), "<i2").any()
        packetizer.close()
