"""Limits by rate and by count; nothing here reads a clock or grows with what peers send."""

from __future__ import annotations

import math
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

# Levels are sums of floats: a wait that was served to the last digit must suffice.
_ROUNDING = 1e-6


class TokenBucket:
    """Lets ``rate_per_s`` through in the long run and ``burst`` at once. What is refused costs nothing.

    Something larger than ``burst`` passes when the bucket is full and is paid off afterwards, so that it can't wait
    for ever.
    """

    __slots__ = ("_burst", "_level", "_rate_per_s", "_then_s")

    def __init__(self, rate_per_s: float, burst: float) -> None:
        if not (0 < rate_per_s < math.inf and 0 < burst < math.inf):
            raise ValueError(f"rate_per_s is {rate_per_s} and burst {burst}, expected more than 0")
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._level = float(burst)
        self._then_s = -math.inf

    def take(self, n: float, now_s: float) -> float:
        """Take ``n`` at ``now_s``, by any clock: 0 if they were there, otherwise nothing is taken and the seconds to
        wait are given. A clock that goes back fills nothing."""
        if not 0 <= n < math.inf:
            raise ValueError(f"n is {n}, expected 0 or more")
        if now_s > self._then_s:
            self._level = min(self._burst, self._level + (now_s - self._then_s) * self._rate_per_s)
        self._then_s = now_s
        missing = min(n, self._burst) - self._level
        if missing > _ROUNDING:
            return missing / self._rate_per_s
        self._level -= n
        return 0.0


class SessionLimits:
    """Counts running sessions by name. A name without sessions takes no memory."""

    def __init__(self, max_per_key: int) -> None:
        self._max_per_key = max_per_key
        self._running: dict[str, int] = {}

    def acquire(self, name: str, limit: int | None = None) -> bool:
        """Count one more session of ``name``, unless it has ``limit`` of them (None: ``max_per_key``) already."""
        running = self._running.get(name, 0)
        if running >= (self._max_per_key if limit is None else limit):
            return False
        self._running[name] = running + 1
        return True

    def release(self, name: str) -> None:
        """A session of ``name`` has ended. RuntimeError if none was running: a bug of the caller."""
        running = self._running.get(name, 0)
        if running == 0:
            raise RuntimeError(f"a session of {name!r} was released that was not acquired")
        if running == 1:
            del self._running[name]
        else:
            self._running[name] = running - 1

    def running(self, name: str) -> int:
        """How many sessions of ``name`` run."""
        return self._running.get(name, 0)

    def __len__(self) -> int:
        """Names with sessions."""
        return len(self._running)


class AddressLimits:
    """A bucket for each peer address, for at most ``max_addresses``: beyond, the one unheard of longest starts anew.

    The addresses of an IPv6 /64 share one, since its owner can take any of them.
    """

    def __init__(self, rate_per_s: float, burst: float, max_addresses: int = 4096) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._max_addresses = max_addresses
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, address: str | None, now_s: float) -> float:
        """Take one for this address: 0 if it was there, else the seconds to wait. Peers without address share one."""
        group = _group(address)
        bucket = self._buckets.get(group)
        if bucket is None:
            if len(self._buckets) >= self._max_addresses:
                self._buckets.popitem(last=False)
            bucket = self._buckets[group] = TokenBucket(self._rate_per_s, self._burst)
        self._buckets.move_to_end(group)
        return bucket.take(1, now_s)

    def __len__(self) -> int:
        """Addresses remembered."""
        return len(self._buckets)


def _group(address: str | None) -> str:
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return ""
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or (int(parsed) >> 64))
