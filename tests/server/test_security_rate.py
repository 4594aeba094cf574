"""Buckets, counts of sessions, and buckets by address."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.server.rate import AddressLimits, SessionLimits, TokenBucket

amounts = st.floats(0, 50)


def test_a_burst_passes_and_then_the_rate() -> None:
    bucket = TokenBucket(10, 3)
    assert [bucket.take(1, 100.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(1, 100.0) == pytest.approx(0.1)
    assert bucket.take(1, 100.1) == 0
    assert bucket.take(1, 100.1) == pytest.approx(0.1)


def test_a_refusal_costs_nothing() -> None:
    bucket = TokenBucket(1, 1)
    bucket.take(1, 0)
    assert {bucket.take(1, 0.0) for _ in range(100)} == {1.0}


def test_more_than_the_burst_passes_when_full_and_is_paid_off() -> None:
    bucket = TokenBucket(10, 5)
    assert bucket.take(25, 0.0) == 0
    assert bucket.take(1, 0.0) == pytest.approx(2.1)
    assert bucket.take(25, 1.0) == pytest.approx(1.5)
    assert bucket.take(25, 2.5) == 0


def test_a_clock_that_goes_back_fills_nothing() -> None:
    bucket = TokenBucket(1, 1)
    bucket.take(1, 1000.0)
    assert bucket.take(1, 0.0) == 1
    assert bucket.take(1, 1.0) == 0


@given(st.lists(st.tuples(amounts, st.floats(0, 10)), max_size=30), st.floats(0.01, 1e6), st.floats(0.1, 1e6))
def test_never_more_than_burst_and_rate_pass_and_waiting_as_told_suffices(
    takes: list[tuple[float, float]], rate_per_s: float, burst: float
) -> None:
    bucket, now_s, passed, largest = TokenBucket(rate_per_s, burst), 1e6, 0.0, 0.0
    for n, pause_s in takes:
        now_s += pause_s
        wait_s = bucket.take(n, now_s)
        if wait_s:
            now_s += wait_s
            assert bucket.take(n, now_s) <= 1e-8
        passed, largest = passed + n, max(largest, n)
    # Only the last one can still be in debt.
    assert passed <= (burst + largest + rate_per_s * (now_s - 1e6)) * 1.001 + 1e-3


@pytest.mark.parametrize("n", [-1, math.nan, math.inf])
def test_an_amount_that_is_none_is_refused(n: float) -> None:
    with pytest.raises(ValueError, match="n is"):
        TokenBucket(1, 1).take(n, 0)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (1, 0), (-1, 1), (math.nan, 1), (math.inf, 1)])
def test_a_bucket_that_would_never_fill_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="expected more than 0"):
        TokenBucket(rate, burst)


def test_sessions_are_counted_by_name_and_forgotten_at_zero() -> None:
    limits = SessionLimits(2)
    assert [limits.acquire("a"), limits.acquire("a"), limits.acquire("a")] == [True, True, False]
    assert limits.acquire("b")
    limits.release("a")
    assert limits.running("a") == 1
    assert limits.acquire("a")
    for name in "aab":
        limits.release(name)
    assert len(limits) == 0


def test_a_keys_own_limit_takes_the_place_of_the_servers() -> None:
    limits = SessionLimits(2)
    assert [limits.acquire("small", 1) for _ in range(2)] == [True, False]
    assert [limits.acquire("large", 3) for _ in range(4)] == [True, True, True, False]
    assert not limits.acquire("none", 0)
    assert len(limits) == 2


def test_a_release_too_many_is_a_bug_that_shows() -> None:
    limits = SessionLimits(2)
    with pytest.raises(RuntimeError, match="'a'"):
        limits.release("a")


def test_addresses_have_a_bucket_each_and_memory_is_bounded() -> None:
    limits = AddressLimits(1, 1, max_addresses=10)
    assert limits.take("10.0.0.1", 0) == 0
    assert limits.take("10.0.0.1", 0) == 1
    for n in range(1000):
        assert limits.take(f"10.1.{n // 256}.{n % 256}", 0) == 0
        # One that keeps coming is not pushed out by strangers.
        assert limits.take("10.0.0.1", 0) == 1
    assert len(limits) == 10


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("10.0.0.1", "10.0.0.2", False),
        (None, "not an address", True),
    ],
)
def test_who_shares_a_bucket(one: str | None, other: str | None, shared: bool) -> None:
    limits = AddressLimits(1, 1)
    limits.take(one, 0)
    assert (limits.take(other, 0) > 0) is shared
