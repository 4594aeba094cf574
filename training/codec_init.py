"""Codebooks that are used: a start from the data, and entries that nothing is nearest to given new places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from training.codec_network import Pointwise, ResidualQuantizer

_KMEANS_ROUNDS = 4
_USAGE_DECAY = 0.98
_DEAD_USAGE, _NEW_USAGE = 0.06, 0.24
_NEW_NOISE = 0.01


@torch.no_grad()
def start_from_data(quantizer: ResidualQuantizer, latents: torch.Tensor, generator: torch.Generator) -> None:
    """Set every stage from what the stages before it leave of ``latents`` (M, input_dim): principal axes, k-means.

    Random projections would leave most entries unused. M should be several times the codebook size; ``generator`` is
    a CPU one.
    """
    residual = quantizer.input_proj(latents.float())
    for stage in quantizer.stages:
        if isinstance(stage.in_proj, Pointwise) and isinstance(stage.out_proj, Pointwise):
            _project_on_axes(stage.in_proj, stage.out_proj, residual)
        encoded = stage.in_proj(residual)
        stage.codebook.weight.copy_(_cluster(encoded, stage.codebook.num_embeddings, generator))
        residual = residual - stage.out_proj(stage.codebook(stage.nearest(encoded)))


def _project_on_axes(into: Pointwise, back: Pointwise, residual: torch.Tensor) -> None:
    """Make the projections those to the first principal axes of ``residual`` (M, rvq_dim) and from them."""
    mean = residual.mean(0)
    _, _, axes = torch.linalg.svd(residual - mean, full_matrices=False)
    axes = axes[: into.out_channels]
    biases = {into: torch.zeros_like(mean[: into.out_channels]), back: mean - axes.t() @ (axes @ mean)}
    # Assigning to ``weight`` sets both halves of its weight norm.
    for projection, weight in ((into, axes), (back, axes.t())):
        projection.weight = weight[..., None].contiguous()
        assert projection.bias is not None
        projection.bias.copy_(biases[projection])


def _cluster(points: torch.Tensor, n_clusters: int, generator: torch.Generator) -> torch.Tensor:
    """k-means by direction: (M, C) -> (n_clusters, C), the mean of the points nearest to each."""

    def pick(n: int) -> torch.Tensor:
        return points[torch.randint(len(points), (n,), generator=generator).to(points.device)]

    order = torch.randperm(len(points), generator=generator)[:n_clusters].to(points.device)
    centres = torch.cat((points[order], pick(n_clusters - len(order))))
    directions = F.normalize(points)
    for _ in range(_KMEANS_ROUNDS):
        nearest = (directions @ F.normalize(centres).t()).argmax(1)
        counts = torch.bincount(nearest, minlength=n_clusters)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), pick(n_clusters))
    return centres


class CodebookUsage:
    """How often each entry is chosen, as a share of even use, and what is done about those that are not."""

    def __init__(self, quantizer: ResidualQuantizer) -> None:
        self._quantizer = quantizer
        shape = quantizer.config.n_codebooks, quantizer.config.codebook_size
        self.usage = torch.ones(shape, device=next(quantizer.parameters()).device)

    def count(self, codes: torch.Tensor) -> None:
        """Take note of a step's codes (B, T, n_codebooks)."""
        flat = codes.flatten(0, 1)
        size = self.usage.shape[1]
        for book, usage in enumerate(self.usage):
            share = torch.bincount(flat[:, book], minlength=size) * (size / len(flat))
            usage.mul_(_USAGE_DECAY).add_(share, alpha=1 - _USAGE_DECAY)

    @torch.no_grad()
    def restart_dead(self, encoded: Sequence[torch.Tensor], generator: torch.Generator) -> int:
        """Put dead entries where ``encoded`` (B, T, codebook_dim of each stage) has vectors; returns how many."""
        n_dead = 0
        for stage, points, usage in zip(self._quantizer.stages, encoded, self.usage, strict=True):
            dead = (usage < _DEAD_USAGE).nonzero()[:, 0]
            if not len(dead):
                continue
            points = points.flatten(0, 1)
            chosen = points[torch.randint(len(points), (len(dead),), generator=generator).to(points.device)]
            noise = torch.randn(chosen.shape, generator=generator).to(points.device)
            stage.codebook.weight[dead] = chosen + _NEW_NOISE * chosen.std() * noise
            usage[dead] = _NEW_USAGE
            n_dead += len(dead)
        return n_dead
