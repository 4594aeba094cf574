"""``python -m training.picture --audio out/demo.opus --out docs/demo.svg``: a recording and what is heard in it.

The words under the waveform are whisper-base's, at the times where it heard them.
"""

from __future__ import annotations

import argparse
import html
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from streamer.evaluation.judges import HeardWord, Recogniser

_WIDTH, _HEIGHT, _MARGIN = 960, 200, 12
_WAVE_HEIGHT = 130
_COLUMNS = 480
_CHARACTER_WIDTH = 7.0
# Grey enough to be seen on a white page and on a dark one.
_WAVE, _INK = "#2a8fc4", "#808890"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the picture and print the transcript."""
    parser = argparse.ArgumentParser(prog="python -m training.picture", description="Draw a recording.")
    parser.add_argument("--audio", type=Path, required=True, metavar="FILE", help="WAV, FLAC, Ogg or MP3")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="SVG file to write")
    parser.add_argument("--whisper", type=Path, metavar="DIR", help="CTranslate2 whisper model (default: its packages)")
    options = parser.parse_args(arguments)
    samples, sample_rate = soundfile.read(options.audio, dtype="float32", always_2d=True)
    mono = samples.mean(1)
    words = Recogniser(options.whisper).timed_words(mono, sample_rate)
    options.out.write_text(draw(mono, sample_rate, words), encoding="utf-8")
    print(" ".join(word.text for word in words))
    return 0


def draw(samples: npt.NDArray[np.float32], sample_rate: int, words: Sequence[HeardWord]) -> str:
    """An SVG: the envelope of (n,) samples, seconds, and words where they are heard, in rows that do not overlap."""
    seconds = max(len(samples), 1) / sample_rate
    inner = _WIDTH - 2 * _MARGIN
    columns = np.array_split(samples, _COLUMNS)
    loudest = max(float(np.abs(samples).max(initial=0.0)), 1e-6)
    middle, scale = _WAVE_HEIGHT / 2, (_WAVE_HEIGHT / 2 - 4) / loudest
    bars = "".join(
        f"M{_MARGIN + (i + 0.5) * inner / _COLUMNS:.1f} "
        f"{middle - column.max() * scale:.1f}V{middle - column.min() * scale:.1f}"
        for i, column in enumerate(columns)
        if len(column)
    )
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
    parts = [
        f'<svg {head} font-size="13">',
        f'<path d="{bars}" stroke="{_WAVE}" stroke-width="1.4" fill="none"/>',
    ]
    for second in range(int(seconds) + 1):
        x = _MARGIN + second / seconds * inner
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 4}" font-size="10" fill="{_INK}">{second} s</text>')
    ends = [0.0, 0.0, 0.0]
    for word in words:
        x = _MARGIN + word.start_s / seconds * inner
        row = next((i for i, end in enumerate(ends) if end <= x), ends.index(min(ends)))
        ends[row] = x + _CHARACTER_WIDTH * (len(word.text) + 1)
        y = _WAVE_HEIGHT + 14 + 16 * row
        parts.append(f'<text x="{x:.1f}" y="{y}" fill="{_INK}">{html.escape(word.text)}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    sys.exit(main())
