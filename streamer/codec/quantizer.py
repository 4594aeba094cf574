"""Residual lookup-free quantization: codes to vectors by table, vectors to codes by nearest direction."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from streamer.codec.weights import QuantizerWeights


class Quantizer:
    """Both directions, in float32; stateless, so any thread may use it."""

    def __init__(self, weights: QuantizerWeights) -> None:
        self._weights = weights
        self.device = weights.decoded.device
        n_codebooks, self._codebook_size = weights.directions.shape[:2]
        self._row_offsets = torch.arange(n_codebooks, device=self.device) * self._codebook_size

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (N, k) of the first k codebooks -> (N, output_dim)."""
        rows = codes + self._row_offsets[: codes.shape[1]]
        summed = F.embedding_bag(rows, self._weights.decoded, mode="sum")
        project = self._weights.output_proj
        return summed if project is None else project(summed)

    def encode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (N, input_dim) -> codes (N, n_codebooks) int64."""
        residual = latents.float()
        if self._weights.input_proj is not None:
            residual = self._weights.input_proj(residual)
        codes = []
        for index in range(len(self._weights.directions)):
            code = self._nearest(index, residual)
            residual = residual - self._weights.decoded[index * self._codebook_size + code]
            codes.append(code)
        return torch.stack(codes, dim=1)

    def encode_nothing(self) -> torch.Tensor:
        """The codes (1, n_codebooks) that every codebook gives to a residual of zero."""
        nothing = self._weights.decoded.new_zeros(1, self._weights.decoded.shape[1])
        return torch.stack([self._nearest(index, nothing) for index in range(len(self._weights.directions))], dim=1)

    def _nearest(self, index: int, residual: torch.Tensor) -> torch.Tensor:
        """(N, rvq_dim) -> (N,): the entry of codebook ``index`` whose direction is nearest."""
        in_proj, directions = self._weights.in_projs[index], self._weights.directions[index]
        encoded = F.normalize(residual if in_proj is None else in_proj(residual))
        # Squared distance less the constant |encoded|^2; the entries' own length is 1 up to rounding, which
        # alone decides when ``encoded`` is zero, and then decides as it does for the publishers.
        return (directions.square().sum(dim=1) - 2 * encoded @ directions.t()).argmin(dim=1)
