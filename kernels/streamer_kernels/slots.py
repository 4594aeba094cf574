"""What the ops keep for each slot of a batch: slot-indexed tensors, allocated once, on the model's device."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class SamplingSlots:
    """Sampling settings and repetition histories of S slots; head 0 is the text head, head 1 + k codebook k's.

    temperature, top_p: (S, 1+n_vq) float32; top_k: (S, 1+n_vq) int64, 0 for all; penalty: (S,) float32, of the audio
    heads; seed: (S,) int64. history: (S, n_vq, n_codes+1) bool, codes seen; history_of: (S, n_vq) int64, which of its
    slot's histories each codebook reads and writes.
    """

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    penalty: torch.Tensor
    seed: torch.Tensor
    history: torch.Tensor
    history_of: torch.Tensor

    @classmethod
    def allocate(cls, n_slots: int, n_vq: int, n_ids: int, device: torch.device) -> SamplingSlots:
        """Slots that are greedy and have seen nothing. n_ids: entries of an audio head, the pad code included."""
        heads = 1 + n_vq
        return cls(
            temperature=torch.zeros(n_slots, heads, device=device),
            top_k=torch.zeros(n_slots, heads, dtype=torch.int64, device=device),
            top_p=torch.ones(n_slots, heads, device=device),
            penalty=torch.ones(n_slots, device=device),
            seed=torch.zeros(n_slots, dtype=torch.int64, device=device),
            history=torch.zeros(n_slots, n_vq, n_ids, dtype=torch.bool, device=device),
            history_of=torch.zeros(n_slots, n_vq, dtype=torch.int64, device=device),
        )


@dataclass(frozen=True, slots=True)
class DelaySlots:
    """State of the delay pattern of S slots that are inside audio, and the rows whose frames are not complete.

    All (S,) int64. audio_length: rows since audio_start, counting it; delayed_length: rows since the first delay slot,
    -1 for none yet; step: rows decoded so far; tail_at: the step from which on the next row must be a delay slot, so
    that a sequence cut short still ends with whole frames. window: (S, n_vq, n_vq) int64, the codes of the last n_vq
    rows, row r at r % n_vq.
    """

    audio_length: torch.Tensor
    delayed_length: torch.Tensor
    step: torch.Tensor
    tail_at: torch.Tensor
    window: torch.Tensor

    @classmethod
    def allocate(cls, n_slots: int, n_vq: int, device: torch.device) -> DelaySlots:
        """Slots as zeros; a slot is set up when a sequence takes it."""
        zeros = torch.zeros(4, n_slots, dtype=torch.int64, device=device)
        window = torch.zeros(n_slots, n_vq, n_vq, dtype=torch.int64, device=device)
        return cls(zeros[0], zeros[1], zeros[2], zeros[3], window)
