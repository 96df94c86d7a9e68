"""Training losses (the paper's eq. 8-12 and the vote loss of the default preset), as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor


def colour_cost(predicted: Tensor, target: Tensor, precision: Tensor | None = None) -> Tensor:
    """(R,) mean squared difference of (R, 3) colours; with a metric (3, 3) a third of d^T precision d."""
    difference = predicted - target
    weighed = difference if precision is None else (difference[:, None] * precision).sum(-1)
    return (difference * weighed).mean(-1)


def colour_loss(predicted: Tensor, target: Tensor, precision: Tensor | None = None) -> Tensor:
    """Eq. 9 with R = L2: mean of `colour_cost`."""
    return colour_cost(predicted, target, precision).mean()


def eikonal_loss(normals: Tensor) -> Tensor:
    """Eq. 10: mean of (|n| - 1)^2 over (P, 3) SDF gradients."""
    return (normals.norm(dim=-1) - 1.0).square().mean() if normals.shape[0] else normals.sum()


def sparsity_loss(sdf: Tensor, tau: float) -> Tensor:
    """Eq. 11 without its outer square, which only doubles tau: mean of exp(-tau |f|) over (P,) distances."""
    return torch.exp(-tau * sdf.abs()).mean() if sdf.shape[0] else sdf.sum()


def mask_loss(alpha: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Eq. 12: binary cross entropy of rendered alphas (R,) against coarse masks (R,), weighted by view (R,).

    Alphas are clamped to [1e-3, 1 - 1e-3], so that one wrong mask pixel has a bounded pull.
    """
    alpha = alpha.clamp(1e-3, 1.0 - 1e-3)
    entropy = -(mask * alpha.log() + (1.0 - mask) * (1.0 - alpha).log())
    return (entropy * weight).sum() / weight.sum().clamp(min=1e-6)


def vote_loss(alpha: Tensor, mask: Tensor, weight: Tensor, robustness: float) -> Tensor:
    """Generalised cross entropy (Zhang & Sabuncu 2018): between cross entropy (robustness -> 0) and L1 (1).

    Cross entropy settles at the *mean* of the votes, L1 at their majority: a surface point that three masks of four
    call object becomes 1, not 0.75.

    Args:
        alpha: (R,) rendered label in [0, 1].
        mask: (R,) coarse mask in [0, 1].
        weight: (R,) confidence of the view.
        robustness: q in (0, 1].
    """
    agreement = (mask * alpha + (1.0 - mask) * (1.0 - alpha)).clamp(1e-3, 1.0)
    return (((1.0 - agreement**robustness) / robustness) * weight).sum() / weight.sum().clamp(min=1e-6)


def entropy_loss(alpha: Tensor) -> Tensor:
    """Mean binary entropy of (R,) alphas: pushes mattes to 0 or 1."""
    alpha = alpha.clamp(1e-4, 1.0 - 1e-4)
    return -(alpha * alpha.log() + (1.0 - alpha) * (1.0 - alpha).log()).mean()


def deformation_loss(displaced: Tensor, later: Tensor, jacobian: Tensor, bound: float) -> Tensor:
    """What a small motion costs: being away from the canonical place, changing over time, and bending or stretching.

    Args:
        displaced, later: (P, 3) displacements of the same points at a time and a little later.
        jacobian: (P, 3, 3) of the displaced points; `J^T J = I` is rigid.
        bound: farthest displacement, the unit of the first two.
    """
    away = (displaced / bound).square().sum(-1).mean()
    change = ((later - displaced) / bound).square().sum(-1).mean()
    stretch = jacobian.transpose(1, 2) @ jacobian - torch.eye(3).to(jacobian)
    return away + change + stretch.square().sum((1, 2)).mean()


def surface_point_loss(sdf: Tensor) -> Tensor:
    """Mean |f| (P,) at triangulated points that lie on a surface."""
    return sdf.abs().mean() if sdf.shape[0] else sdf.sum()
