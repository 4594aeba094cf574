"""Attention over keys and values that live in blocks of a shared pool."""

from streamer_kernels.paged_attention.naive import decode_attention, prefill_attention, write_kv

__all__ = ["decode_attention", "prefill_attention", "write_kv"]
