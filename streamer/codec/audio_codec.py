"""The codec as users see it: waveform to codes, codes to waveform, whole or streamed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from streamer.checkpoint import resolve_checkpoint
from streamer.codec.config import CodecConfig, read_codec_config
from streamer.codec.inputs import ArrayLike, check_codes, check_waveform
from streamer.codec.pool import StreamPool
from streamer.codec.quantizer import Quantizer
from streamer.codec.weights import CodecWeights, load_codec_weights, with_bf16_matrices
from streamer.codec.windows import WindowedChain

# Long enough to keep matrix products busy, short enough that a window's scores stay small.
WINDOW_FRAMES = 64


class AudioCodec:
    """A loaded codec: immutable, so any number of threads may use it. Results lie on its device."""

    def __init__(self, config: CodecConfig, weights: CodecWeights) -> None:
        self.config = config
        self.weights = weights
        self._quantizer = Quantizer(weights.quantizer)

    @classmethod
    @torch.no_grad()
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> AudioCodec:
        """Loads a folder or hub id in the published format (``OpenMOSS-Team/MOSS-Audio-Tokenizer``).

        ``dtype`` is that of the transformers; the quantizer stays in float32. Raises
        :class:`~streamer.checkpoint.CheckpointError`, which names what is wrong with the checkpoint.
        """
        folder = resolve_checkpoint(path_or_hub_id)
        config = read_codec_config(folder)
        return cls(config, load_codec_weights(folder, config, device=device, dtype=dtype))

    @property
    def device(self) -> torch.device:
        return self._quantizer.device

    @property
    def fingerprint(self) -> str:
        """Of the codebooks, 16 hexadecimal digits: codes mean the same to codecs that share them, and noise to others.

        Empty for a codec that comes from no checkpoint.
        """
        return self.weights.quantizer.fingerprint

    @torch.no_grad()
    def encode(self, waveform: ArrayLike, *, pad_tail: bool = False) -> torch.Tensor:
        """Samples (N,), floats at ``config.sampling_rate`` -> codes (frames, n_codebooks) int64.

        N is rounded up to whole frames. The publishers' encoder gives a last frame that is only partly filled
        the codes of a zero residual, whatever its samples are, and so does this one; ``pad_tail`` fills it up
        with zeros and encodes it like the others, so that no sound is lost. Raises :class:`CodecInputError`.
        """
        samples = check_waveform(waveform, self.device)
        frame_samples = self.config.frame_samples
        if pad_tail:
            samples = F.pad(samples, (0, -len(samples) % frame_samples))
        n_whole = len(samples) - len(samples) % frame_samples
        chain = WindowedChain(self.weights.encoder, upward=False)
        codes = [
            self._quantizer.encode(chain.run(window[:, None].to(self.weights.dtype)))
            for window in samples[:n_whole].split(WINDOW_FRAMES * frame_samples)
            if len(window)
        ]
        if n_whole < len(samples):
            codes.append(self._quantizer.encode_nothing())
        return torch.cat(codes)

    def decode(self, codes: ArrayLike) -> torch.Tensor:
        """Codes (frames, k) of the first k codebooks -> samples (frames * frame_samples,) float32.

        Fewer codebooks sound coarser. Raises :class:`CodecInputError`.
        """
        return self.decode_stream().push(codes)

    def decode_stream(self) -> DecodeStream:
        """A stream of its own, for chunks of any length; use :meth:`stream_pool` for many at once."""
        return DecodeStream(self.config, self.weights, self._quantizer)

    def stream_pool(self, capacity: int, *, max_group_frames: int = 1, bf16_matrices: bool = False) -> StreamPool:
        """``capacity`` streams that advance together, up to ``max_group_frames`` of each a call.

        ``bf16_matrices``: products in bfloat16, which a CPU with instructions for it makes faster for many streams; the
        embedded codec's audio is then off by -53 dB.
        """
        weights = self.weights
        if bf16_matrices:
            weights = replace(weights, decoder=tuple(with_bf16_matrices(stage) for stage in weights.decoder))
        return StreamPool(self.config, weights, self._quantizer, capacity, max_group_frames)


class DecodeStream:
    """Decodes one stream chunk by chunk: the chunks joined are what :meth:`AudioCodec.decode` gives."""

    def __init__(self, config: CodecConfig, weights: CodecWeights, quantizer: Quantizer) -> None:
        self._config = config
        self._dtype = weights.dtype
        self._quantizer = quantizer
        self._chain = WindowedChain(weights.decoder, upward=True)

    @torch.no_grad()
    def push(self, codes: ArrayLike) -> torch.Tensor:
        """The next frames: (f, k) -> samples (f * frame_samples,) float32; an error changes nothing."""
        codes = check_codes(codes, self._config, self._quantizer.device, trust_device=False)
        if not len(codes):
            return torch.empty(0, device=self._quantizer.device)
        windows = (self._quantizer.decode(window).to(self._dtype) for window in codes.split(WINDOW_FRAMES))
        return torch.cat([self._chain.run(window).flatten().float() for window in windows])
