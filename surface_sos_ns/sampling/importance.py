"""Drawing ray samples where cached fields say that light stops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def importance_cdf(weights: Tensor, floor: float) -> Tensor:
    """Cumulative share of the draws at interval edges.

    Args:
        weights: (R, E) non-negative importance of each interval.
        floor: share of the draws spread evenly over the intervals.

    Returns:
        (R, E + 1) from 0 to 1, strictly increasing for floor > 0.
    """
    # A neighbour's share keeps the draw from missing a surface that has moved since the cache was made.
    padded = torch.nn.functional.pad(weights, (1, 1))
    spread = 0.5 * weights + 0.25 * (padded[:, :-2] + padded[:, 2:])
    total = weights.sum(-1, keepdim=True)
    pdf = (1.0 - floor) * spread / total.clamp(min=1e-5) + floor / weights.shape[1]
    pdf = pdf / pdf.sum(-1, keepdim=True)
    return torch.cat([torch.zeros_like(pdf[:, :1]), pdf.cumsum(-1)], -1)


def invert_cdf(edges: Tensor, cdf: Tensor, u: Tensor) -> Tensor:
    """(R, D) increasing distances at which the cumulative share `cdf` (R, E + 1) at `edges` reaches `u` (R, D)."""
    u = u.clamp(max=1 - 1e-5).contiguous()
    above = torch.searchsorted(cdf, u, right=True).clamp(1, edges.shape[1] - 1)
    below = above - 1
    low, high = cdf.gather(1, below), cdf.gather(1, above)
    start, end = edges.gather(1, below), edges.gather(1, above)
    return start + (end - start) * ((u - low) / (high - low).clamp(min=1e-8)).clamp(0, 1)


def stratified_draws(edges: Tensor, cdf: Tensor, draws: int, stratified: bool) -> Tensor:
    """(R, draws) increasing distances, one in each of as many strata of the cumulative share.

    Args:
        edges, cdf: (R, E + 1) distances and cumulative share there.
        draws: strata.
        stratified: at random in each stratum, else in its middle.
    """
    jitter = torch.rand(edges.shape[0], draws, device=edges.device) if stratified else None
    return invert_cdf(edges, cdf, _quantiles(edges, draws, jitter))


def _quantiles(edges: Tensor, draws: int, jitter: Tensor | None) -> Tensor:
    strata = torch.arange(draws, device=edges.device, dtype=edges.dtype)
    return ((strata + (0.5 if jitter is None else jitter)) / draws).expand(edges.shape[0], -1)


Draw = Callable[[Tensor, Tensor, int, bool], Tensor]
"""Arguments and result as of `stratified_draws`."""

FLOOR = 0.15
"""Share of the draws that is spread evenly over the coarse intervals."""


def draw_edges(
    edges: Tensor,
    weights: Tensor,
    count: int,
    stratified: bool,
    floor: float = FLOOR,
    jitter: Tensor | None = None,
    draw: Draw = stratified_draws,
) -> Tensor:
    """Redistribute interval edges by the inverse of the cumulative weights.

    Args:
        edges: (R, E + 1) increasing distances of coarse intervals.
        weights: (R, E) non-negative importance of each interval.
        count: samples wanted, so count + 1 edges come back.
        stratified: jitter each draw within its stratum (training); otherwise strata middles (rendering).
        floor: share of the draws spread evenly over the coarse intervals, so that no place is never looked at.
        jitter: (R, count + 1) in [0, 1), place of each draw in its stratum, instead of random ones.
        draw: the draws of a cumulative share.

    Returns:
        (R, count + 1) increasing distances. No gradient flows through them.
    """
    with torch.no_grad():
        cdf = importance_cdf(weights, floor)
        if jitter is not None:
            return invert_cdf(edges, cdf, _quantiles(edges, count + 1, jitter))
        return draw(edges, cdf, count + 1, stratified)
