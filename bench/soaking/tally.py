"""What happened during a soak, counted; and what must not have happened, word for word."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_MAX_PROBLEMS = 100


@dataclass(slots=True)
class Tally:
    """Counts of both ends. ``problems`` are the things that should not be, the first hundred of them."""

    sent: int = 0
    received: int = 0
    frames: int = 0
    gaps: int = 0
    connects: int = 0
    resumes: int = 0
    turns: Counter[str] = field(default_factory=Counter)
    disconnects: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    n_problems: int = 0

    def problem(self, text: str) -> None:
        """Something that should not be."""
        self.n_problems += 1
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(text[:500])

    def gap(self, text: str) -> None:
        """A frame number that skips or repeats."""
        self.gaps += 1
        self.problem(text)

    def report(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "messages_sent": self.sent,
            "messages_received": self.received,
            "frames_received": self.frames,
            "gaps_in_frame_numbers": self.gaps,
            "connects": self.connects,
            "disconnects": dict(self.disconnects.most_common()),
            "refusals": dict(self.refusals.most_common()),
            "resumes": self.resumes,
            "turns": dict(self.turns.most_common()),
            "errors_that_should_not_be": self.n_problems,
            "problems": self.problems,
        }
