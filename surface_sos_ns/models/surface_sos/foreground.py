"""FoCoR, the foreground: the object's surface, its opacity along rays, and its colours (eq. 1-3 and 6)."""

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
from surface_sos_ns.training.schedules import Progress, geometric, ramp

GEOMETRY_WIDTH = 12
"""Length of FoCoR's geometry feature (Fig. 3)."""
ANNEALING_END = 0.3
"""Fraction of the run at which NeuS' cosine annealing ends."""
SHARPENING = (0.8, 1.0)
"""Fractions of the run between which b is sharpened, when its floor has reached its end."""


class ForegroundSamples(NamedTuple):
    """The foreground at the N samples near its surface; `surface` also holds Q further points, after these.

    Where the object deforms, points and the field's normals are canonical, opacity and unit normals observed.
    """

    opacity: PackedValues  # (N,) before the gate (the alpha of eq. 3) splits the layers
    unit: Tensor  # (N, 3) unit normals
    points: Tensor  # (N, 3) at which the field was evaluated
    surface: SurfaceSample  # (N + Q,)

    @property
    def size(self) -> int:
        """Number N of samples, without the further points."""
        return self.points.shape[0]

    @property
    def colour_inputs(self) -> Tensor:
        """Inputs (N, I) of the colour net (eq. 2 and 3), without the directions."""
        sdf, geometry = self.surface.sdf[: self.size, None], self.surface.geometry[: self.size]
        return torch.cat([self.points, self.unit, sdf, geometry], -1)


class SurfaceColours(NamedTuple):
    """The foreground at P points, viewed against the surface normal."""

    sdf: Tensor  # (P,) signed distance, object radii
    rgb: Tensor  # (P, 3)
    alpha: Tensor | None  # (P,) predicted alpha of eq. 3; None where votes split the layers


class Foreground(nn.Module):
    """The signed distance field over the object cube, its colour net and its sharpness b.

    Args:
        config: sizes and choices.
        ops: back-end of the numeric operations.
    """

    def __init__(self, config: SceneConfig, ops: TorchOps):
        super().__init__()
        self.config, self.ops = config, ops
        self.field = SDFField(config.foreground_grid, GEOMETRY_WIDTH, 1.0, 0.5, config.hidden, ops)
        self.colour = ColourNet(
            3 + 3 + 1 + GEOMETRY_WIDTH,
            config.hidden,
            predict_alpha=config.split == "predicted",
            ops=ops,
            light=config.light_codes,
        )
        self.log_sharpness = nn.Parameter(torch.tensor(0.3))  # v in b = exp(10 v), as in NeuS

    def sharpness(self, progress: Progress) -> Tensor:
        """() b of eq. 6, in 1 / object radius: the learned value on top of a floor that rises over the run, and both
        times a factor that rises at its end."""
        floor = geometric(progress, self.config.first_sharpness, self.config.last_sharpness, 0.8)
        b = floor + torch.exp(10.0 * self.log_sharpness).clamp(max=2.0 * self.config.last_sharpness)
        return b * geometric(ramp(progress, *SHARPENING), 1.0, self.config.sharpening)

    def evaluate(
        self,
        samples: Samples,
        directions: Tensor,
        displacement: Displacement | None,
        progress: Progress,
        further: Tensor | None = None,
    ) -> ForegroundSamples:
        """Evaluate the field (eq. 1) and its opacity (eq. 6) at `samples.near_surface`.

        Args:
            samples: of R rays.
            directions: (R, 3) unit.
            displacement: of those samples to the canonical frame; None if the object does not deform.
            progress: fraction of the run.
            further: (Q, 3) canonical points at which the field is evaluated as well.
        """
        selection = samples.near_surface
        points = selection.take(samples.points) if displacement is None else displacement.points
        surface = self.field(points if further is None else torch.cat([points, further]))
        assert surface.normal is not None
        count = points.shape[0]
        normal = surface.normal[:count]
        normal = normal if displacement is None else displacement.observed_normal(normal)
        if self.config.foreground == "density":
            density = soft_density(surface.sdf[:count], self.sharpness(progress))
            interval = selection.take(samples.interval.reshape(-1))
            opacity = self.ops.density_section_opacity(density, torch.zeros_like(density), interval)
            unit = F.normalize(normal, dim=-1)
        else:
            opacity, unit = self.ops.section_opacity(
                surface.sdf[:count],
                normal,
                directions,
                samples.interval,
                self.sharpness(progress),
                ramp(progress, 0.0, ANNEALING_END),
                selection.positions,
            )
        return ForegroundSamples(selection.pack(opacity), unit, points, surface)

    def seen_from_outside(self, points: Tensor) -> SurfaceColours:
        """The foreground at canonical points (P, 3), viewed against the surface normal."""
        surface = self.field(points)
        assert surface.normal is not None
        unit = F.normalize(surface.normal, dim=-1)
        rgb, alpha = self.colour(torch.cat([points, unit, surface.sdf[:, None], surface.geometry], -1), -unit)
        return SurfaceColours(surface.sdf, rgb, alpha)
