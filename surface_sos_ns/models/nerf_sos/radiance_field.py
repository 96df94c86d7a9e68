"""The radiance field of NeRF-SOS, and its rendering: density and colour over contracted space.

It is the background of surface-sos alone: the same field, cached sampling and compositing. Object frame; lengths in
object radii.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from surface_sos_ns.models.nerf_sos.config import NerfSOSConfig
from surface_sos_ns.models.surface_sos.background import BackgroundSamples, DensityBackground
from surface_sos_ns.models.surface_sos.background.density import GEOMETRY_WIDTH
from surface_sos_ns.models.surface_sos.initialisation import SightLines
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.rendering.composite import RayWeights, no_values
from surface_sos_ns.sampling.field_cache import FieldCache
from surface_sos_ns.sampling.ray_samples import SamplePlan, Samples
from surface_sos_ns.sampling.selection import Selection

SOLID_OPTICAL_DEPTH = 0.7
"""Optical depth, over `SOLID_THICKNESS`, from which on a point counts as solid: half of the light is stopped."""
SOLID_THICKNESS = 0.05
"""Object radii."""


class RayRadiance(NamedTuple):
    """R rendered rays, S samples each."""

    rgb: Tensor  # (R, 3) over black
    accumulation: Tensor  # (R,) accumulated opacity
    depth: Tensor  # (R,) expected distance
    distortion: Tensor  # (R,) mip-NeRF 360's
    weights: Tensor  # (R, S) T_i a_i of the samples
    middle: Tensor  # (R, S) their distances along the rays
    selection: Selection  # all R * S of them
    features: Tensor  # (R * S, 3 + G) contracted points and geometry features there


def is_solid(density: Tensor) -> Tensor:
    """(P,) bool, where densities (P,), per object radius, stop half of the light within `SOLID_THICKNESS`."""
    return density * SOLID_THICKNESS > SOLID_OPTICAL_DEPTH


class RadianceField(nn.Module):
    """Density and colour over contracted space, with the cache that guides sampling.

    Args:
        config: sizes and choices.
        ops: back-end of the numeric operations.

    Attributes:
        feature_width: length G of the geometry feature.
    """

    nowhere: Tensor
    feature_width = GEOMETRY_WIDTH

    def __init__(self, config: NerfSOSConfig, ops: TorchOps):
        super().__init__()
        self.config, self.ops = config, ops
        self.layer = DensityBackground(config.radiance(), ops)
        self.cache = FieldCache(2, config.cache_resolution, splits=False)
        self.register_buffer("nowhere", torch.zeros(2, 2, 2), persistent=False)  # m^P: nothing is cropped

    def describe(self) -> str:
        """How rays are sampled, for the log."""
        return f"cached sampling, {self.config.samples} samples"

    def fit(self, lines: SightLines, steps: int) -> None:
        """Initialise from sparse points and their lines of sight; see `Background.fit`."""
        self.layer.fit(lines, steps)

    @torch.no_grad()
    def update_cache(self, share: float = 1.0) -> None:
        """Refresh a share of the cached density, drawn at random."""
        self.layer.refresh_cache(self.cache, lambda points: torch.zeros_like(points[:, 0]), share)

    def render(self, origins: Tensor, directions: Tensor, dense: bool = False, colours: bool = True) -> RayRadiance:
        """Render rays (R, 3), directions unit; in training with few samples, drawn at random.

        Args:
            origins, directions: of the rays.
            dense: evaluate the field at all samples and never wait for the device, see `sampling.selection`.
            colours: otherwise `rgb` is black: geometry alone is several times faster.
        """
        samples = self.ops.sample_rays(
            self.cache, self.nowhere, None, origins.detach(), directions.detach(), self._plan(dense), self.training
        )
        found = self.layer.evaluate(samples, directions, 1.0)
        weights = self._weights(samples, found)
        rgb = torch.zeros_like(origins)
        if colours:
            seen, nothing = (
                self.layer.colours(found, samples, directions, weights.background_only),
                no_values(origins, 3),
            )
            rgb = self.ops.composite_colours(weights, nothing, seen, nothing).rgb
        opacity = weights.background_only.sum(-1)
        return RayRadiance(
            rgb=rgb,
            accumulation=opacity,
            depth=weights.depth,
            distortion=weights.distortion,
            weights=weights.background_only,
            middle=samples.middle,
            selection=samples.background,
            features=found.colour_inputs,
        )

    # ------------------------------------------------------------------ at points

    def features_at(self, points: Tensor) -> Tensor:
        """Contracted points and geometry features (P, 3 + G) at points (P, 3)."""
        contracted = self.layer.contracted(points)
        return torch.cat([contracted, self.layer.field(contracted)[1]], -1)

    def solid(self, points: Tensor) -> Tensor:
        """(P,) bool, whether points (P, 3) lie in something that stops light."""
        return is_solid(self.layer.field(self.layer.contracted(points))[0])

    def _weights(self, samples: Samples, found: BackgroundSamples) -> RayWeights:
        none, ones = no_values(samples.edges), samples.edges.new_ones(samples.edges.shape[0])
        return self.ops.composite_weights(none, found.opacity, none, samples.edges, ones, torch.zeros_like(ones))

    def _plan(self, dense: bool) -> SamplePlan:
        c = self.config
        return SamplePlan(
            c.candidates,
            c.near_fraction,
            c.far,
            c.samples if self.training else c.render_samples,
            1.0,
            self.layer.contraction_radius,
            background_only=True,
            dense=dense,
        )
