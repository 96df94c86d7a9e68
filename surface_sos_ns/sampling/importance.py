"""Drawing ray samples where cached fields say that light stops."""

from __future__ import annotations

import functools
import importlib
import importlib.util

import torch
from torch import Tensor


@functools.cache
def nerfacc_problem() -> str | None:
    """Why nerfacc's CUDA extension cannot be used, or None where it can. May compile it, so ask only on CUDA."""
    if importlib.util.find_spec("nerfacc") is None:
        return "the package nerfacc is not installed"
    try:
        if importlib.import_module("nerfacc.cuda._backend")._C is None:
            return "nerfacc has no CUDA extension here"
    except (ImportError, OSError, RuntimeError) as error:  # no compiler, or one that does not fit this torch
        return f"nerfacc's CUDA extension does not load: {' '.join(str(error).split())}"
    return None


def choose_sampler(device: torch.device) -> str:
    """'nerfacc' on CUDA where its extension loads, else 'torch'. On a CPU nerfacc is not even imported."""
    return "nerfacc" if device.type == "cuda" and nerfacc_problem() is None else "torch"


def describe_sampler(device: torch.device) -> str:
    """The sampler of a device, and on CUDA why it is not nerfacc's, where it is not."""
    sampler = choose_sampler(device)
    return f"{sampler} ({nerfacc_problem()})" if device.type == "cuda" and sampler != "nerfacc" else sampler


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


def _invert_torch(
    edges: Tensor, cdf: Tensor, draws: int, stratified: bool, jitter: Tensor | float | None = None
) -> Tensor:
    """(R, draws) increasing distances at which the cumulative share reaches the strata's quantiles."""
    strata = torch.arange(draws, device=edges.device, dtype=edges.dtype)
    if jitter is None:
        jitter = torch.rand(edges.shape[0], draws, device=edges.device) if stratified else 0.5
    u = ((strata + jitter) / draws).expand(edges.shape[0], -1).clamp(max=1 - 1e-5).contiguous()
    above = torch.searchsorted(cdf, u, right=True).clamp(1, edges.shape[1] - 1)
    below = above - 1
    low, high = cdf.gather(1, below), cdf.gather(1, above)
    start, end = edges.gather(1, below), edges.gather(1, above)
    return start + (end - start) * ((u - low) / (high - low).clamp(min=1e-8)).clamp(0, 1)


def _invert_nerfacc(edges: Tensor, cdf: Tensor, draws: int, stratified: bool) -> Tensor:
    """The same in one CUDA kernel; its jitter is one number a ray, ours one a draw."""
    import nerfacc

    # Its samples lie at the quantiles of the strata's middles: exactly our draws. Its intervals lie between them.
    _, samples = nerfacc.importance_sampling(nerfacc.RayIntervals(vals=edges.contiguous()), cdf, draws, stratified)
    return samples.vals


FLOOR = 0.15
"""Share of the draws that is spread evenly over the coarse intervals."""


def draw_edges(
    edges: Tensor,
    weights: Tensor,
    count: int,
    stratified: bool,
    floor: float = FLOOR,
    jitter: Tensor | None = None,
) -> Tensor:
    """Redistribute interval edges by the inverse of the cumulative weights.

    Args:
        edges: (R, E + 1) increasing distances of coarse intervals.
        weights: (R, E) non-negative importance of each interval.
        count: samples wanted, so count + 1 edges come back.
        stratified: jitter each draw within its stratum (training); otherwise strata middles (rendering).
        floor: share of the draws spread evenly over the coarse intervals, so that no place is never looked at.
        jitter: (R, count + 1) in [0, 1), place of each draw in its stratum, instead of random ones.

    Returns:
        (R, count + 1) increasing distances. No gradient flows through them.
    """
    with torch.no_grad():
        cdf = importance_cdf(weights, floor)
        if jitter is not None:
            return _invert_torch(edges, cdf, count + 1, stratified, jitter)
        # (a CUDA launch of no rays is an error)
        nerfacc = edges.shape[0] > 0 and choose_sampler(edges.device) == "nerfacc"
        invert = _invert_nerfacc if nerfacc else _invert_torch
        return invert(edges, cdf, count + 1, stratified)
