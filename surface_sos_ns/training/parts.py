"""Losses of parts (SCOPS, Hung et al. 2019), on points drawn evenly over the object's surface instead of on pixels.

R (P, K) are the shares of K parts at P points, which sum to 1 at each. SCOPS' equivariance loss has no counterpart: one
field serves all views. Its background channel has none either: the points lie on the object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_PART = 1e-6
"""Lower bound of a part's share of the surface where a mean over the part is divided by it."""


@dataclass(frozen=True)
class PartObjective:
    """Weights of the losses."""

    concentration: float = 0.1
    """Of each part's mean squared distance from its centre, in object radii."""
    semantics: float = 1.0
    """Of the squared error with which K basis vectors explain the features of the surface."""
    orthonormality: float = 0.001
    """Of what keeps the basis vectors of different parts apart."""
    coherence: float = 0.06
    """Of the length of the borders between parts, which costs less along concave creases. SCOPS has no such loss."""


def part_centres(shares: Tensor, values: Tensor) -> Tensor:
    """Mean of values (P, D) over each part: (K, D), by shares (P, K)."""
    return (shares.T @ values) / shares.sum(0).clamp(min=SMALLEST_PART * len(shares))[:, None]


def concentration_loss(shares: Tensor, points: Tensor) -> Tensor:
    """Sum over the parts of their mean squared distance from their centre (SCOPS, L_con): ().

    Each part counts alike, whatever its size: one large part and several small ones cost no more than equal ones.

    Args:
        shares: (P, K).
        points: (P, 3).
    """
    centres = part_centres(shares, points)
    squared = (points[:, None] - centres).square().sum(-1)
    return ((shares * squared).sum(0) / shares.sum(0).clamp(min=SMALLEST_PART * len(shares))).sum()


def semantic_loss(shares: Tensor, features: Tensor, basis: Tensor) -> Tensor:
    """Mean squared error of features by the basis vectors of their parts (SCOPS, L_sc): ().

    Args:
        shares: (P, K).
        features: (P, D), none negative.
        basis: (K, D), none negative.
    """
    return (features - shares @ basis).square().sum(-1).mean()


def orthonormality_loss(basis: Tensor) -> Tensor:
    """Squared distance of the Gram matrix of the normalised basis (K, D) from the identity (SCOPS, L_on): ()."""
    unit = F.normalize(basis, dim=-1)
    return (unit @ unit.T - torch.eye(len(basis), dtype=basis.dtype, device=basis.device)).square().sum()


def coherence_loss(shares: Tensor, pairs: Tensor, weights: Tensor) -> Tensor:
    """Length of the borders between parts: ().

    Mean over the pairs of the squared difference of their shares, halved, times the root of the number of points, which
    makes it independent of how densely points are drawn.

    Args:
        shares: (P, K).
        pairs: (E, 2) int64, neighbours on the surface.
        weights: (E,) of the pairs.
    """
    change = (shares[pairs[:, 0]] - shares[pairs[:, 1]]).square().sum(-1)
    return 0.5 * (weights * change).mean() * math.sqrt(len(shares))


def part_losses(
    objective: PartObjective,
    shares: Tensor,
    points: Tensor,
    features: Tensor,
    basis: Tensor,
    pairs: Tensor,
    weights: Tensor,
) -> dict[str, Tensor]:
    """Weighted losses by name; arguments as of the single ones."""
    return {
        "concentration": objective.concentration * concentration_loss(shares, points),
        "semantics": objective.semantics * semantic_loss(shares, features, basis),
        "orthonormality": objective.orthonormality * orthonormality_loss(basis),
        "coherence": objective.coherence * coherence_loss(shares, pairs, weights),
    }
