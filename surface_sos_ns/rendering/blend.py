"""Two-layer alpha blending along rays (the paper's eq. 3, 5 and 7), as pure functions.

Shapes: R rays, S samples ordered from near to far.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LayerWeights(NamedTuple):
    """How much each sample contributes to a ray, split into the two layers."""

    foreground: Tensor  # (R, S)  T_i aF_i
    background: Tensor  # (R, S)  T_i (1 - aF_i) aB_i
    transmittance: Tensor  # (R,) light left behind the last sample


def transmittance(opacity: Tensor) -> Tensor:
    """`T_i = prod_{j<i} (1 - a_j)` with T_0 = 1, and the light left at the end.

    Args:
        opacity: (R, S).

    Returns:
        (R, S + 1); the last column is what passes the whole ray.
    """
    through = torch.cumprod(1.0 - opacity, dim=-1)
    return torch.cat([torch.ones_like(through[:, :1]), through], -1)


def blend_weights(foreground: Tensor, background: Tensor, label: Tensor | None = None) -> LayerWeights:
    """Occlusion-aware weights of both layers, `T_i = prod_{j<i} (1 - aF_j)(1 - aB_j)`.

    Args:
        foreground: (R, S) opacity of the foreground surface.
        background: (R, S) opacity of the background.
        label: (R, S) in [0, 1], the predicted alpha: `aF = label * foreground`, `aB = (1 - label) * background`
            (eq. 3 and 5). None blends the opacities as they are.
    """
    if label is not None:
        foreground, background = label * foreground, (1.0 - label) * background
    light = transmittance(1.0 - (1.0 - foreground) * (1.0 - background))
    return LayerWeights(light[:, :-1] * foreground, light[:, :-1] * (1.0 - foreground) * background, light[:, -1])


def single_weights(opacity: Tensor) -> Tensor:
    """Weights `T_i a_i` (R, S) of one layer rendered alone: the clean plate when it is the background's."""
    return transmittance(opacity)[:, :-1] * opacity


def accumulate(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sum along rays: (R, S) x (R, S, C) -> (R, C)."""
    return torch.einsum("rs,rsc->rc", weights, values)


def ray_distortion(weights: Tensor, edges: Tensor) -> Tensor:
    """How spread out along the ray the light is stopped (Barron et al. 2022, eq. 15), linear in the samples.

    `sum_ij w_i w_j |m_i - m_j| + sum_i w_i^2 d_i / 3` over interval middles m and lengths d: zero for one thin surface,
    large for fog.

    Args:
        weights: (R, S).
        edges: (R, S + 1) increasing positions of the intervals, in normalised units.

    Returns:
        (R,).
    """
    middle, length = 0.5 * (edges[:, 1:] + edges[:, :-1]), edges[:, 1:] - edges[:, :-1]
    before = weights.cumsum(-1) - weights
    moment = (weights * middle).cumsum(-1) - weights * middle
    between = 2.0 * (weights * (middle * before - moment)).sum(-1)
    return between + (weights.square() * length).sum(-1) / 3.0
