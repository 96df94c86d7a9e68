"""The background as it is without the object: how surely it is known, and what completes it where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from surface_sos_ns.clean_plate.observation_grid import ObservationGrid
from surface_sos_ns.clean_plate.shadow import seen_past
from surface_sos_ns.clean_plate.support_map import BackgroundView, SupportMap
from surface_sos_ns.sampling.ray_samples import Samples

COVERED = 1e-2
"""Alpha from which on the background of a ray is sampled anew behind the object."""

Look = Callable[[Tensor, Tensor], BackgroundView]
"""What rays (R, 3), (R, 3) of the object frame see of the background alone."""


class PlateView(NamedTuple):
    """The clean plate of R rays."""

    colours: Tensor  # (R, 3) as they add up
    confidence: Tensor  # (R,) how surely training has seen it; 0 where the map fills in
    filled: Tensor  # (R,) share of it that the map of the support fills in
    shadow: Tensor  # (R,) share of the light on it that the object keeps away, made up for in it


class CleanPlate(nn.Module):
    """What training has seen of the background, and a map of what the object stands on.

    Args:
        resolution: cells per axis of the record of what has been seen.
    """

    def __init__(self, resolution: int):
        super().__init__()
        self.observations = ObservationGrid(resolution)
        self.support_map = SupportMap()

    def observe(self, samples: Samples, weights: Tensor) -> None:
        """Count the light (R, S) that training rays left at their samples of the background."""
        self.observations.add(samples.points[samples.background], weights.reshape(-1)[samples.background])

    def confidence(self, samples: Samples, weights: Tensor) -> Tensor:
        """(R,) how surely training has seen the background that weighs `weights` (R, S) in these samples."""
        per_ray, at = samples.interval.shape[1], samples.background
        weight = weights.reshape(-1)[at]
        known = weights.new_zeros(weights.shape[0])
        known.index_add_(0, at // per_ray, weight * self.observations.confidence(samples.points[at]))
        return known / weights.sum(-1).clamp(min=1e-6)

    def complete(
        self, origins: Tensor, directions: Tensor, beside: BackgroundView, alpha: Tensor, look: Look
    ) -> PlateView:
        """The clean plate of rays, looked at anew where the object covers it, completed and lit.

        Args:
            origins, directions: (R, 3), object frame.
            beside: what the same rays see of the background with samples that were drawn with the object in place.
            alpha: (R,) the object's matte.
            look: see `Look`.
        """
        confidence = beside.confidence
        background, filled, shadow = self.support_map.mend(origins, directions, beside)
        hidden = (alpha > COVERED).nonzero()[:, 0]
        if hidden.numel():
            rays = origins[hidden], directions[hidden]
            behind = look(*rays)
            mended = self.support_map.mend(*rays, behind)
            background = background.index_put((hidden,), mended.colours)
            confidence = confidence.index_put((hidden,), behind.confidence)
            filled = filled.index_put((hidden,), mended.filled)
            shadow = shadow.index_put((hidden,), mended.shadow)
        return PlateView(background, confidence * (1.0 - filled), filled, shadow)

    @torch.no_grad()
    def discount_hidden(self, around: Tensor, cameras: Tensor) -> None:
        """Discount what training believes to have seen of the background where the object hides it in all views.

        Args:
            around: (N, N, N) bool over the object cube, where the object is, grown by what it stains.
            cameras: (V, 3) centres of the training views, object frame.
        """
        self.observations.discount(lambda points: seen_past(around, points, cameras))

    @torch.no_grad()
    def map_support(self, look: Look, solid: Tensor, around: Tensor, cameras: Tensor, chunk: int = 1 << 13) -> bool:
        """Map what the object stands on; whether it stands on a plane.

        Args:
            look: see `Look`.
            solid: (N, N, N) bool over the object cube, where the object is; `around` grown by what it stains.
            cameras: (V, 3) centres of the training views, object frame.
            chunk: rays rendered at once.
        """

        def in_chunks(origins: Tensor, directions: Tensor) -> BackgroundView:
            parts = zip(origins.split(chunk), directions.split(chunk), strict=True)
            return BackgroundView(*map(torch.cat, zip(*(look(*part) for part in parts), strict=True)))

        return self.support_map.make(in_chunks, solid, around, cameras)
