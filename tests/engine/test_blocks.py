"""Block bookkeeping: nothing lost, nothing held twice, prefixes shared only where all rows are equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.engine.blocks import BlockManager, Lease


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, (n, 5))


def publish_all(blocks: BlockManager, lease: Lease, keys: list[bytes]) -> None:
    for block, key in zip(lease.blocks, keys, strict=False):
        blocks.publish(block, key)


def test_equal_leading_rows_are_shared() -> None:
    blocks = BlockManager(10, 16)
    prompt = rows(40)
    keys = blocks.prefix_keys(prompt)
    assert len(keys) == 2
    first = blocks.acquire(keys, 4)
    assert first is not None
    assert first.n_shared == 0
    publish_all(blocks, first, keys)
    second = blocks.acquire(blocks.prefix_keys(prompt.copy()), 4)
    assert second is not None
    assert second.n_shared == 2
    assert second.blocks[:2] == first.blocks[:2]
    assert not set(second.blocks[2:]) & set(first.blocks)
    assert blocks.n_held == 6


@pytest.mark.parametrize("column", range(5))
def test_one_different_id_in_any_column_ends_the_sharing(column: int) -> None:
    blocks = BlockManager(10, 16)
    prompt = rows(32)
    lease = blocks.acquire([], 2)
    assert lease is not None
    publish_all(blocks, lease, blocks.prefix_keys(prompt))
    other = prompt.copy()
    other[20, column] += 1
    second = blocks.acquire(blocks.prefix_keys(other), 3)
    assert second is not None
    assert second.n_shared == 1


def test_a_released_prefix_is_reused_until_its_space_is_needed() -> None:
    blocks = BlockManager(4, 16)
    keys = blocks.prefix_keys(rows(32))
    lease = blocks.acquire(keys, 3)
    assert lease is not None
    publish_all(blocks, lease, keys)
    assert sorted(blocks.release(lease.blocks)) == sorted(lease.blocks)
    assert blocks.n_held == 0
    again = blocks.acquire(keys, 3)
    assert again is not None
    assert again.n_shared == 2
    blocks.release(again.blocks)
    everything = blocks.acquire([], 4)
    assert everything is not None
    assert blocks.acquire(keys, 1) is None
    blocks.release(everything.blocks)
    fresh = blocks.acquire(keys, 3)
    assert fresh is not None
    assert fresh.n_shared == 0


def test_forgotten_blocks_are_not_shared_again() -> None:
    blocks = BlockManager(4, 16)
    keys = blocks.prefix_keys(rows(32))
    lease = blocks.acquire(keys, 2)
    assert lease is not None
    publish_all(blocks, lease, keys)
    blocks.release(lease.blocks)
    blocks.forget(lease.blocks)
    again = blocks.acquire(keys, 4)
    assert again is not None
    assert again.n_shared == 0


def test_a_block_released_twice_is_an_error() -> None:
    blocks = BlockManager(2, 16)
    lease = blocks.acquire([], 1)
    assert lease is not None
    blocks.release(lease.blocks)
    with pytest.raises(ValueError, match="more often"):
        blocks.release(lease.blocks)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.booleans()), max_size=60))
def test_any_history_keeps_the_books_balanced(steps: list[tuple[int, int, bool]]) -> None:
    blocks = BlockManager(12, 16)
    held: list[Lease] = []
    for seed, n, give_back in steps:
        if give_back and held:
            blocks.release(held.pop(seed % len(held)).blocks)
            continue
        keys = blocks.prefix_keys(rows(16 * (n - 1), seed))
        distinct = {block for lease in held for block in lease.blocks}
        lease = blocks.acquire(keys, n)
        if lease is None:
            assert n > 12 - len(distinct)
            continue
        assert len(set(lease.blocks)) == n
        assert not set(lease.blocks[lease.n_shared :]) & distinct
        publish_all(blocks, lease, keys)
        held.append(lease)
    assert blocks.n_held == len({block for lease in held for block in lease.blocks})
    for lease in held:
        blocks.release(lease.blocks)
    assert blocks.n_held == 0
    assert blocks.acquire([], 12) is not None


def test_blocks_lie_side_by_side_where_they_can() -> None:
    blocks = BlockManager(12, 16)
    first, second, third = (blocks.acquire([], 4) for _ in range(3))
    assert first and second and third
    assert [lease.blocks for lease in (first, second, third)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    blocks.release(second.blocks)
    blocks.release(first.blocks[1:2])
    again = blocks.acquire([], 3)
    assert again is not None
    assert again.blocks == [4, 5, 6]
    # The two that are left lie apart, and are given all the same.
    rest = blocks.acquire([], 2)
    assert rest is not None
    assert rest.blocks == [1, 7]
