"""What can be measured in a turn's samples without a judge: silence, noise before the first word, border clicks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
# Samples below -40 dBFS are silence; so is a stretch whose RMS lies below it.
SILENCE = 0.01
# What lies this far below the loudest parts of a turn is not yet speech.
_ONSET_BELOW_DB = 20.0
_BLOCK_SECONDS = 0.02
_QUIETEST_DBFS = -100.0
_NEAR_SECONDS = 0.01
_CLICK_FACTOR = 8.0


@dataclass(frozen=True, slots=True)
class BorderClicks:
    """How rough a turn is where codec frames meet.

    ``ratio``: mean over the ``n_borders`` borders in loud parts of the mean squared second difference across the
    border divided by that of the 10 ms on either side; 1 where nothing marks the border, None without a border.
    ``n_clicks``: borders whose second difference is more than 8 times the RMS of its surroundings.
    """

    n_borders: int
    n_clicks: int
    ratio: float | None


def silence_seconds(samples: Samples, sample_rate: int) -> tuple[float, float]:
    """Silence before the first and after the last sample that is louder than -40 dBFS.

    A turn without such a sample is silence before its first word.
    """
    loud = np.flatnonzero(np.abs(samples) > SILENCE)
    if len(loud) == 0:
        return len(samples) / sample_rate, 0.0
    return float(loud[0]) / sample_rate, float(len(samples) - 1 - loud[-1]) / sample_rate


def lead_noise_dbfs(samples: Samples, sample_rate: int) -> float | None:
    """RMS in dBFS, at least -100, of what comes before speech; None where speech begins at once.

    Speech begins with the first 20 ms whose RMS is within 20 dB of the turn's loud ones (their 95th percentile).
    """
    block = int(_BLOCK_SECONDS * sample_rate)
    blocks = samples[: len(samples) - len(samples) % block].reshape(-1, block).astype(np.float64)
    if len(blocks) == 0:
        return None
    powers = np.mean(blocks**2, axis=1)
    threshold = np.percentile(powers, 95) * 10 ** (-_ONSET_BELOW_DB / 10)
    onset = int(np.argmax(powers >= threshold))
    if onset == 0:
        return None
    return float(max(10 * np.log10(np.mean(powers[:onset]) + 1e-20), _QUIETEST_DBFS))


def border_clicks(samples: Samples, sample_rate: int, frame_samples: int) -> BorderClicks:
    """Measure the borders of a turn that begins with a frame; ``frame_samples`` at ``sample_rate``."""
    near = int(_NEAR_SECONDS * sample_rate)
    sound = samples.astype(np.float64)
    ratios, n_clicks = [], 0
    for border in range(frame_samples, len(sound) - near + 1, frame_samples):
        around = sound[border - near : border + near]
        if np.sqrt(np.mean(around**2)) < SILENCE:
            continue
        bend = np.diff(around, n=2) ** 2
        # Centred on the last sample of one frame and on the first of the next.
        across, elsewhere = bend[near - 2 : near], np.delete(bend, [near - 2, near - 1])
        local = max(float(np.mean(elsewhere)), 1e-12)
        ratios.append(float(np.mean(across)) / local)
        n_clicks += bool(np.max(across) > _CLICK_FACTOR**2 * local)
    return BorderClicks(len(ratios), n_clicks, float(np.mean(ratios)) if ratios else None)
