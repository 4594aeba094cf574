"""The engine's hot operations, one folder an op: plain torch, and Triton, which is imported when first needed."""

from streamer_kernels.advance_delay import AUDIO_ENDED, CODES_COMPLETE, FRAME, advance_delay, plan_rows
from streamer_kernels.embed_rows import embed_rows
from streamer_kernels.layer_norms import add_rms_norm, silu_gate
from streamer_kernels.paged_attention import (
    DecodePlan,
    decode_attention,
    norm_rope_write,
    plan_decode,
    prefill_attention,
    write_kv,
)
from streamer_kernels.sample_rows import candidate_distribution, sample_codes, sample_rows
from streamer_kernels.sample_text import sample_text
from streamer_kernels.slots import DelaySlots, SamplingSlots

__all__ = [
    "AUDIO_ENDED",
    "CODES_COMPLETE",
    "FRAME",
    "DecodePlan",
    "DelaySlots",
    "SamplingSlots",
    "add_rms_norm",
    "advance_delay",
    "candidate_distribution",
    "decode_attention",
    "embed_rows",
    "norm_rope_write",
    "plan_decode",
    "plan_rows",
    "prefill_attention",
    "sample_codes",
    "sample_rows",
    "sample_text",
    "silu_gate",
    "write_kv",
]
