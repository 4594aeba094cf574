"""What the bits of a row's state mean."""

from __future__ import annotations

FRAME = 1
CODES_COMPLETE = 2
AUDIO_ENDED = 4
