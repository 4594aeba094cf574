"""Input embedding of a row: its text embedding plus those of its codes."""

from streamer_kernels.embed_rows.naive import embed_rows

__all__ = ["embed_rows"]
