"""The codec against the publishers' results, whole, as a prefix of its codebooks, and in chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamer.codec import AudioCodec, CodecInputError
from streamer.codec.naive import naive_decode
from streamer.codec.windows import WindowedStage

FRAME_SAMPLES = 1920


def assert_close(actual: torch.Tensor, expected: np.ndarray | torch.Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected), atol=atol, rtol=0)


def test_config_gives_the_published_rates(codec: AudioCodec) -> None:
    config = codec.config
    assert (config.n_codebooks, config.codebook_size, config.sampling_rate) == (8, 64, 24000)
    assert (config.frame_samples, config.frame_rate) == (FRAME_SAMPLES, 12.5)


def test_encode_equals_the_published_codes(codec: AudioCodec, golden: dict[str, np.ndarray]) -> None:
    codes = codec.encode(golden["wav"])
    assert codes.dtype == torch.int64
    assert codes.shape == (63, 8)
    equal = codes.numpy() == golden["codes"].T
    # The last frame is only partly filled and gets the codes of nothing: a choice among equals, which is left to the
    # rounding of the processor at hand.
    assert equal[:-1].mean() >= 0.999
    assert int(codes[-1].max()) < codec.config.codebook_size


@pytest.mark.parametrize(
    ("n_codebooks", "name"), [(8, "audio"), (1, "audio_first_1_codebooks"), (4, "audio_first_4_codebooks")]
)
def test_decode_equals_the_published_audio(
    codec: AudioCodec, golden: dict[str, np.ndarray], golden_codes: torch.Tensor, n_codebooks: int, name: str
) -> None:
    audio = codec.decode(golden_codes[:, :n_codebooks])
    assert audio.dtype == torch.float32
    assert_close(audio, golden[name])


def test_naive_twin_equals_the_published_audio(
    codec: AudioCodec, golden: dict[str, np.ndarray], golden_codes: torch.Tensor
) -> None:
    assert_close(naive_decode(codec.weights, golden_codes), golden["audio"])


@pytest.mark.parametrize("chunks", [[1], [2], [5], [7], [63], [1, 7, 2, 30, 0, 5, 18]])
def test_streamed_chunks_equal_the_whole(
    codec: AudioCodec, golden: dict[str, np.ndarray], golden_codes: torch.Tensor, chunks: list[int]
) -> None:
    sizes = chunks if len(chunks) > 1 else chunks[0]
    stream = codec.decode_stream()
    pieces = []
    for chunk in golden_codes.split(sizes):
        pieces.append(stream.push(chunk))
        assert pieces[-1].shape == (len(chunk) * FRAME_SAMPLES,)
    assert_close(torch.cat(pieces), golden["audio"])


def test_streams_of_one_codec_do_not_meet(codec: AudioCodec, golden_codes: torch.Tensor) -> None:
    other_codes = golden_codes.flip(0)
    first, second = codec.decode_stream(), codec.decode_stream()
    pairs = [(first.push(a), second.push(b)) for a, b in zip(golden_codes.split(3), other_codes.split(3), strict=True)]
    assert_close(torch.cat([pair[0] for pair in pairs]), codec.decode(golden_codes))
    assert_close(torch.cat([pair[1] for pair in pairs]), codec.decode(other_codes))


def test_far_into_a_stream_decoding_is_as_exact_as_at_its_start(
    codec: AudioCodec, golden: dict[str, np.ndarray], golden_codes: torch.Tensor
) -> None:
    hours = 1000
    stream = codec.decode_stream()
    for stage in stream._chain._stages:
        if isinstance(stage, WindowedStage):
            stage._position = hours * 45_000 * stage._weights.config.steps_per_frame
    assert_close(torch.cat([stream.push(chunk) for chunk in golden_codes.split(7)]), golden["audio"], atol=1e-5)


def test_a_started_frame_counts_only_when_it_is_padded(codec: AudioCodec, golden: dict[str, np.ndarray]) -> None:
    whole = golden["wav"][: 10 * FRAME_SAMPLES]
    started = np.concatenate([whole, golden["wav"][-500:]])
    padded = np.concatenate([started, np.zeros(FRAME_SAMPLES - 500, np.float32)])
    silent = np.concatenate([whole, np.zeros(500, np.float32)])
    assert torch.equal(codec.encode(started, pad_tail=True), codec.encode(padded))
    assert torch.equal(codec.encode(started), codec.encode(silent))
    assert torch.equal(codec.encode(started)[:10], codec.encode(whole))
    assert len(codec.encode(golden["wav"][:1])) == 1


def test_torch_and_read_only_or_double_numpy_are_welcome(codec: AudioCodec, golden: dict[str, np.ndarray]) -> None:
    wav = golden["wav"][: 4 * FRAME_SAMPLES].copy()
    expected = codec.encode(torch.from_numpy(wav))
    wav.flags.writeable = False
    assert torch.equal(codec.encode(wav), expected)
    assert torch.equal(codec.encode(wav.astype(np.float64)), expected)
    codes = expected.numpy().astype(np.int32)
    codes.flags.writeable = False
    assert torch.equal(codec.decode(codes), codec.decode(expected))


@pytest.mark.parametrize(
    ("waveform", "code", "message"),
    [
        (np.zeros((2, 100), np.float32), "codec_waveform_shape", r"shape \[2, 100\].*mono"),
        (np.zeros(100, np.int16), "codec_waveform_dtype", "int16"),
        (torch.zeros(100, dtype=torch.int32), "codec_waveform_dtype", "int32"),
        ([0.0, 0.1], "codec_waveform_dtype", "list"),
        (np.zeros(0, np.float32), "codec_waveform_empty", "no samples"),
        (np.array([0, 1, np.nan], np.float32), "codec_waveform_not_finite", r"waveform\[2\] is nan"),
        (torch.tensor([0, float("-inf")]), "codec_waveform_not_finite", r"waveform\[1\] is -inf"),
    ],
)
def test_encode_names_what_is_wrong(codec: AudioCodec, waveform: object, code: str, message: str) -> None:
    with pytest.raises(CodecInputError, match=message) as caught:
        codec.encode(waveform)  # type: ignore[arg-type]
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("codes", "code", "message"),
    [
        (torch.zeros(3, 4), "codec_codes_dtype", "float32"),
        (torch.zeros(3, 4, dtype=torch.bool), "codec_codes_dtype", "bool"),
        (torch.zeros(4, dtype=torch.int64), "codec_codes_shape", r"shape \[4\]"),
        (torch.zeros(3, 0, dtype=torch.int64), "codec_codes_shape", "k from 1 to 8"),
        (torch.zeros(3, 9, dtype=torch.int64), "codec_codes_shape", "k from 1 to 8"),
        (torch.tensor([[0, 1], [2, 64]]), "codec_codes_range", r"codes\[1, 1\] is 64, expected 0 to 63"),
        (np.array([[0, -1]]), "codec_codes_range", r"codes\[0, 1\] is -1"),
    ],
)
def test_decode_names_what_is_wrong(codec: AudioCodec, codes: torch.Tensor, code: str, message: str) -> None:
    with pytest.raises(CodecInputError, match=message) as caught:
        codec.decode(codes)
    assert caught.value.code == code


def test_a_refused_chunk_leaves_the_stream_where_it_was(codec: AudioCodec, golden_codes: torch.Tensor) -> None:
    stream = codec.decode_stream()
    first = stream.push(golden_codes[:5])
    with pytest.raises(CodecInputError):
        stream.push(golden_codes[5:8] + 64)
    assert_close(torch.cat([first, stream.push(golden_codes[5:])]), codec.decode(golden_codes))


def test_no_frames_are_no_samples(codec: AudioCodec) -> None:
    assert codec.decode(torch.zeros(0, 8, dtype=torch.int64)).shape == (0,)
