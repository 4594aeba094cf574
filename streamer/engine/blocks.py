"""Which sequence holds which block of the KV pool, and which blocks hold a prefix that others may share.

Pure bookkeeping: no tensors. A block that was published under a key keeps its rows after its last owner let go,
until the space is needed; a later sequence whose rows begin alike takes it over instead of computing it again.
"""

from __future__ import annotations

import bisect
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Lease:
    """Blocks of one sequence in order; the first ``n_shared`` already hold their rows."""

    blocks: list[int]
    n_shared: int


class BlockManager:
    """Reference counts over ``n_blocks`` blocks of ``block_rows`` rows."""

    def __init__(self, n_blocks: int, block_rows: int) -> None:
        self.n_blocks = n_blocks
        self.block_rows = block_rows
        self._references = [0] * n_blocks
        self._keys: list[bytes | None] = [None] * n_blocks
        self._by_key: dict[bytes, int] = {}
        # Unreferenced blocks: unpublished ones in order, which go first, and those that can be shared, least recently
        # used first.
        self._empty: list[int] = list(range(n_blocks))
        self._reusable: OrderedDict[int, None] = OrderedDict()

    @property
    def n_held(self) -> int:
        """Blocks that some sequence holds."""
        return self.n_blocks - len(self._empty) - len(self._reusable)

    def blocks_for(self, n_rows: int) -> int:
        """How many blocks hold ``n_rows`` rows."""
        return -(-n_rows // self.block_rows)

    def prefix_keys(self, rows: np.ndarray) -> list[bytes]:
        """A key for each whole block of rows (P, 1+n_vq) int64: a hash of all columns of all rows up to its end."""
        keys: list[bytes] = []
        key = b""
        for end in range(self.block_rows, len(rows) + 1, self.block_rows):
            block = np.ascontiguousarray(rows[end - self.block_rows : end], dtype="<i8")
            key = hashlib.blake2b(key + block.tobytes(), digest_size=16).digest()
            keys.append(key)
        return keys

    def acquire(self, keys: Sequence[bytes], n_blocks: int) -> Lease | None:
        """Blocks for a sequence: shared ones for the leading keys that are known, free ones for the rest.

        ``keys``: prefix keys that may be shared, fewer than ``n_blocks``. None where too few blocks are free now.
        """
        shared: list[int] = []
        for key in keys:
            if key not in self._by_key:
                break
            shared.append(self._by_key[key])
        revived = sum(self._references[block] == 0 for block in shared)
        if n_blocks - len(shared) > len(self._empty) + len(self._reusable) - revived:
            return None
        for block in shared:
            self._reusable.pop(block, None)
            self._references[block] += 1
        return Lease(shared + self._take(n_blocks - len(shared)), len(shared))

    def publish(self, block: int, key: bytes) -> None:
        """Offer a held block, whose rows are computed, to sequences that begin alike."""
        if key not in self._by_key and self._keys[block] is None:
            self._by_key[key] = block
            self._keys[block] = key

    def release(self, blocks: Sequence[int]) -> list[int]:
        """Let go of a sequence's blocks; returns those that nobody holds any more."""
        freed = []
        # Last block first, so that of a prefix the longest part stays reusable the longest.
        for block in reversed(blocks):
            if self._references[block] <= 0:
                raise ValueError(f"block {block} is released more often than it was acquired")
            self._references[block] -= 1
            if self._references[block] == 0:
                freed.append(block)
                if self._keys[block] is None:
                    bisect.insort(self._empty, block)
                else:
                    self._reusable[block] = None
        return freed

    def forget(self, blocks: Sequence[int]) -> None:
        """Withdraw published blocks whose rows are not to be trusted."""
        for block in blocks:
            key = self._keys[block]
            if key is not None:
                del self._by_key[key]
                self._keys[block] = None
                if block in self._reusable:
                    del self._reusable[block]
                    bisect.insort(self._empty, block)

    def _take(self, count: int) -> list[int]:
        """Blocks that nobody holds, side by side where that can be had: a CPU reads them in place."""
        while len(self._empty) < count:
            block, _ = self._reusable.popitem(last=False)
            key = self._keys[block]
            assert key is not None
            del self._by_key[key]
            self._keys[block] = None
            bisect.insort(self._empty, block)
        begin = next((i for i in range(len(self._empty) - count + 1) if self._is_run(i, count)), 0)
        taken = self._empty[begin : begin + count]
        del self._empty[begin : begin + count]
        for block in taken:
            self._references[block] = 1
        return taken

    def _is_run(self, begin: int, count: int) -> bool:
        return count > 0 and self._empty[begin + count - 1] - self._empty[begin] == count - 1
