"""The clean plate: the background without the object, its confidence, and its completion where no photo shows it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from surface_sos_ns.clean_plate.observation_grid import ObservationGrid
from surface_sos_ns.clean_plate.shadow import visible_past
from surface_sos_ns.clean_plate.support_map import BackgroundView, RenderBackground, SupportMap
from surface_sos_ns.rendering.ray_context import NO_CONTEXT, RayContext
from surface_sos_ns.sampling.ray_samples import Samples

MIN_OBJECT_ALPHA = 1e-2
"""Alpha above which the background of a ray is sampled once more, without the object."""


class PlateView(NamedTuple):
    """The clean plate of R rays."""

    colours: Tensor  # (R, 3) in the space in which colours are blended, see `SceneConfig.blending`
    confidence: Tensor  # (R,) in [0, 1] that photos show it; 0 where the support map fills in
    filled: Tensor  # (R,) share that the support map fills in
    shadow: Tensor  # (R,) share of the light that the object blocks; the colours are corrected for it


class CleanPlate(nn.Module):
    """What training rays have observed of the background, and a map of the plane that the object stands on.

    Args:
        resolution: cells per axis of the observation grid.
        several: whether there are several objects.
    """

    def __init__(self, resolution: int, several: bool = False):
        super().__init__()
        self.observations = ObservationGrid(resolution)
        self.support_map = SupportMap(several=several)

    def observe(self, samples: Samples, weights: Tensor) -> None:
        """Count the weights (R, S) that training rays have at their background samples."""
        at = samples.background
        self.observations.add(at.take(samples.points), at.take(weights.reshape(-1)))

    def confidence(self, samples: Samples, weights: Tensor) -> Tensor:
        """Confidence (R,), in [0, 1], of the background: the mean over its samples, weighted by `weights` (R, S)."""
        at = samples.background
        found = at.take(weights.reshape(-1)) * self.observations.confidence(at.take(samples.points))
        rays = at.rays
        if rays is None:
            total = found.reshape(weights.shape).sum(-1)
        else:
            total = weights.new_zeros(weights.shape[0]).index_add_(0, rays, found)
        return total / weights.sum(-1).clamp(min=1e-6)

    def complete(
        self,
        origins: Tensor,
        directions: Tensor,
        first_pass: BackgroundView,
        alpha: Tensor,
        render_background: RenderBackground,
        kept_shade: Tensor | None = None,
        context: RayContext = NO_CONTEXT,
    ) -> PlateView:
        """The clean plate of rays: rendered again where the object covers it, completed, shadows removed.

        Args:
            origins, directions: (R, 3), object frame, directions unit.
            first_pass: the background of the same rays, at samples that were drawn with the object present.
            alpha: (R,) the object's matte.
            render_background: see `RenderBackground`.
            kept_shade: of objects that stay, see `SupportMap.complete`; None for none.
            context: of the rays.
        """
        confidence = first_pass.confidence
        background, filled, shadow = self.support_map.complete(origins, directions, first_pass, kept_shade)
        hidden = (alpha > MIN_OBJECT_ALPHA).nonzero()[:, 0]
        if hidden.numel():
            rays = origins[hidden], directions[hidden]
            second_pass = render_background(*rays, context.of(hidden))
            completed = self.support_map.complete(*rays, second_pass, kept_shade)
            background = background.index_put((hidden,), completed.colours)
            confidence = confidence.index_put((hidden,), second_pass.confidence)
            filled = filled.index_put((hidden,), completed.filled)
            shadow = shadow.index_put((hidden,), completed.shadow)
        return PlateView(background, confidence * (1.0 - filled), filled, shadow)

    @torch.no_grad()
    def discount_hidden(self, dilated: Tensor, cameras: Tensor) -> None:
        """Discount observations of what the object hides in all views: rays had leaked through it.

        Args:
            dilated: (N, N, N) bool, the object's cells over the object cube, dilated.
            cameras: (V, 3) centres of the training views, object frame.
        """
        self.observations.discount(lambda points: visible_past(dilated, points, cameras))

    @torch.no_grad()
    def map_support(
        self, render_background: RenderBackground, solid: Tensor, dilated: Tensor, cameras: Tensor, at_once: int
    ) -> bool:
        """Build the support map.

        Args:
            render_background: see `RenderBackground`.
            solid: (N, N, N) bool, the object's cells over the object cube; `dilated`: the same, dilated.
            cameras: (V, 3) centres of the training views, object frame.
            at_once: rays rendered at once.

        Returns:
            Whether the object stands on (or hangs at) a plane.
        """

        def in_chunks(origins: Tensor, directions: Tensor, context: RayContext = NO_CONTEXT) -> BackgroundView:
            assert context == NO_CONTEXT  # the map shows the mean of the photos' light
            parts = zip(origins.split(at_once), directions.split(at_once), strict=True)
            views = (render_background(*part) for part in parts)
            return BackgroundView(*map(torch.cat, zip(*views, strict=True)))

        return self.support_map.build(in_chunks, solid, dilated, cameras)
