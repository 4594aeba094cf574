"""Clips longer than a window: equal to the naive form, without ever making its matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from streamer.codec import AudioCodec
from streamer.codec.audio_codec import WINDOW_FRAMES
from streamer.codec.naive import naive_decode, naive_encode_latents
from streamer.codec.windows import WindowedStage

LONG_FRAMES = 2 * WINDOW_FRAMES + 20


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def random_codes(codec: AudioCodec, n_frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(codec.config.codebook_size, (n_frames, codec.config.n_codebooks), generator=generator)


def test_long_decode_equals_the_naive_twin(codec: AudioCodec) -> None:
    codes = random_codes(codec, LONG_FRAMES)
    torch.testing.assert_close(codec.decode(codes), naive_decode(codec.weights, codes), atol=2e-5, rtol=0)


def test_long_encode_equals_the_naive_twin(codec: AudioCodec) -> None:
    wav = codec.decode(random_codes(codec, LONG_FRAMES)).clamp(-1, 1)
    expected = codec._quantizer.encode(naive_encode_latents(codec.weights, wav))
    assert (codec.encode(wav) == expected).float().mean() >= 0.999


def test_memory_beyond_the_audio_does_not_grow_with_its_length(codec: AudioCodec) -> None:
    codes = random_codes(codec, 6 * WINDOW_FRAMES)
    with LargestTensor() as largest:
        wav = codec.decode(codes)
    assert largest.numel == wav.numel()
    with LargestTensor() as largest:
        codec.encode(wav)
    assert largest.numel == wav.numel()
    with LargestTensor() as largest:
        naive_decode(codec.weights, codes)
    assert largest.numel > 10 * wav.numel()


def test_a_stream_remembers_no_more_than_its_context(codec: AudioCodec) -> None:
    stream = codec.decode_stream()
    for chunk in random_codes(codec, 60).split(4):
        stream.push(chunk)
    for stage in stream._chain._stages:
        if isinstance(stage, WindowedStage):
            context = stage._weights.config.context_steps
            assert [past.shape[1] for past in stage._past] == [context - 1] * len(stage._past)
