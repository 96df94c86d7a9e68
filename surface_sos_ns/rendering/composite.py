"""From opacities to what a ray sees, in plain torch.

`section_opacity` (or `density_section_opacity`) says how much light each evaluated sample stops, `composite_weights`
how much each of them contributes, `composite_colours` adds up what was evaluated where that matters, and
`accumulate_detached` anything else that surfaces carry. Fields are evaluated at some of the samples: their values are
packed together with the samples' positions `ray * S + sample`, and are zero at all others.

Shapes: R rays, S samples ordered from near to far. Everything is in the object frame, lengths in object radii.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from surface_sos_ns.rendering.blend import accumulate, blend_weights, ray_distortion, single_weights
from surface_sos_ns.rendering.neus import density_opacity, neus_opacity

LEAST_COVERED = 0.05
"""Rays on which the background stops less light than this have its colour scaled as if it stopped this much."""


class PackedValues(NamedTuple):
    """Values at some of the samples of R rays; at all others they are zero."""

    values: Tensor  # (N,) or (N, C)
    positions: Tensor  # (N,) int64, ray * S + sample, ascending

    def spread(self, rays: int, samples: int) -> Tensor:
        """(R, S) or (R, S, C) with the values in their places."""
        flat = self.values.new_zeros(rays * samples, *self.values.shape[1:])
        return flat.index_put((self.positions,), self.values).reshape(rays, samples, *self.values.shape[1:])


def no_values(like: Tensor, *width: int) -> PackedValues:
    """Values at no sample at all, (0, *width) of the dtype and device of `like`."""
    return PackedValues(like.new_zeros(0, *width), torch.zeros(0, dtype=torch.int64, device=like.device))


class RayWeights(NamedTuple):
    """How much samples contribute to rays, and what follows from that alone."""

    foreground: Tensor  # (R, S) T_i aF_i
    background: Tensor  # (R, S) T_i (1 - aF_i) aB_i
    alone: Tensor  # (R, S) of the background without the foreground: the clean plate's
    trust: Tensor  # (R, S) in [0, 1], see `background_trust`; no gradient
    alpha: Tensor  # (R,) the object's matte, sum of `foreground`
    accumulation: Tensor  # (R,) light stopped by anything
    depth: Tensor  # (R,) expected distance along the ray; the last sample's where nothing stops the light
    distortion: Tensor  # (R,) spread of the light stopped by the background alone, 0 for one surface

    @property
    def stopped(self) -> Tensor:
        """(R, S) light that either layer stops at each sample."""
        return self.foreground + self.background


class RayColours(NamedTuple):
    """Colours of rays before a view's exposure."""

    foreground: Tensor  # (R, 3) the object over black
    background: Tensor  # (R, 3) the clean plate, scaled to full coverage
    rgb: Tensor  # (R, 3) both layers over black
    normal: Tensor  # (R, 3) weighted unit normals of the foreground


class _ThinOrTrust(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, opacity: Tensor, trust: Tensor) -> Tensor:
        ctx.save_for_backward(trust)
        return opacity.view_as(opacity)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (trust,) = ctx.saved_tensors
        return torch.where(grads[0] > 0, grads[0], grads[0] * trust), None


def thin_or_trust(opacity: Tensor, trust: Tensor) -> Tensor:
    """The same opacity; gradients that ask for more of it are scaled by `trust`, those that thin it pass.

    Descent goes against the gradient: a negative one asks for more opacity.
    """
    return _ThinOrTrust.apply(opacity, trust)


def scale_gradient(values: Tensor, scale: Tensor) -> Tensor:
    """The same values; gradients through them are multiplied by `scale` (broadcastable, without gradient)."""
    return values * scale + values.detach() * (1.0 - scale) if values.requires_grad else values


def background_trust(middle: Tensor, to_object: Tensor, crop: Tensor) -> Tensor:
    """(R, S) how much each sample may teach the background to grow, in [0, 1]; it may always be thinned.

    Rays through m^P must not: the background would learn the object's colours, explain the object away and leave a
    ghost in the clean plate. And space near a camera is hit by that camera's rays quadratically more often than by
    the others', so floaters grow there; gradients are scaled back by (distance / distance to the object)^2
    (Philip & Deschaintre 2023, the paper's [23]).

    Args:
        middle: (R, S) distances of the samples.
        to_object: (R,) distance to the object, at least 1.
        crop: (R,) highest m^P along the ray.
    """
    return (middle / to_object[:, None]).square().clamp(max=1.0) * (1.0 - crop)[:, None]


