"""How much of what was sent the caller has heard. No clock inside: every method is told the time, in seconds."""

from __future__ import annotations

import math
from collections import deque


class Playhead:
    """Counts all audio that the caller heard or will hear, in milliseconds.

    Marks come back when the audio before them was played. In between, time tells: audio is played without a pause, but
    no further than the first mark that is still out.
    """

    def __init__(self) -> None:
        self.sent_ms = 0.0
        self.confirmed_ms = 0.0
        self._confirmed_at_s = 0.0
        self._marks: deque[tuple[str, float]] = deque()
        self._marked_ms = 0.0
        self._n_marks = 0

    @property
    def unmarked_ms(self) -> float:
        """Audio sent since the last mark."""
        return self.sent_ms - self._marked_ms

    def send(self, audio_ms: float, now_s: float) -> None:
        """Audio goes to the phone."""
        if self.confirmed_ms >= self.sent_ms:
            # It was silent, so this begins to play now.
            self._confirmed_at_s = now_s
        self.sent_ms += audio_ms

    def mark(self) -> str:
        """Name a mark to be sent after the audio so far."""
        self._n_marks += 1
        name = str(self._n_marks)
        self._marks.append((name, self.sent_ms))
        self._marked_ms = self.sent_ms
        return name

    def returned(self, name: str, now_s: float) -> bool:
        """A mark came back; False if it is not one that is out."""
        if name not in (known for known, _ in self._marks):
            return False
        while self._marks:
            known, at_ms = self._marks.popleft()
            self.confirmed_ms, self._confirmed_at_s = at_ms, now_s
            if known == name:
                break
        return True

    def heard_ms(self, now_s: float) -> float:
        """How much was heard by now, as far as can be known."""
        elapsed_ms = max(now_s - self._confirmed_at_s, 0.0) * 1000
        limit_ms = self._marks[0][1] if self._marks else self.sent_ms
        return min(self.confirmed_ms + elapsed_ms, limit_ms)

    def cut(self, now_s: float) -> int:
        """What was not heard yet never will be; returns how much was. Marks that are out no longer mean anything."""
        heard_ms = math.floor(self.heard_ms(now_s))
        self.sent_ms = self.confirmed_ms = self._marked_ms = heard_ms
        self._marks.clear()
        return heard_ms
