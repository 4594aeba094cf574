"""Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

A number depends on its key and counter alone, so a draw keyed by (seed, row, codebook, token) is the same in any
batch, slot or block size, and in any implementation: Triton's ``tl.philox`` gives the same bits.
"""

from __future__ import annotations

import torch

_MASK = 0xFFFFFFFF
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_KEY_STEP_0, _KEY_STEP_1 = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
# Steps of 2**-31, as tl.rand has them; both ends are kept out of reach of log(0).
_SCALE = 4.6566127342e-10
_LOWEST, _HIGHEST = 4.66e-10, 1.0 - 2.0**-24


def philox_uint32(seed: torch.Tensor, *counter: torch.Tensor) -> torch.Tensor:
    """First 32-bit word of Philox4x32-10, as int64 in [0, 2**32).

    seed: int64, its halves are the key; counter: up to four int64 tensors of 32-bit values. All broadcast together.
    """
    zero = torch.zeros((), dtype=torch.int64, device=seed.device)
    c0, c1, c2, c3 = (*counter, *[zero] * (4 - len(counter)))
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(_ROUNDS):
        # The 64-bit products wrap in int64; their low and high words are right all the same.
        p0, p1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _KEY_STEP_0) & _MASK, (k1 + _KEY_STEP_1) & _MASK
    return c0


def philox_uniform(seed: torch.Tensor, *counter: torch.Tensor) -> torch.Tensor:
    """Uniform float32 in (0, 1), never 0 and never 1; arguments as :func:`philox_uint32`."""
    word = philox_uint32(seed, *counter)
    # The word read as a signed integer, negative values folded over: 31 random bits.
    folded = torch.where(word < 2**31, word, _MASK - word)
    return (folded.to(torch.float32) * _SCALE).clamp(_LOWEST, _HIGHEST)
