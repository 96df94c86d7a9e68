"""Importance sampling along rays: inverse transform sampling of the weights of coarse intervals."""

from __future__ import annotations

import torch
from torch import Tensor

UNIFORM_SHARE = 0.15
"""Share of the draws that is spread evenly over the coarse intervals, whatever their weights."""


def importance_cdf(weights: Tensor, uniform_share: float) -> Tensor:
    """Cumulative distribution of the draws at interval edges.

    Args:
        weights: (R, E) non-negative importance of each interval.
        uniform_share: share of the draws spread evenly over the intervals.

    Returns:
        (R, E + 1) from 0 to 1, strictly increasing where `uniform_share` is positive.
    """
    # Weights are blurred over neighbouring intervals: a surface may have moved since the cache was refreshed.
    padded = torch.nn.functional.pad(weights, (1, 1))
    blurred = 0.5 * weights + 0.25 * (padded[:, :-2] + padded[:, 2:])
    total = weights.sum(-1, keepdim=True)
    pdf = (1.0 - uniform_share) * blurred / total.clamp(min=1e-5) + uniform_share / weights.shape[1]
    pdf = pdf / pdf.sum(-1, keepdim=True)
    return torch.cat([torch.zeros_like(pdf[:, :1]), pdf.cumsum(-1)], -1)


def invert_cdf(edges: Tensor, cdf: Tensor, u: Tensor) -> Tensor:
    """Distances (R, D) at which `cdf` (R, E + 1), given at `edges` and linear between them, reaches `u` (R, D).

    `u` is increasing in [0, 1], and so are the distances.
    """
    u = u.clamp(max=1 - 1e-5).contiguous()
    above = torch.searchsorted(cdf, u, right=True).clamp(1, edges.shape[1] - 1)
    below = above - 1
    low, high = cdf.gather(1, below), cdf.gather(1, above)
    start, end = edges.gather(1, below), edges.gather(1, above)
    return start + (end - start) * ((u - low) / (high - low).clamp(min=1e-8)).clamp(0, 1)


def draw_edges(
    edges: Tensor,
    weights: Tensor,
    count: int,
    stratified: bool,
    uniform_share: float = UNIFORM_SHARE,
    jitter: Tensor | None = None,
) -> Tensor:
    """Edges of the sample intervals, drawn by the weights of coarse intervals: one from each of count + 1 equal strata
    of their cumulative distribution.

    Args:
        edges: (R, E + 1) increasing distances of the coarse intervals' edges.
        weights: (R, E) non-negative importance of each coarse interval.
        count: number of samples, one less than edges are drawn.
        stratified: draw at random within each stratum (training); otherwise take its midpoint (rendering).
        uniform_share: share of the draws spread evenly over the coarse intervals, so that all space is explored.
        jitter: (R, count + 1) in [0, 1), position of each draw within its stratum, in place of random ones.

    Returns:
        (R, count + 1) increasing distances, without gradient.
    """
    with torch.no_grad():
        rays, draws = edges.shape[0], count + 1
        if jitter is None and stratified:
            jitter = torch.rand(rays, draws, device=edges.device)
        strata = torch.arange(draws, device=edges.device, dtype=edges.dtype)
        quantiles = (strata + (0.5 if jitter is None else jitter)) / draws
        return invert_cdf(edges, importance_cdf(weights, uniform_share), quantiles.expand(rays, -1))
