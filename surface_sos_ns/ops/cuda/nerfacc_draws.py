"""Stratified draws from a cumulative distribution in one CUDA kernel, by nerfacc."""

from __future__ import annotations

import functools
import importlib
import importlib.util

from torch import Tensor


@functools.cache
def nerfacc_problem() -> str | None:
    """Why nerfacc's CUDA extension cannot be used, or None where it can. May compile it, so call it only with CUDA."""
    if importlib.util.find_spec("nerfacc") is None:
        return "the package nerfacc is not installed"
    try:
        if importlib.import_module("nerfacc.cuda._backend")._C is None:
            return "nerfacc has no CUDA extension here"
    except (ImportError, OSError, RuntimeError) as error:  # no compiler, or one that does not fit this torch
        return f"nerfacc's CUDA extension does not load: {' '.join(str(error).split())}"
    return None


def stratified_draws(edges: Tensor, cdf: Tensor, draws: int, stratified: bool) -> Tensor:
    """See `sampling.importance.stratified_draws`. nerfacc jitters all draws of a ray by the same random number."""
    import nerfacc

    # nerfacc's samples are at the quantiles of the strata's midpoints, which are our draws; its intervals are not used.
    _, samples = nerfacc.importance_sampling(nerfacc.RayIntervals(vals=edges.contiguous()), cdf, draws, stratified)
    return samples.vals
