"""A turn whose first frame is decoded early, from the codebooks known so far, against the same turn decoded in full.

Only that frame's 80 ms differ: the codec's state is computed again with the whole frame, once it is known.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from streamer.audio import OpusEncoder
from streamer.codec import DecodeStream
from streamer.evaluation.signals import border_clicks
from streamer_client import OpusDecoder

Samples = npt.NDArray[np.float32]
SAMPLE_RATE = 24_000
_QUIETEST_DBFS = -100.0
_MEL_BANDS, _FFT, _HOP = 80, 1024, 240
# Mel cells this far below a turn's loud ones are nothing that a listener hears beside them.
_MEL_RANGE_DB = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class EarlyTurn:
    """One turn: ``full`` as it is decoded by waiting, and its first frame from the first 1, 2, … n_vq codebooks.

    full: (samples,) float32; first_frames: (n_vq, 1920) float32, the last of which is the beginning of ``full``.
    ``before`` is what the same dialogue's listener heard last, at most 80 ms of it.
    """

    dialogue: int
    turn: int
    text: str
    before: Samples
    full: Samples
    first_frames: Samples

    def early(self, n_codebooks: int) -> Samples:
        """The turn with its first frame from ``n_codebooks``."""
        frame = self.first_frames[n_codebooks - 1]
        return np.concatenate((frame, self.full[len(frame) :]))


@dataclass(frozen=True, slots=True)
class EarlyMeasures:
    """One turn's first frame from ``n_codebooks`` against waiting for all.

    ``mel_80_db``, ``mel_160_db``: RMS difference of log-mel cells over the first 80 and 160 ms. ``level_dbfs``: RMS of
    the frame; ``difference_dbfs``: RMS of what was added or taken. ``seam_ratio``: squared second difference across the
    frame's end by that of its surroundings, None where that is silence; ``seam_click``: over 8 times their RMS.
    """

    n_codebooks: int
    mel_80_db: float
    mel_160_db: float
    level_dbfs: float
    difference_dbfs: float
    seam_ratio: float | None
    seam_click: bool


def decode_early(stream: DecodeStream, codes: torch.Tensor) -> tuple[Samples, Samples]:
    """Decode a turn's codes (frames, n_vq) with the session's ``stream``, which moves on.

    Returns all of it, (samples,), and its first frame from each number of codebooks, (n_vq, frame_samples).
    """
    prefixes = [copy.deepcopy(stream).push(codes[:1, :k]) for k in range(1, codes.shape[1] + 1)]
    full = stream.push(codes)
    return full.cpu().numpy(), torch.stack(prefixes).cpu().numpy()


def measure_early(turn: EarlyTurn) -> list[EarlyMeasures]:
    """The measures for 1, 2, … n_vq codebooks; those of the last are zero differences."""
    frame_samples = turn.first_frames.shape[1]
    full = turn.full[:frame_samples]
    measures = []
    for k, frame in enumerate(turn.first_frames, start=1):
        samples = turn.early(k)
        mel_80_db, mel_160_db = mel_distances_db(turn, samples)
        # Long enough for the first border, too short for the second.
        seam = border_clicks(samples[: 2 * frame_samples - 1], SAMPLE_RATE, frame_samples)
        difference_dbfs = dbfs(frame - full)
        measures.append(
            EarlyMeasures(k, mel_80_db, mel_160_db, dbfs(frame), difference_dbfs, seam.ratio, seam.n_clicks > 0)
        )
    return measures


def mel_distances_db(turn: EarlyTurn, samples: Samples) -> tuple[float, float]:
    """RMS difference in dB of log-mel cells between ``samples`` and the turn as it should be: first 80 ms, 160 ms."""
    frame_samples = turn.first_frames.shape[1]
    floor_db = float(np.percentile(log_mel_db(turn.before, turn.full), 95)) - _MEL_RANGE_DB
    near, wanted = (log_mel_db(turn.before, sound[: 3 * frame_samples]) for sound in (samples, turn.full))
    apart = np.maximum(near, floor_db) - np.maximum(wanted, floor_db)
    per_frame = frame_samples // _HOP
    return _rms(apart[:per_frame]), _rms(apart[: 2 * per_frame])


def opus_copy(turn: EarlyTurn) -> Samples:
    """The turn as it comes out of the server's Opus: what the listener gets anyway, as a yardstick for distances."""
    encoder, decoder = OpusEncoder(), OpusDecoder(SAMPLE_RATE)
    sound = np.concatenate((turn.before, turn.full, np.zeros(encoder.frame_samples, np.float32)))
    packets = [encoder.encode(frame) for frame in sound.reshape(-1, encoder.frame_samples)]
    decoded = np.concatenate([decoder.decode(packet) for packet in packets])
    start = len(turn.before) + encoder.lookahead_samples
    encoder.close()
    return decoded[start : start + len(turn.full)]


def log_mel_db(before: Samples, samples: Samples) -> npt.NDArray[np.float64]:
    """(samples // 240, 80) mel powers in dB, one for each 10 ms, seen through 43 ms around its middle.

    ``before``: the sound that comes before; silence where there is less of it than the first window needs.
    """
    lead = np.concatenate((np.zeros(_FFT, np.float32), before))[-(_FFT - _HOP) // 2 :]
    padded = np.concatenate((lead, samples, np.zeros(_FFT, np.float32))).astype(np.float64)
    starts = np.arange(len(samples) // _HOP) * _HOP
    windows = padded[starts[:, None] + np.arange(_FFT)] * np.hanning(_FFT)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2 / _FFT
    return 10 * np.log10(power @ _mel_filters().T + 1e-12)


def dbfs(samples: Samples) -> float:
    """RMS in dBFS, at least -100."""
    return max(10 * float(np.log10(np.mean(samples.astype(np.float64) ** 2) + 1e-20)), _QUIETEST_DBFS)


def rows_until_gapless(n_vq: int, step_ms: float, frame_ms: float = 80.0) -> int:
    """After how many rows the first frame may be played, so that the second is there when it has been.

    The second frame needs n_vq + 1 rows; the first hides only the rows that are made while it plays.
    """
    return min(n_vq, max(1, n_vq + 1 - int(frame_ms / step_ms)))


def _mel_filters() -> npt.NDArray[np.float64]:
    """(80, 513) triangles, evenly spaced in mel (O'Shaughnessy's formula) from 0 Hz to 12 kHz."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, _MEL_BANDS + 2) / 2595) - 1)
    hertz = np.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1)
    low, middle, high = (edges[i : i + _MEL_BANDS, None] for i in range(3))
    return np.clip(np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, None)


def _rms(values: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))
