"""How a connection behaves: what has a good value already and rarely needs another."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

_MAX_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """When to try again: at once, then after a random part of `base_s`, of `factor` times that, up to `cap_s`."""

    base_s: float = 0.25
    factor: float = 2.0
    cap_s: float = 10.0

    def delay_s(self, attempt: int, random: Random) -> float:
        """How long to wait before attempt 1, 2, ... (full jitter: many clients of one server spread out)."""
        if attempt <= 1:
            return 0.0
        return random.uniform(0.0, min(self.cap_s, self.base_s * self.factor ** min(attempt - 2, _MAX_DOUBLINGS)))


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """`heartbeat_s`: the server is pinged so often, and taken for dead if no answer comes for as long again.

    `attempt_timeout_s`: what one attempt to reconnect may take. `max_held_bytes`: events of one dialogue that wait to
    be read; about four hours of Opus. `unread_patience_s`: how long a dialogue whose events fill that up may hold up
    the others of its connection. `max_unsent_bytes`: messages of one dialogue that the server is not known to have.
    """

    backoff: Backoff = field(default_factory=Backoff)
    heartbeat_s: float = 10.0
    attempt_timeout_s: float = 5.0
    close_timeout_s: float = 5.0
    max_held_bytes: int = 64 * 2**20
    unread_patience_s: float = 5.0
    max_unsent_bytes: int = 2**20
