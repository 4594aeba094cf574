"""Where in its text a voice is: what the alignment heads that a checkpoint declares look at.

A row is drawn from the one before it, and there the heads look at the word that the frame begun by the new row is part
of. Their queries are kept by the decoder as it computes them; their keys at the text's rows are gathered once, when
the prompt is in the pool. What is left for each row is one small product. The naive twin is ``training.network``,
which computes all scores of a whole sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from streamer.models.config import LanguageConfig
from streamer.models.qwen3 import KVPool

_GROWTH_ROWS = 256


class AlignmentReader:
    """The text's keys of every slot that is followed. One thread at a time.

    ``heads``: the declared (layer, head), at least one; ``dtype``: the model's, in which its attention reads keys.
    Memory is taken when the first slot is followed.
    """

    def __init__(
        self,
        config: LanguageConfig,
        heads: Sequence[tuple[int, int]],
        pool: KVPool,
        n_slots: int,
        dtype: torch.dtype,
    ) -> None:
        group = config.n_heads // config.n_kv_heads
        self._places = [(layer, head // group) for layer, head in heads]
        self._scale = config.head_dim**-0.5
        self._pool = pool
        self._keys = torch.zeros(n_slots, len(heads), 0, config.head_dim, dtype=dtype, device=pool.k.device)
        self._n_rows = [0] * n_slots
        self._lengths = torch.zeros(n_slots, dtype=torch.int64, device=pool.k.device)

    @torch.inference_mode()
    def follow(self, slot: int, blocks: Sequence[int], text_rows: tuple[int, int]) -> None:
        """Take the keys of rows ``text_rows`` (begin, end) of the sequence in ``blocks``, whose prompt is prefilled."""
        begin, end = text_rows
        device, n_rows = self._pool.k.device, end - begin
        self._reserve(n_rows)
        rows = torch.arange(begin, end, device=device)
        table = torch.tensor(blocks, device=device)
        pool_rows = table[rows // self._pool.block_rows] * self._pool.block_rows + rows % self._pool.block_rows
        for place, (layer, kv_head) in enumerate(self._places):
            keys = self._pool.k[layer, kv_head].flatten(0, 1)
            # As bytes: few operations know the float8 types.
            taken = keys.view(torch.uint8).index_select(0, pool_rows).view(keys.dtype)
            self._keys[slot, place, :n_rows] = taken.to(self._keys.dtype)
        self._n_rows[slot] = n_rows
        self._lengths[slot] = n_rows

    @torch.inference_mode()
    def read(self, slots: Sequence[int], queries: torch.Tensor) -> torch.Tensor:
        """(A,) int64: which of its text rows, from 0, each of A followed slots looks at most.

        queries: (slots, heads, head_dim), of all slots. Of several heads the mean of the softmaxes counts. Nothing
        waits for a GPU.
        """
        longest = max(self._n_rows[slot] for slot in slots)
        at = torch.tensor(slots).to(self._lengths.device, non_blocking=True)
        keys = self._keys[at, :, :longest].float()
        # A product and a sum over the last dimension have the same bits in any company, a matrix product may not.
        scores = (keys * queries[at].float().unsqueeze(2)).sum(-1) * self._scale  # (A, heads, T)
        beyond = torch.arange(longest, device=at.device) >= self._lengths[at][:, None]
        scores.masked_fill_(beyond[:, None], -torch.inf)
        return scores.softmax(-1).mean(1).argmax(-1)

    def _reserve(self, n_rows: int) -> None:
        n_slots, n_heads, capacity, head_dim = self._keys.shape
        if n_rows <= capacity:
            return
        grown = -(-n_rows // _GROWTH_ROWS) * _GROWTH_ROWS
        keys = self._keys.new_zeros(n_slots, n_heads, grown, head_dim)
        keys[:, :, :capacity] = self._keys
        self._keys = keys
