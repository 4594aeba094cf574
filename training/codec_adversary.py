"""Discriminators that tell the codec's output from speech, and the gradient that they give the codec.

Spectrogram discriminators at several resolutions with hinge loss and feature matching, as in EnCodec (Défossez et
al., 2022). They learn alone first: untrained ones push the codec anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

WINDOWS_SAMPLES = (2048, 1024, 512, 256)
_CHANNELS = 32
_FEATURE_WEIGHT = 2.0
_COMPRESSION = -0.6


class SpectrogramDiscriminator(nn.Module):
    """Convolutions over one complex spectrogram; a verdict for each place in it."""

    window: torch.Tensor

    def __init__(self, window_samples: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window_samples))
        layers = [_convolution(2, channels, (3, 9))]
        layers += [_convolution(channels, channels, (3, 9), stride=(1, 2), dilation=(rate, 1)) for rate in (1, 2, 4)]
        layers += [_convolution(channels, channels, (3, 3)), _convolution(channels, 1, (3, 3))]
        self.layers = nn.ModuleList(layers)

    def forward(self, samples: torch.Tensor) -> list[torch.Tensor]:
        """(B, N) -> what each layer makes of it, the verdict last."""
        n = len(self.window)
        spectrum = torch.stft(samples, n, n // 4, window=self.window, pad_mode="constant", return_complex=True)
        parts = torch.view_as_real(spectrum.transpose(1, 2)).permute(0, 3, 1, 2) / math.sqrt(n)  # (B, 2, T, F)
        size = torch.sqrt(parts.square().sum(1, keepdim=True) + 1e-6)
        x = parts * size**_COMPRESSION  # loud and quiet places closer together
        features = []
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x.float())
        return [*features, self.layers[-1](x).float()]


class Adversary:
    """The discriminators and their optimiser."""

    def __init__(
        self, seed: int, device: torch.device, windows: Sequence[int] = WINDOWS_SAMPLES, channels: int = _CHANNELS
    ) -> None:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            discriminators = [SpectrogramDiscriminator(window, channels) for window in windows]
        self.discriminators = nn.ModuleList(discriminators).to(device)
        self._device = device
        self._optimizer = torch.optim.AdamW(self.discriminators.parameters(), lr=3e-4, betas=(0.8, 0.95))

    def train(self, made: torch.Tensor, target: torch.Tensor) -> float:
        """One step of the discriminators on two of (B, N); their loss, 2 where they can tell nothing."""
        self.discriminators.requires_grad_(True)
        self._optimizer.zero_grad()
        losses = []
        for discriminator in self.discriminators:
            with torch.autocast(self._device.type, dtype=torch.bfloat16):
                false, true = discriminator(made.detach())[-1], discriminator(target)[-1]
            losses.append(F.relu(1 + false).mean() + F.relu(1 - true).mean())
        loss = torch.stack(losses).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.discriminators.parameters(), 1.0)
        self._optimizer.step()
        return loss.item()

    def gradient(self, made: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Which way ``made`` (B, N) goes to be taken for speech, as the gradient of a loss; (B, N)."""
        self.discriminators.requires_grad_(False)
        made = made.detach().requires_grad_()
        losses = []
        for discriminator in self.discriminators:
            with torch.autocast(self._device.type, dtype=torch.bfloat16):
                *false, verdict = discriminator(made)
                with torch.no_grad():
                    *true, _ = discriminator(target)
            pairs = zip(false, true, strict=True)
            matching = torch.stack([(a - b).abs().mean() / b.abs().mean().clamp_min(1e-4) for a, b in pairs]).mean()
            losses.append(_FEATURE_WEIGHT * matching - verdict.mean())
        (gradient,) = torch.autograd.grad(torch.stack(losses).mean(), made)
        return gradient

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` takes."""
        return {"discriminators": self.discriminators.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another adversary stood."""
        self.discriminators.load_state_dict(state["discriminators"])
        self._optimizer.load_state_dict(state["optimizer"])


def _convolution(
    n_in: int,
    n_out: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> nn.Module:
    padding = (kernel[0] - 1) * dilation[0] // 2, (kernel[1] - 1) * dilation[1] // 2
    return weight_norm(nn.Conv2d(n_in, n_out, kernel, stride, padding, dilation))
