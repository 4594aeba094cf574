"""The codec that ships with the package: stored in half precision, small enough for one core."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch

from streamer.codec import AudioCodec


@pytest.fixture(scope="module")
def heart(voices_folder: Path) -> torch.Tensor:
    samples, rate = soundfile.read(voices_folder / "heart.wav", dtype="float32")
    assert rate == 24000
    return torch.from_numpy(samples)


def test_speech_survives_the_round_trip(embedded_codec: AudioCodec, heart: torch.Tensor) -> None:
    codes = embedded_codec.encode(heart, pad_tail=True)
    audio = embedded_codec.decode(codes)[: len(heart)]
    assert codes.shape == (-(-len(heart) // 1920), 8)
    assert audio.isfinite().all()
    level_db = 10 * torch.log10(audio.square().mean() / heart.square().mean())
    assert abs(level_db) < 3
    # Loud where the original is loud: the envelopes in 20 ms steps go together.
    envelopes = torch.stack([part.unfold(0, 480, 480).square().mean(1).sqrt() for part in (heart, audio)])
    assert torch.corrcoef(envelopes)[0, 1] > 0.8


def test_pool_and_stream_equal_the_whole(embedded_codec: AudioCodec, heart: torch.Tensor) -> None:
    codes = embedded_codec.encode(heart)[:30]
    whole = embedded_codec.decode(codes)
    stream = embedded_codec.decode_stream()
    pool = embedded_codec.stream_pool(2)
    slot = pool.open()
    for frame, expected in zip(codes.split(1), whole.split(1920), strict=True):
        torch.testing.assert_close(stream.push(frame), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(pool.push([slot], frame)[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_decodes_nearly_the_same(
    embedded_codec: AudioCodec, embedded_folder: Path, heart: torch.Tensor, dtype: torch.dtype
) -> None:
    codec = AudioCodec.from_pretrained(embedded_folder, dtype=dtype)
    codes = embedded_codec.encode(heart)[:12]
    expected = embedded_codec.decode(codes)
    pool = codec.stream_pool(1)
    slot = pool.open()
    for audio in (codec.decode(codes), torch.cat([pool.push([slot], frame)[0] for frame in codes.split(1)])):
        assert audio.dtype == torch.float32
        assert (audio - expected).square().mean() < 0.01 * expected.square().mean()
