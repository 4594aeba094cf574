"""How much audio a listener still has in hand. No clock inside: every method is told the time, in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class PlaybackClock:
    """One session's listener, who plays what comes without a pause until nothing is left.

    ``made_s``: audio made for the listener and not flushed. ``dry_at_s``: when the last of it will have been played.
    """

    made_s: float = 0.0
    dry_at_s: float = -math.inf

    @property
    def started(self) -> bool:
        """Whether the session has ever spoken."""
        return self.dry_at_s > -math.inf

    def lead_s(self, now_s: float) -> float:
        """Audio in hand, never below 0: silence between two turns is nothing to catch up with."""
        return max(0.0, self.dry_at_s - now_s)

    def late_s(self, now_s: float) -> float:
        """How long the listener has been without audio; 0 before the first."""
        return max(0.0, now_s - self.dry_at_s) if self.started else 0.0

    def add(self, audio_s: float, now_s: float) -> None:
        """Audio was made and goes to the listener."""
        self.made_s += audio_s
        self.dry_at_s = max(self.dry_at_s, now_s) + audio_s

    def played(self, played_s: float, now_s: float) -> None:
        """The listener's own report: how much of ``made_s`` was heard. It corrects what was assumed."""
        if self.started:
            self.dry_at_s = now_s + self.made_s - min(max(played_s, 0.0), self.made_s)

    def flush(self, audio_s: float, now_s: float) -> None:
        """The newest ``audio_s`` will not be heard, but for what was played already."""
        unheard_s = min(audio_s, self.lead_s(now_s))
        self.made_s -= unheard_s
        self.dry_at_s -= unheard_s