def section_opacity(
    sdf: Tensor,
    normal: Tensor,
    directions: Tensor,
    interval: Tensor,
    sharpness: Tensor,
    anneal: float,
    index: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Opacity of sections of rays through a signed distance field (eq. 6, `neus_opacity`).

    Args:
        sdf: (N,) signed distance at the sample in the section's middle.
        normal: (N, 3) its gradient, not normalised.
        directions: unit, (N, 3), one a sample; with `index` (R, 3), one a ray.
        interval: lengths of the sections, (N,), one a sample; with `index` (R, S), of all samples.
        sharpness: () b of eq. 6.
        anneal: 0 softens the cosine as at the start of NeuS training, 1 leaves it as it is.
        index: (N,) which of the rays' samples these are: ray * S + sample, ascending.

    Returns:
        opacity (N,) in [0, 1] and unit normals (N, 3). Gradients go to `sdf`, `normal`, `sharpness` and `directions`.

    Raises:
        ValueError, TypeError: compiled, where shapes, positions or kinds of numbers do not fit.
    """
    if index is not None:
        directions, interval = directions[index // interval.shape[1]], interval.reshape(-1)[index]
    cosine = (normal * directions).sum(-1)
    return neus_opacity(sdf, cosine, interval, sharpness, anneal), F.normalize(normal, dim=-1)


def density_section_opacity(density: Tensor, crop: Tensor, interval: Tensor, index: Tensor | None = None) -> Tensor:
    """Opacity `1 - exp(-density (1 - crop) interval)` of sections of rays through a cropped density (eq. 4).

    Args:
        density: (N,) per object radius, at least 0.
        crop, interval: m^P in [0, 1] and lengths of the sections, (N,), one a sample; with `index` of all of the rays'
            samples, (R, S) or (R * S,).
        index: as for `section_opacity`.

    Returns:
        (N,) in [0, 1]. Gradients go to `density`.

    Raises:
        ValueError, TypeError: compiled, where shapes, positions or kinds of numbers do not fit.
    """
    if index is not None:
        crop, interval = crop.reshape(-1)[index], interval.reshape(-1)[index]
    return density_opacity(density * (1.0 - crop), interval)


def composite_weights(
    foreground: PackedValues,
    background: PackedValues,
    gate: PackedValues,
    edges: Tensor,
    to_object: Tensor,
    crop: Tensor,
) -> RayWeights:
    """Blend both layers front to back (eq. 3, 5 and 7) and add up along the rays what needs no colour.

    Args:
        foreground: opacity of the foreground surface at N samples, before the label has split it.
        background: opacity of the background at B samples. Its gradient passes `thin_or_trust`.
        gate: (I,) the alpha of eq. 3 that splits the layers, in [0, 1]; with a gradient where it has one.
        edges: (R, S + 1) distances along the rays where their samples' sections begin and end, increasing.
        to_object: (R,) distance to the object, at least 1.
        crop: (R,) highest m^P along the ray.

    Returns:
        See `RayWeights`. Gradients go to both opacities and the gate. Distortion is that of distances t as fractions
        t / (t + to_object): half way to the object 1/3, the object 1/2.

    Raises:
        ValueError, TypeError: compiled, where shapes, positions or kinds of numbers do not fit.
    """
    rays, samples = edges.shape[0], edges.shape[1] - 1
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
    trust = background_trust(middle, to_object, crop)
    opacity = thin_or_trust(background.spread(rays, samples), trust)
    weights = blend_weights(foreground.spread(rays, samples), opacity, gate.spread(rays, samples))
    union = weights.foreground + weights.background
    alone = single_weights(opacity)
    return RayWeights(
        foreground=weights.foreground,
        background=weights.background,
        alone=alone,
        trust=trust,
        alpha=weights.foreground.sum(-1),
        accumulation=union.sum(-1),
        depth=(union * middle).sum(-1) + weights.transmittance * middle[:, -1],
        distortion=ray_distortion(alone, edges / (edges + to_object[:, None])),
    )


def seen_samples(
    index: Tensor, threshold: float, weights: Tensor, others: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Which of the listed samples weigh more than `threshold`, in `weights` or in `others`. No gradient.

    Args:
        index: (N,) int64, ray * S + sample, ascending.
        weights, others: (R, S).

    Returns:
        (K,) places in the list, ascending, and (K,) the positions `index` has there.

    Raises:
        ValueError, TypeError: compiled, where shapes, positions or kinds of numbers do not fit.
    """
    largest = weights.detach() if others is None else torch.maximum(weights.detach(), others.detach())
    places = (largest.reshape(-1)[index] > threshold).nonzero()[:, 0]
    return places, index[places]


def composite_colours(
    weights: RayWeights, foreground: PackedValues, background: PackedValues, normal: PackedValues
) -> RayColours:
    """Add up along the rays the colours (eq. 7) and normals of samples.

    Args:
        weights: of `composite_weights`.
        foreground: colours (F, 3) of the foreground at samples that can be seen.
        background: colours (G, 3) of the background. Gradients into them are scaled by `weights.trust`.
        normal: unit normals (N, 3) of the foreground.

    Returns:
        See `RayColours`. Gradients go to the weights, both colours and the normals.

    Raises:
        ValueError, TypeError: compiled, where shapes, positions or kinds of numbers do not fit.
    """
    shape = weights.alone.shape
    rgb_b = scale_gradient(background.spread(*shape), weights.trust[..., None])
    rgb_f = accumulate(weights.foreground, foreground.spread(*shape))
    covered = weights.alone.sum(-1, keepdim=True)
    return RayColours(
        foreground=rgb_f,
        background=accumulate(weights.alone, rgb_b) / covered.clamp(min=LEAST_COVERED),
        rgb=rgb_f + accumulate(weights.background, rgb_b),
        normal=accumulate(weights.foreground, normal.spread(*shape)),
    )


def accumulate_detached(weights: Tensor, values: PackedValues) -> Tensor:
    """What surfaces carry, summed along rays: `sum_i w_i v_i`, with the geometry detached.

    Args:
        weights: (R, S). No gradient goes to them: what is painted on surfaces must not move them.
        values: (N,) or (N, C).

    Returns:
        (R,) or (R, C). Gradients go to the values.

    Raises:
        ValueError, TypeError: compiled, where shapes, positions or kinds of numbers do not fit.
    """
    spread = values.spread(*weights.shape)
    fixed = weights.detach()
    return (fixed.reshape(*fixed.shape, *[1] * (spread.ndim - 2)) * spread).sum(1)
