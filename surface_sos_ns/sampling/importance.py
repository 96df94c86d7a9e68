"""Drawing ray samples where cached fields say that light stops."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings

import torch
from torch import Tensor


@functools.cache
def _nerfacc_loads() -> bool:
    """Whether nerfacc's CUDA extension is there. May compile it, so ask only for a CUDA device."""
    if importlib.util.find_spec("nerfacc") is None:
        return False
    try:
        return importlib.import_module("nerfacc.cuda._backend")._C is not None
    except (ImportError, OSError, RuntimeError) as error:  # no compiler, or one that does not fit this torch
        warnings.warn(f"nerfacc's CUDA extension does not load, torch draws the samples: {error}", stacklevel=2)
        return False


def choose_sampler(device: torch.device) -> str:
    """'nerfacc' on CUDA where its extension loads, else 'torch'. On a CPU nerfacc is not even imported."""
    return "nerfacc" if device.type == "cuda" and _nerfacc_loads() else "torch"


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
