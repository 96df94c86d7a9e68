"""Volume rendering of both layers (eq. 3-7) for a batch of rays, in plain torch.

`section_opacity` and `density_section_opacity` turn fields into the opacity of samples, `composite_weights` blends both
layers into weights, `composite_colours` sums colours and normals with them, and `accumulate_detached` sums anything
else. Fields are evaluated at some of the samples only. Their values are packed: listed with the positions
`ray * S + sample` of their samples, and zero at all others; or given at all samples, see `sampling.selection`.

The gate is the alpha of eq. 3 that splits the layers. m^P is the probability map of eq. 4, the crop its value at a
sample. Shapes: R rays, S samples ordered from near to far. Object frame; lengths in object radii.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from surface_sos_ns.rendering.blend import accumulate, blend_weights, layer_weights, ray_distortion
from surface_sos_ns.rendering.neus import density_opacity, neus_opacity

MIN_BACKGROUND_OPACITY = 0.05
"""Least accumulated opacity that the clean plate's colour is divided by: fainter rays stay darker."""


class PackedValues(NamedTuple):
    """Values at N of the R * S samples of rays; zero at all others."""

    values: Tensor  # (N,) or (N, C)
    positions: Tensor | None  # (N,) int64, ray * S + sample, ascending; None where N is R * S, zeros included

    def spread(self, rays: int, samples: int) -> Tensor:
        """Unpack to (R, S) or (R, S, C), zeros included."""
        if self.positions is None:
            return self.values.reshape(rays, samples, *self.values.shape[1:])
        flat = self.values.new_zeros(rays * samples, *self.values.shape[1:])
        return flat.index_put((self.positions,), self.values).reshape(rays, samples, *self.values.shape[1:])


def no_values(like: Tensor, *width: int) -> PackedValues:
    """Values (0, *width) at no sample, of the dtype and device of `like`."""
    return PackedValues(like.new_zeros(0, *width), torch.zeros(0, dtype=torch.int64, device=like.device))


class RayWeights(NamedTuple):
    """Volume rendering weights of samples (eq. 7), and the sums along rays that need no colour."""

    foreground: Tensor  # (R, S) T_i aF_i
    background: Tensor  # (R, S) T_i (1 - aF_i) aB_i
    background_only: Tensor  # (R, S) T_i aB_i of the background rendered without the foreground: the clean plate's
    growth_scale: Tensor  # (R, S) in [0, 1], see `background_growth_scale`; no gradient
    alpha: Tensor  # (R,) the object's matte, sum of `foreground`
    accumulation: Tensor  # (R,) accumulated opacity of both layers
    depth: Tensor  # (R,) expected distance along the ray; remaining transmittance counts at the last sample
    distortion: Tensor  # (R,) mip-NeRF 360's, of `background_only`: 0 for one surface

    @property
    def combined(self) -> Tensor:
        """(R, S) sum of both layers' weights."""
        return self.foreground + self.background


class RayColours(NamedTuple):
    """Colours of rays, before the exposure of a view is applied."""

    foreground: Tensor  # (R, 3) the object over black (premultiplied)
    background: Tensor  # (R, 3) the clean plate, divided by its accumulated opacity
    rgb: Tensor  # (R, 3) both layers over black
    normal: Tensor  # (R, 3) weighted unit normals of the foreground


