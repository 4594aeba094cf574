"""The engine's hot operations, one folder an op."""

from streamer_kernels.embed_rows import embed_rows
from streamer_kernels.paged_attention import decode_attention, prefill_attention, write_kv
from streamer_kernels.sample_rows import candidate_distribution, sample_rows

__all__ = [
    "candidate_distribution",
    "decode_attention",
    "embed_rows",
    "prefill_attention",
    "sample_rows",
    "write_kv",
]
