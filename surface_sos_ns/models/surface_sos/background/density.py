"""The background as a density: the default."""

from __future__ import annotations

import torch
from torch import Tensor

from surface_sos_ns.fields.colour import ColourNet
from surface_sos_ns.fields.density import DensityField
from surface_sos_ns.models.surface_sos.background.background import Background, BackgroundSamples
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.initialisation import SightLines, fit_density_to_points, surface_density
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.sampling.ray_samples import Samples
from surface_sos_ns.training.schedules import Progress

GEOMETRY_WIDTH = 7
"""Length of BaCo's geometry feature (Fig. 3)."""
INITIAL_LOG_DENSITY = -3.5
"""Log density, per object radius, at the start. Nearly transparent: otherwise density in front of the cameras gets all
of the first gradients."""


class DensityBackground(Background):
    """A density field over contracted space, and colours that depend on position and direction."""

    field: DensityField

    def __init__(self, config: SceneConfig, ops: TorchOps):
        super().__init__(config, ops)
        self.field = DensityField(config.background_grid, GEOMETRY_WIDTH, 2.0, INITIAL_LOG_DENSITY, config.hidden, ops)
        self.colour = ColourNet(3 + GEOMETRY_WIDTH, config.hidden, ops=ops, light=config.light_codes)

    def evaluate(self, samples: Samples, directions: Tensor, progress: Progress) -> BackgroundSamples:
        """See `Background.evaluate`."""
        at = samples.background
        crop, interval = at.take(samples.crop), at.take(samples.interval.reshape(-1))
        contracted = self.contracted(at.take(samples.points))
        density, geometry = self.field(contracted)
        opacity = self.ops.density_section_opacity(density, crop, interval)
        return BackgroundSamples(at.pack(opacity), torch.cat([contracted, geometry], -1), crop.new_zeros(0, 3))

    def cropped_density(self, contracted: Tensor, crop: Tensor) -> Tensor:
        """See `Background.cropped_density`."""
        return self.field(contracted)[0] * (1.0 - crop)

    def density_shortfall(self, points: Tensor) -> Tensor:
        """See `Background.density_shortfall`."""
        contracted = self.contracted(points)
        enough = surface_density(contracted, self.contraction_radius, self.config.background_cache_resolution)
        density, _ = self.field(contracted)
        return torch.relu(enough - density.clamp(min=1e-9).log())

    def fit(self, lines: SightLines, steps: int) -> None:
        """See `Background.fit`."""
        resolution = self.config.background_cache_resolution
        fit_density_to_points(self.field, lines, self.contraction_radius, resolution, steps)