class _ScaleGrowth(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, opacity: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return opacity.view_as(opacity)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (scale,) = ctx.saved_tensors
        return torch.where(grads[0] > 0, grads[0], grads[0] * scale), None


def scale_growth(opacity: Tensor, scale: Tensor) -> Tensor:
    """The same opacity; gradients that would increase it are multiplied by `scale`, those that would decrease it pass.

    Gradient descent increases what has a negative gradient.
    """
    result: Tensor = _ScaleGrowth.apply(opacity, scale)
    return result


def scale_gradient(values: Tensor, scale: Tensor) -> Tensor:
    """The same values; their gradients are multiplied by `scale` (broadcastable, gets no gradient)."""
    return values * scale + values.detach() * (1.0 - scale) if values.requires_grad else values


def background_growth_scale(middle: Tensor, to_object: Tensor, crop: Tensor) -> Tensor:
    """Factor (R, S), in [0, 1], on gradients that would make the background denser or change its colours.

    It is 0 on rays through m^P: the background would learn the object's colours there, replace the object and leave a
    ghost in the clean plate. And it falls off towards the camera as (distance / distance to the object)^2: rays of one
    camera are so dense near it that floaters would grow there (Philip & Deschaintre 2023, the paper's [23]).

    Args:
        middle: (R, S) distances of the samples from the camera.
        to_object: (R,) distance from the camera to the object, at least 1.
        crop: (R,) highest m^P along the ray.
    """
    return (middle / to_object[:, None]).square().clamp(max=1.0) * (1.0 - crop)[:, None]


def section_opacity(
    sdf: Tensor,
    normal: Tensor,
    directions: Tensor,
    interval: Tensor,
    sharpness: Tensor,
    anneal: float | Tensor,
    index: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Opacity of ray sections in a signed distance field (eq. 6, by `neus_opacity`), and unit normals.

    Args:
        sdf: (N,) signed distance at the sample, the midpoint of its section.
        normal: (N, 3) gradient of the SDF, not normalised.
        directions: (N, 3) unit, one per sample; (R, 3), one per ray, where `interval` is (R, S).
        interval: (N,) lengths of the sections; or (R, S), of all samples.
        sharpness: () b of eq. 6, in 1 / unit of `sdf`.
        anneal: NeuS' cosine annealing, from 0 (softened, start of training) to 1 (the true cosine).
        index: (N,) int64, positions `ray * S + sample` of the samples among all, ascending; None where N is R * S, and
            where `interval` is (N,).

    Returns:
        opacity (N,) in [0, 1] and unit normals (N, 3). Gradients go to `sdf`, `normal`, `sharpness` and `directions`.

    Raises:
        ValueError, TypeError: numba back-end only, for shapes, positions or dtypes that do not fit.
    """
    if index is not None:
        directions, interval = directions[index // interval.shape[1]], interval.reshape(-1)[index]
    elif interval.ndim == 2:
        directions, interval = directions[:, None].expand(*interval.shape, 3).reshape(-1, 3), interval.reshape(-1)
    cosine = (normal * directions).sum(-1)
    return neus_opacity(sdf, cosine, interval, sharpness, anneal), F.normalize(normal, dim=-1)


def density_section_opacity(density: Tensor, crop: Tensor, interval: Tensor, index: Tensor | None = None) -> Tensor:
    """Opacity `1 - exp(-density (1 - crop) interval)` of ray sections in a density that m^P crops (as in eq. 4).

    Args:
        density: (N,) per object radius, at least 0.
        crop, interval: (N,) m^P in [0, 1] and lengths of the sections; or (R, S) or (R * S,), of all samples.
        index: as for `section_opacity`.

    Returns:
        (N,) in [0, 1]. Gradients go to `density`.

    Raises:
        ValueError, TypeError: numba back-end only, for shapes, positions or dtypes that do not fit.
    """
    crop, interval = crop.reshape(-1), interval.reshape(-1)
    if index is not None:
        crop, interval = crop[index], interval[index]
    return density_opacity(density * (1.0 - crop), interval)


def composite_weights(
    foreground: PackedValues,
    background: PackedValues,
    gate: PackedValues,
    edges: Tensor,
    to_object: Tensor,
    crop: Tensor,
) -> RayWeights:
    """Blend both layers front to back (eq. 3, 5 and 7): weights, and the sums along rays that need no colour.

    Args:
        foreground: opacity of FoCoR's surface at N samples, before the gate splits it.
        background: opacity of the background at B samples. Its gradient goes through `scale_growth`.
        gate: the alpha of eq. 3 that splits the layers, at I samples, in [0, 1].
        edges: (R, S + 1) increasing distances of the edges between the samples' sections.
        to_object: (R,) distance from the camera to the object, at least 1.
        crop: (R,) highest m^P along the ray.

    Returns:
        See `RayWeights`. Gradients go to both opacities and the gate. Distortion is computed on normalised distances
        t / (t + to_object), in which the object lies at 1/2 and infinity at 1.

    Raises:
        ValueError, TypeError: numba back-end only, for shapes, positions or dtypes that do not fit.
    """
    rays, samples = edges.shape[0], edges.shape[1] - 1
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
    growth_scale = background_growth_scale(middle, to_object, crop)
    opacity = scale_growth(background.spread(rays, samples), growth_scale)
    weights = blend_weights(foreground.spread(rays, samples), opacity, gate.spread(rays, samples))
    combined = weights.foreground + weights.background
    background_only = layer_weights(opacity)
    return RayWeights(
        foreground=weights.foreground,
        background=weights.background,
        background_only=background_only,
        growth_scale=growth_scale,
        alpha=weights.foreground.sum(-1),
        accumulation=combined.sum(-1),
        depth=(combined * middle).sum(-1) + weights.transmittance * middle[:, -1],
        distortion=ray_distortion(background_only, edges / (edges + to_object[:, None])),
    )


def composite_colours(
    weights: RayWeights, foreground: PackedValues, background: PackedValues, normal: PackedValues
) -> RayColours:
    """Sum colours (eq. 7) and normals of samples along rays.

    Args:
        weights: of `composite_weights`.
        foreground: colours (F, 3) of the foreground at samples with a weight that matters, see
            `sampling.selection.seen_samples`.
        background: colours (G, 3) of the background at such samples. Their gradient is scaled by
            `weights.growth_scale`.
        normal: unit normals (N, 3) of the foreground.

    Returns:
        See `RayColours`. Gradients go to the weights, both colours and the normals.

    Raises:
        ValueError, TypeError: numba back-end only, for shapes, positions or dtypes that do not fit.
    """
    shape = weights.background_only.shape
    rgb_b = scale_gradient(background.spread(*shape), weights.growth_scale[..., None])
    rgb_f = accumulate(weights.foreground, foreground.spread(*shape))
    opacity = weights.background_only.sum(-1, keepdim=True)
    return RayColours(
        foreground=rgb_f,
        background=accumulate(weights.background_only, rgb_b) / opacity.clamp(min=MIN_BACKGROUND_OPACITY),
        rgb=rgb_f + accumulate(weights.background, rgb_b),
        normal=accumulate(weights.foreground, normal.spread(*shape)),
    )


def accumulate_detached(weights: Tensor, values: PackedValues) -> Tensor:
    """Sum values of samples along rays, `sum_i w_i v_i`, without gradient to the weights.

    For what is learned on surfaces (labels, features): it must not move them.

    Args:
        weights: (R, S).
        values: (N,) or (N, C).

    Returns:
        (R,) or (R, C). Gradients go to the values.

    Raises:
        ValueError, TypeError: numba back-end only, for shapes, positions or dtypes that do not fit.
    """
    spread = values.spread(*weights.shape)
    fixed = weights.detach()
    return (fixed.reshape(*fixed.shape, *[1] * (spread.ndim - 2)) * spread).sum(1)
