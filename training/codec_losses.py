"""What codec training measures: spectra at several resolutions, and clicks where the decoder's patches meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

_MAGNITUDE_FLOOR, _LOG_FLOOR = 1e-7, 1e-4
_RELATIVE_WEIGHT, _RELATIVE_FLOOR = 0.5, 1e-3
# The energy of a second difference below which nothing is heard: an amplitude of 1e-4.
_QUIET_ENERGY = 1e-8
_PLACE_SAMPLES, _SEGMENT_PATCHES = 4, 64
_HARMONIC_SCALE, _HARMONIC_HOP_SAMPLES, _HARMONIC_LIMIT_HZ = 0, 256, 1200.0


@dataclass(frozen=True, slots=True)
class Scale:
    """One resolution: Hann window and hop in samples, mel bands, or 0 for the bins as they are."""

    window_samples: int
    hop_samples: int
    n_mels: int


SCALES = (
    Scale(2048, 512, 100),
    Scale(1024, 256, 80),
    Scale(512, 128, 64),
    Scale(256, 64, 0),
    Scale(128, 32, 0),
)
# Which of SCALES a step may use, one of each: all of them every step would take nearly twice as long.
SCALE_GROUPS = ((0, 1), (2,), (3, 4))


class SpectralLoss(nn.Module):
    """Log and relative distance of magnitudes, the mean over some of SCALES."""

    def __init__(self, sampling_rate: int) -> None:
        super().__init__()
        self._sampling_rate = sampling_rate
        for index, scale in enumerate(SCALES):
            self.register_buffer(f"window{index}", torch.hann_window(scale.window_samples))
            if scale.n_mels:
                bands = mel_bands(sampling_rate, scale.window_samples, scale.n_mels)
                self.register_buffer(f"mels{index}", bands)

    def forward(self, made: torch.Tensor, target: torch.Tensor, scales: Sequence[int]) -> torch.Tensor:
        """Two of (B, N) float32 -> (); ``scales`` are indices into SCALES."""
        losses = []
        for index in scales:
            a, b = self.magnitudes(made, index), self.magnitudes(target, index)
            logarithmic = (torch.log(a + _LOG_FLOOR) - torch.log(b + _LOG_FLOOR)).abs().mean()
            relative = (a - b).abs().mean() / (b.mean() + _RELATIVE_FLOOR)
            losses.append(logarithmic + _RELATIVE_WEIGHT * relative)
        return torch.stack(losses).mean()

    def harmonic(self, made: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Log distance below 1.2 kHz at a resolution of 12 Hz, which tells a deep voice's harmonics apart, ().

        The mean over mel bands hardly feels them: a whisper in the right bands costs it little more than a voice.
        """
        size = SCALES[_HARMONIC_SCALE].window_samples
        n_bins = int(_HARMONIC_LIMIT_HZ * size / self._sampling_rate)

        def low_bins(samples: torch.Tensor) -> torch.Tensor:
            window = getattr(self, f"window{_HARMONIC_SCALE}")
            spectrum = torch.stft(
                samples, size, _HARMONIC_HOP_SAMPLES, window=window, pad_mode="constant", return_complex=True
            )[:, :n_bins]
            power = spectrum.real.square() + spectrum.imag.square()
            return torch.log(torch.sqrt(power + _MAGNITUDE_FLOOR) / math.sqrt(size) + _LOG_FLOOR)

        return (low_bins(made) - low_bins(target)).abs().mean()

    def magnitudes(self, samples: torch.Tensor, index: int) -> torch.Tensor:
        """(B, N) -> (B, bands, hops)."""
        scale = SCALES[index]
        window = getattr(self, f"window{index}")
        spectrum = torch.stft(
            samples, scale.window_samples, scale.hop_samples, window=window, pad_mode="constant", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        size = torch.sqrt(power + _MAGNITUDE_FLOOR) / math.sqrt(scale.window_samples)
        return getattr(self, f"mels{index}") @ size if scale.n_mels else size


def mel_bands(sampling_rate: int, window_samples: int, n_mels: int) -> torch.Tensor:
    """(n_mels, window / 2 + 1): triangles evenly spaced on the mel scale (O'Shaughnessy, 1987), each of sum 1."""

    def to_mel(hertz: torch.Tensor) -> torch.Tensor:
        return 2595 * torch.log10(1 + hertz / 700)

    bins = torch.linspace(0, sampling_rate / 2, window_samples // 2 + 1, dtype=torch.float64)
    edges_mel = torch.linspace(0, float(to_mel(bins[-1])), n_mels + 2, dtype=torch.float64)
    edges = 700 * (10 ** (edges_mel / 2595) - 1)
    # A triangle narrower than the bins would be empty: none is narrower than one bin on either side.
    spacing = float(bins[1])
    low = torch.minimum(edges[:-2], edges[1:-1] - spacing)[:, None]
    high = torch.maximum(edges[2:], edges[1:-1] + spacing)[:, None]
    middle = edges[1:-1, None]
    bands = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp_min(0)
    return (bands / bands.sum(1, keepdim=True)).float()


def profile_distance(made: torch.Tensor, target: torch.Tensor, patch_samples: int) -> torch.Tensor:
    """How differently the energy of the second difference is spread inside the decoder's patches, (); two of (B, N).

    A decoder that fills patch after patch comes to place its clicks and its noise always at the same samples, which is
    heard as a buzz. Speech knows no patches: over some 60 of them its energy is the same at every sample. Measured
    twice: with all patches alike, as clicks are heard where it is quiet, and with loud ones (the fricatives) first.
    """
    return (_profiles(made, patch_samples) - _profiles(target, patch_samples)).square().mean()


def border_ratio(samples: torch.Tensor, border_samples: int) -> float:
    """Energy of the second difference across the borders by its mean everywhere, of (B, N): 1 means no clicks."""
    energy = _second_difference_energy(samples)
    return (_at_borders(energy, border_samples).mean() / energy.mean().clamp_min(1e-20)).item()


def _profiles(samples: torch.Tensor, patch_samples: int) -> torch.Tensor:
    """(B, N) -> (B, segments, 2, places): mean log(1 + r), r being the energy of a place by that of its patch."""
    place_samples = math.gcd(patch_samples, _PLACE_SAMPLES)
    energy = _second_difference_energy(samples).unflatten(1, (-1, patch_samples // place_samples, place_samples))
    places = energy.mean(3)
    patches = places.mean(2, keepdim=True)
    measure = torch.log1p(places / (patches + _QUIET_ENERGY))
    loudness = torch.sqrt(patches.detach() + _QUIET_ENERGY)
    segments = []
    for part, weight in zip(measure.split(_SEGMENT_PATCHES, 1), loudness.split(_SEGMENT_PATCHES, 1), strict=True):
        segments.append(torch.stack((part.mean(1), (part * weight).sum(1) / weight.sum(1)), 1))
    return torch.stack(segments, 1)


def _second_difference_energy(samples: torch.Tensor) -> torch.Tensor:
    """(B, N) -> (B, N): of x[n-1] - 2 x[n] + x[n+1]; the ends, where a neighbour is missing, are 0."""
    inner = samples[:, :-2] - 2 * samples[:, 1:-1] + samples[:, 2:]
    return F.pad(inner.square(), (1, 1))


def _at_borders(energy: torch.Tensor, border_samples: int) -> torch.Tensor:
    """(B, N) -> (B, borders, 2): the two samples that meet at each inner border."""
    half = border_samples // 2
    inner = energy[:, half : energy.shape[1] - (border_samples - half)]
    return inner.unflatten(1, (-1, border_samples))[..., border_samples - half - 1 : border_samples - half + 1]
