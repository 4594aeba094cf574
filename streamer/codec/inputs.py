"""Checks of what callers hand to the codec: the errors name the element that is wrong."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from streamer.codec.config import CodecConfig
from streamer.codec.errors import CodecInputError

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

ArrayLike = torch.Tensor | npt.NDArray[np.generic]


def check_codes(
    codes: ArrayLike,
    config: CodecConfig,
    device: torch.device,
    *,
    trust_device: bool = True,
) -> torch.Tensor:
    """Codes (N, k) as int64 on ``device``, every one of them an entry of its codebook.

    ``trust_device`` leaves the values of codes on an accelerator unread, which saves the host from waiting.
    """
    # numpy memory is copied, because torch warns about memory it may not write to.
    codes = torch.from_numpy(np.array(codes)) if isinstance(codes, np.ndarray) else torch.as_tensor(codes)
    if codes.dtype not in _INTEGERS:
        raise CodecInputError("codec_codes_dtype", f"codes: {codes.dtype}, expected integers")
    if codes.ndim != 2 or not 1 <= codes.shape[1] <= config.n_codebooks:
        raise CodecInputError(
            "codec_codes_shape",
            f"codes: shape {list(codes.shape)}, expected (frames, k) with k from 1 to {config.n_codebooks}",
        )
    if codes.numel() and not (trust_device and codes.device.type != "cpu"):
        low, high = (int(bound) for bound in torch.aminmax(codes))
        if low < 0 or high >= config.codebook_size:
            raise CodecInputError("codec_codes_range", f"codes{_first_outside(codes, config.codebook_size)}")
    return codes.to(device=device, dtype=torch.int64)


def check_waveform(waveform: ArrayLike, device: torch.device) -> torch.Tensor:
    """Samples (N,) as float32 on ``device``; N is at least 1 and every sample is finite."""
    if isinstance(waveform, np.ndarray):
        if waveform.dtype.kind != "f":
            raise _wrong_dtype(str(waveform.dtype))
        waveform = torch.from_numpy(np.array(waveform, dtype=np.float32))
    if not isinstance(waveform, torch.Tensor) or not waveform.is_floating_point():
        raise _wrong_dtype(str(getattr(waveform, "dtype", type(waveform).__name__)))
    if waveform.ndim != 1:
        raise CodecInputError(
            "codec_waveform_shape",
            f"waveform: shape {list(waveform.shape)}, expected (samples,): mix to mono first",
        )
    if not waveform.numel():
        raise CodecInputError("codec_waveform_empty", "waveform: no samples")
    samples = waveform.detach().to(device=device, dtype=torch.float32)
    if not bool(torch.isfinite(samples).all()):
        index = int((~torch.isfinite(samples)).nonzero()[0])
        raise CodecInputError("codec_waveform_not_finite", f"waveform[{index}] is {samples[index].item()}")
    return samples


def _wrong_dtype(found: str) -> CodecInputError:
    return CodecInputError(
        "codec_waveform_dtype",
        f"waveform: {found}, expected a numpy array or tensor of floats between -1 and 1",
    )


def _first_outside(codes: torch.Tensor, codebook_size: int) -> str:
    row, column = (int(index) for index in ((codes < 0) | (codes >= codebook_size)).nonzero()[0])
    return f"[{row}, {column}] is {int(codes[row, column])}, expected 0 to {codebook_size - 1}"
