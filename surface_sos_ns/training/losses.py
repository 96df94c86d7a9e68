"""Training losses, as pure functions: the paper's eq. 9-12, and those of the default preset."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def counted_mean(values: Tensor, counted: Tensor | None = None) -> Tensor:
    """() mean of values (N,) where `counted` (N,) is true, of all if it is None; 0 where there are none."""
    if counted is not None:
        kept = torch.where(counted, values, torch.zeros_like(values))
        return kept.sum() / counted.sum().clamp(min=1)
    return values.mean() if values.shape[0] else values.sum()


def colour_cost(predicted: Tensor, target: Tensor, precision: Tensor | None = None) -> Tensor:
    """Squared difference (R,) of colours (R, 3): mean over channels, or with a metric (3, 3) `d^T precision d / 3`."""
    difference = predicted - target
    weighed = difference if precision is None else (difference[:, None] * precision).sum(-1)
    return (difference * weighed).mean(-1)


def colour_loss(predicted: Tensor, target: Tensor, precision: Tensor | None = None) -> Tensor:
    """Eq. 9 with R = L2: the mean of `colour_cost` over rays."""
    return colour_cost(predicted, target, precision).mean()


def eikonal_loss(normals: Tensor, counted: Tensor | None = None) -> Tensor:
    """Eq. 10: mean of (|n| - 1)^2 over SDF gradients (P, 3) that count, see `counted_mean`; 0 for none."""
    return counted_mean((normals.norm(dim=-1) - 1.0).square(), counted)


def sparsity_loss(sdf: Tensor, tau: float, counted: Tensor | None = None) -> Tensor:
    """Eq. 11 without the outer square, which only doubles tau: mean of exp(-tau |f|) over signed distances (P,).

    tau is in 1 / unit of the distances; 0 for no distances. For `counted` see `counted_mean`.
    """
    return counted_mean(torch.exp(-tau * sdf.abs()), counted)


def mask_loss(alpha: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Eq. 12: binary cross entropy of rendered alphas (R,) against coarse masks (R,), weighted (R,).

    Alphas are clamped to [1e-3, 1 - 1e-3]: it bounds the gradient of a wrong mask pixel.
    """
    alpha = alpha.clamp(1e-3, 1.0 - 1e-3)
    entropy = -(mask * alpha.log() + (1.0 - mask) * (1.0 - alpha).log())
    return (entropy * weight).sum() / weight.sum().clamp(min=1e-6)


def vote_loss(claimed: Tensor, none: Tensor, mask: Tensor, weight: Tensor, robustness: float | Tensor) -> Tensor:
    """Generalised cross entropy (Zhang & Sabuncu 2018): between cross entropy (robustness -> 0) and L1 (1).

    Cross entropy has its minimum at the *mean* of the votes, L1 at their majority: a surface point that three masks of
    four call object becomes 1, not 0.75.

    Args:
        claimed: (R,) rendered probability, in [0, 1], of the object that the mask names.
        none: (R,) rendered probability of the background; with one object, 1 - `claimed`.
        mask: (R,) coarse mask in [0, 1].
        weight: (R,) weight of each ray's vote.
        robustness: q in (0, 1].

    Returns:
        () weighted mean.
    """
    agreement = (mask * claimed + (1.0 - mask) * none).clamp(1e-3, 1.0)
    return (((1.0 - agreement**robustness) / robustness) * weight).sum() / weight.sum().clamp(min=1e-6)


def identity_entropy(logits: Tensor, mask: Tensor, identity: Tensor | None) -> Tensor:
    """Mean cross entropy of K objects and the background, whose logit is 0, against soft masks of one object each.

    Args:
        logits: (P, K).
        mask: (P,) in [0, 1], probability of any object.
        identity: (P,) int64 in 1 to K, the object that it would be; what is 0 counts as object 1. None with one object.
    """
    if identity is None:
        return F.binary_cross_entropy_with_logits(logits[:, 0], mask)
    scores = F.log_softmax(F.pad(logits, (1, 0)), -1)
    named = scores.gather(1, identity.clamp(min=1)[:, None])[:, 0]
    return -(mask * named + (1.0 - mask) * scores[:, 0]).mean()


def entropy_loss(alpha: Tensor) -> Tensor:
    """Mean binary entropy of alphas (R,), in nats: pushes mattes to 0 or 1."""
    alpha = alpha.clamp(1e-4, 1.0 - 1e-4)
    return -(alpha * alpha.log() + (1.0 - alpha) * (1.0 - alpha).log()).mean()


def deformation_loss(displaced: Tensor, later: Tensor, jacobian: Tensor, bound: float) -> Tensor:
    """Regulariser of the deformation: mean squares of displacement, of its change over time, and of `J^T J - I`.

    Args:
        displaced, later: (P, 3) displacements of the same points at a time and a short step later.
        jacobian: (P, 3, 3) derivative of canonical by observed points; `J^T J = I` where the motion is rigid.
        bound: largest displacement, in which the first two are measured.
    """
    size = (displaced / bound).square().sum(-1).mean()
    change = ((later - displaced) / bound).square().sum(-1).mean()
    stretch = jacobian.transpose(1, 2) @ jacobian - torch.eye(3).to(jacobian)
    return size + change + stretch.square().sum((1, 2)).mean()


def surface_point_loss(sdf: Tensor, counted: Tensor | None = None) -> Tensor:
    """Mean |f| of signed distances (P,) at sparse points, which lie on surfaces, see `counted_mean`; 0 for none."""
    return counted_mean(sdf.abs(), counted)
