"""Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

A number depends on its key and counter alone, so a draw keyed by (seed, row, codebook, token) is the same in any
batch, slot or block size, and in any implementation: ``philox_host`` and ``philox_triton`` give the same bits.
"""

from __future__ import annotations

import torch

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
# Steps of 2**-31, as tl.rand has them; both ends are kept out of reach of log(0).
UNIFORM_STEP = 4.6566127342e-10
LOWEST, HIGHEST = 4.66e-10, 1.0 - 2.0**-24


def philox_uint32(seed: torch.Tensor, *counter: torch.Tensor) -> torch.Tensor:
    """First 32-bit word of Philox4x32-10, as int64 in [0, 2**32).

    seed: int64, its halves are the key; counter: up to four int64 tensors of 32-bit values. All broadcast together.
    """
    zero = torch.zeros((), dtype=torch.int64, device=seed.device)
    c0, c1, c2, c3 = (*counter, *[zero] * (4 - len(counter)))
    k0, k1 = seed & MASK, (seed >> 32) & MASK
    for _ in range(ROUNDS):
        # The 64-bit products wrap in int64; their low and high words are right all the same.
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & MASK) ^ c1 ^ k0,
            p1 & MASK,
            ((p0 >> 32) & MASK) ^ c3 ^ k1,
            p0 & MASK,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & MASK, (k1 + KEY_STEPS[1]) & MASK
    return c0


def philox_uniform(seed: torch.Tensor, *counter: torch.Tensor) -> torch.Tensor:
    """Uniform float32 in (0, 1), never 0 and never 1; arguments as :func:`philox_uint32`."""
    word = philox_uint32(seed, *counter)
    # The word read as a signed integer, negative values folded over: 31 random bits.
    folded = torch.where(word < 2**31, word, MASK - word)
    return (folded.to(torch.float32) * UNIFORM_STEP).clamp(LOWEST, HIGHEST)


def gumbel_noise(seed: torch.Tensor, *counter: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise in float64, whose argmax over log-weights is a draw; arguments as :func:`philox_uint32`."""
    return -torch.log(-torch.log(philox_uniform(seed, *counter).double()))
