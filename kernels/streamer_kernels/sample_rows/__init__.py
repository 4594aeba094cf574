"""Drawing one token for each head of each sequence."""

from streamer_kernels.sample_rows.naive import candidate_distribution, sample_rows

__all__ = ["candidate_distribution", "sample_rows"]
