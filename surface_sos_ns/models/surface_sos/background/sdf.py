"""The background as a signed distance in contracted space, as in the paper (eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surface_sos_ns.fields.colour import ColourNet
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.models.surface_sos.background.background import Background, BackgroundSamples
from surface_sos_ns.models.surface_sos.background.density import GEOMETRY_WIDTH
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.initialisation import SightLines, fit_distance_to_points
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.rendering.neus import soft_density
from surface_sos_ns.sampling.contraction import contract_direction
from surface_sos_ns.sampling.ray_samples import Samples
from surface_sos_ns.sampling.selection import Selection
from surface_sos_ns.training.schedules import Progress, ramp

INITIAL_RADIUS = -1.5
"""Radius of the initial sphere, in contracted units; negative, so solid outside: a room seen from within."""
ANNEALING_END = 0.5
"""Fraction of the run at which NeuS' cosine annealing ends."""


class SDFBackground(Background):
    """A signed distance field over contracted space with its own sharpness b, and colours by eq. 4."""

    field: SDFField

    def __init__(self, config: SceneConfig, ops: TorchOps):
        super().__init__(config, ops)
        self.field = SDFField(config.background_grid, GEOMETRY_WIDTH, 2.0, INITIAL_RADIUS, config.hidden, ops)
        self.colour = ColourNet(3 + 3 + 1 + 1 + GEOMETRY_WIDTH, config.hidden, ops=ops, light=config.light_codes)
        self.log_sharpness = nn.Parameter(torch.tensor(0.2))

    @property
    def sharpness(self) -> Tensor:
        """() b of eq. 6, in 1 / contracted unit: softer at the start than the foreground's, and without a floor."""
        return torch.exp(10.0 * self.log_sharpness).clamp(max=self.config.last_sharpness)

    def evaluate(self, samples: Samples, directions: Tensor, progress: Progress) -> BackgroundSamples:
        """See `Background.evaluate`."""
        at = samples.background
        points, crop, interval = at.take(samples.points), at.take(samples.crop), at.take(samples.interval.reshape(-1))
        contracted = self.contracted(points)
        surface = self.field(contracted)
        assert surface.normal is not None
        # The SDF lives in contracted space: its derivative along the ray is that along the contracted direction.
        scale = self.contraction_radius
        direction = contract_direction(points / scale, at.take_of_rays(directions) / scale)
        opacity, unit = self.ops.section_opacity(
            torch.lerp(surface.sdf, torch.ones_like(crop), crop),  # eq. 4: set the SDF to a positive number
            surface.normal,
            direction,
            interval,
            self.sharpness,
            ramp(progress, 0.0, ANNEALING_END),
        )
        inputs = torch.cat([contracted, unit, surface.sdf[:, None], crop[:, None], surface.geometry], -1)
        uncropped = Selection.of(crop < 0.5, dense=at.counted is not None)
        return BackgroundSamples(at.pack(opacity), inputs, uncropped.take(surface.normal), uncropped.counted)

    def cropped_density(self, contracted: Tensor, crop: Tensor) -> Tensor:
        """See `Background.cropped_density`."""
        sdf = torch.lerp(self.field(contracted, normals=False).sdf, torch.ones_like(crop), crop)
        return soft_density(sdf, self.sharpness)

    def signed_distance(self, points: Tensor) -> Tensor:
        """See `Background.signed_distance`."""
        return self.field(self.contracted(points), normals=False).sdf

    def fit(self, lines: SightLines, steps: int) -> None:
        """See `Background.fit`."""
        resolution = self.config.background_cache_resolution
        fit_distance_to_points(self.field, lines, self.contraction_radius, resolution, steps)
