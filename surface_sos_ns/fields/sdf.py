"""Signed distance networks over a hash grid, with exact normals (the paper's eq. 1 and Fig. 3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from surface_sos_ns.fields.hash_grid import HashGrid
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps


class SurfaceSample(NamedTuple):
    """An SDF field at P points."""

    sdf: Tensor  # (P,) signed distance in the units of the points, negative inside
    normal: Tensor | None  # (P, 3) gradient of the SDF, not normalised; None where it was not asked for
    geometry: Tensor  # (P, G) geometry feature for the colour net


def sphere_directions(count: int) -> Tensor:
    """(count, 3) unit vectors spread evenly over the sphere (Fibonacci lattice)."""
    i = torch.arange(count, dtype=torch.float32) + 0.5
    z = 1 - 2 * i / count
    phi = math.pi * (1 + 5**0.5) * i
    r = (1 - z * z).sqrt()
    return torch.stack([r * phi.cos(), r * phi.sin(), z], -1)


class SDFField(nn.Module):
    """`(sdf, geometry) = M_S(p, h(p))` with one hidden layer (eq. 1).

    The field covers the cube [-extent, extent]^3 of its input frame and starts as a sphere (geometric initialisation,
    Atzmon & Lipman 2020): the mean of ReLUs over evenly spread directions is proportional to |p|, so that the network
    computes |p| - radius from the position alone while hash features are near zero.

    Args:
        layout: of the hash grid.
        geometry_width: length G of the geometry feature (12 for FoCoR, 7 for BaCo, Fig. 3).
        extent: half the side of the cube, in the units of the points.
        radius: of the initial sphere, in the same units; negative makes the outside solid (a room seen from within).
        hidden: width of the hidden layer.
        ops: back-end of the numeric operations.
    """

    def __init__(
        self,
        layout: GridLayout,
        geometry_width: int,
        extent: float = 1.0,
        radius: float = 0.5,
        hidden: int = 64,
        ops: TorchOps = TORCH,
    ):
        super().__init__()
        self.grid = HashGrid(layout, ops)
        self.extent, self.ops = extent, ops
        self.geometry_width = geometry_width
        self.hidden = nn.Linear(3 + layout.width, hidden)
        self.out = nn.Linear(hidden, 1 + geometry_width)
        sign = math.copysign(1.0, radius)
        with torch.no_grad():
            self.hidden.weight.zero_()
            self.hidden.weight[:, :3] = sphere_directions(hidden)
            self.hidden.bias.zero_()
            # relu(w.p) averages to |p| / 4 over the sphere of directions
            self.out.weight[0] = sign * 4.0 / hidden
            self.out.bias[0] = -radius
            # not zero, or the hash grid would get no gradient
            self.hidden.weight[:, 3:].normal_(0.0, 0.3 / math.sqrt(layout.width))

    def forward(self, points: Tensor, normals: bool = True) -> SurfaceSample:
        """Evaluate eq. 1, and its gradient.

        Args:
            points: (P, 3) in the field's frame.
            normals: whether to compute the gradient of the SDF.
        """
        layers = (self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias)
        value, normal = self.ops.sdf_network(points, self.grid.table, self.grid.layout, self.extent, normals, *layers)
        return SurfaceSample(value[:, 0], normal, value[:, 1:])
