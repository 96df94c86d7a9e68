"""FoCoR: the object's surface, how opaque it is along rays, and its colours (eq. 1-3, 6)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.fields.colour import ColourNet
from surface_sos_ns.fields.deformation import Displacement
from surface_sos_ns.fields.sdf import SDFField, SurfaceSample
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.rendering.composite import PackedValues
from surface_sos_ns.rendering.neus import soft_density
from surface_sos_ns.sampling.ray_samples import Samples
from surface_sos_ns.training.schedules import geometric, ramp

GEOMETRY_WIDTH = 12
"""Length of FoCoR's geometry feature (Fig. 3)."""
ANNEALED_AT = 0.3
"""Fraction of the run from which the cosine of eq. 6 is the surface's own."""


class ForegroundSamples(NamedTuple):
    """The foreground at the N samples near its surface, and behind them in `surface` at Q further points.

    Where the object deforms, points and the field's own normals are canonical; opacity and unit normals are those seen.
    """

    opacity: PackedValues  # (N,) before the layers are split
    unit: Tensor  # (N, 3) unit normals
    points: Tensor  # (N, 3) at which the field was asked
    surface: SurfaceSample  # (N + Q,)

    @property
    def size(self) -> int:
        """N."""
        return self.points.shape[0]

    @property
    def colour_inputs(self) -> Tensor:
        """(N, I) of the colour net, directions not counted."""
        sdf, geometry = self.surface.sdf[: self.size, None], self.surface.geometry[: self.size]
        return torch.cat([self.points, self.unit, sdf, geometry], -1)


class SurfaceColours(NamedTuple):
    """The foreground at P points, seen straight from the outside."""

    sdf: Tensor  # (P,) signed distance
    rgb: Tensor  # (P, 3)
    alpha: Tensor | None  # (P,) predicted alpha of eq. 3, where one is predicted


class Foreground(nn.Module):
    """The signed distance field over the object cube, its colour net and its sharpness.

    Args:
        config: sizes and choices.
        ops: numeric operations.
    """

    def __init__(self, config: SceneConfig, ops: TorchOps):
        super().__init__()
        self.config, self.ops = config, ops
        self.field = SDFField(config.foreground_grid, GEOMETRY_WIDTH, 1.0, 0.5, config.hidden, ops)
        self.colour = ColourNet(
            3 + 3 + 1 + GEOMETRY_WIDTH, config.hidden, predict_alpha=config.split == "predicted", ops=ops
        )
        self.log_sharpness = nn.Parameter(torch.tensor(0.3))  # v of b = exp(10 v)

    def sharpness(self, progress: float) -> Tensor:
        """() b of eq. 6: learned, on top of a floor that rises over the run."""
        floor = geometric(progress, self.config.first_sharpness, self.config.last_sharpness, 0.8)
        return floor + torch.exp(10.0 * self.log_sharpness).clamp(max=2.0 * self.config.last_sharpness)

    def evaluate(
        self,
        samples: Samples,
        directions: Tensor,
        displacement: Displacement | None,
        progress: float,
        further: Tensor | None = None,
    ) -> ForegroundSamples:
        """The field and its opacity at `samples.near_surface`.

        Args:
            samples: of R rays.
            directions: (R, 3) unit.
            displacement: of those samples into the canonical frame; None where nothing deforms.
            progress: fraction of the run.
            further: (Q, 3) canonical points at which the field is wanted as well.
        """
        at = samples.near_surface
        points = samples.points[at] if displacement is None else displacement.points
        surface = self.field(points if further is None else torch.cat([points, further]))
        assert surface.normal is not None
        count = points.shape[0]
        normal = surface.normal[:count]
        normal = normal if displacement is None else displacement.observed_normal(normal)
        if self.config.foreground == "density":
            density = soft_density(surface.sdf[:count], self.sharpness(progress))
            interval = samples.interval.reshape(-1)[at]
            opacity = self.ops.density_section_opacity(density, torch.zeros_like(density), interval)
            unit = F.normalize(normal, dim=-1)
        else:
            opacity, unit = self.ops.section_opacity(
                surface.sdf[:count],
                normal,
                directions,
                samples.interval,
                self.sharpness(progress),
                ramp(progress, 0.0, ANNEALED_AT),
                at,
            )
        return ForegroundSamples(PackedValues(opacity, at), unit, points, surface)

    def seen_from_outside(self, points: Tensor) -> SurfaceColours:
        """What is at canonical points (P, 3), looking against the normal."""
        surface = self.field(points)
        assert surface.normal is not None
        unit = F.normalize(surface.normal, dim=-1)
        rgb, alpha = self.colour(torch.cat([points, unit, surface.sdf[:, None], surface.geometry], -1), -unit)
        return SurfaceColours(surface.sdf, rgb, alpha)
