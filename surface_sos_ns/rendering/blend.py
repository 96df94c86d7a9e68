"""Two-layer alpha blending along rays (the paper's eq. 3, 5 and 7), as pure functions.

Shapes: R rays, S samples ordered from near to far.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LayerWeights(NamedTuple):
    """Volume rendering weights of both layers (eq. 7)."""

    foreground: Tensor  # (R, S)  T_i aF_i
    background: Tensor  # (R, S)  T_i (1 - aF_i) aB_i
    transmittance: Tensor  # (R,) behind the last sample


def transmittance(opacity: Tensor) -> Tensor:
    """Transmittance `T_i = prod_{j<i} (1 - a_j)` before each sample and behind the last one (eq. 7).

    Args:
        opacity: (R, S) a_i.

    Returns:
        (R, S + 1), from T_0 = 1 to the transmittance of the whole ray.
    """
    through = torch.cumprod(1.0 - opacity, dim=-1)
    return torch.cat([torch.ones_like(through[:, :1]), through], -1)


def blend_weights(foreground: Tensor, background: Tensor, gate: Tensor | None = None) -> LayerWeights:
    """Weights of both layers with the transmittance that they share, `T_i = prod_{j<i} (1 - aF_j)(1 - aB_j)`.

    Args:
        foreground: (R, S) opacity of the foreground surface.
        background: (R, S) opacity of the background.
        gate: (R, S) in [0, 1], the alpha of eq. 3 that splits the layers: `aF = gate * foreground` and
            `aB = (1 - gate) * background` (eq. 5). None blends the opacities as they are.
    """
    if gate is not None:
        foreground, background = gate * foreground, (1.0 - gate) * background
    light = transmittance(1.0 - (1.0 - foreground) * (1.0 - background))
    return LayerWeights(light[:, :-1] * foreground, light[:, :-1] * (1.0 - foreground) * background, light[:, -1])


def layer_weights(opacity: Tensor) -> Tensor:
    """Weights `T_i a_i` (R, S) of one layer rendered alone; those of the background give the clean plate."""
    return transmittance(opacity)[:, :-1] * opacity


def accumulate(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sum along rays (eq. 7): weights (R, S) and values (R, S, C) -> (R, C)."""
    return torch.einsum("rs,rsc->rc", weights, values)


def ray_distortion(weights: Tensor, edges: Tensor) -> Tensor:
    """Distortion of weights along rays (mip-NeRF 360, Barron et al. 2022, eq. 15), in time linear in the samples.

    `sum_ij w_i w_j |m_i - m_j| + sum_i w_i^2 d_i / 3` over interval middles m and lengths d: zero for one thin surface,
    large for fog.

    Args:
        weights: (R, S).
        edges: (R, S + 1) increasing edges of the sample intervals, normalised distances.

    Returns:
        (R,).
    """
    middle, length = 0.5 * (edges[:, 1:] + edges[:, :-1]), edges[:, 1:] - edges[:, :-1]
    before = weights.cumsum(-1) - weights
    moment = (weights * middle).cumsum(-1) - weights * middle
    between = 2.0 * (weights * (middle * before - moment)).sum(-1)
    return between + (weights.square() * length).sum(-1) / 3.0
