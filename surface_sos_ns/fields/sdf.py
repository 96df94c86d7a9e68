"""Signed distance networks over a hash grid, with exact normals (the paper's eq. 1 and Fig. 3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.fields.hash_grid import Backend, GridLayout, HashGrid

SOFTPLUS_BETA = 100.0


class SurfaceSample(NamedTuple):
    """What an SDF field says at P points."""

    sdf: Tensor  # (P,) signed distance in field units, negative inside
    normal: Tensor | None  # (P, 3) gradient of the SDF, not normalised
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

    The field covers the cube [-extent, extent]^3 of its input frame. It starts as a sphere: the mean of ReLUs over
    evenly spread directions is proportional to |p|, so the hidden layer reads |p| - radius from p alone and the hash
    features begin with no say.

    Args:
        layout: of the hash grid.
        geometry_width: length of the geometry feature (12 for FoCoR, 7 for BaCo).
        extent: half the side of the cube covered.
        radius: of the initial sphere; negative turns it inside out (a room seen from within).
        hidden: width of the hidden layer.
    """

    def __init__(
        self,
        layout: GridLayout,
        geometry_width: int,
        extent: float = 1.0,
        radius: float = 0.5,
        hidden: int = 64,
        backend: Backend = "auto",
    ):
        super().__init__()
        self.grid = HashGrid(layout, backend)
        self.extent = extent
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
            # a small pull from the grid, or its first gradient would be zero
            self.hidden.weight[:, 3:].normal_(0.0, 0.3 / math.sqrt(layout.width))

    def _unit_cube(self, points: Tensor) -> Tensor:
        return (points / self.extent + 1) * 0.5

    def forward(self, points: Tensor, normals: bool = True) -> SurfaceSample:
        """Evaluate at points.

        The normal is `W1_p^T g + J^T W1_h^T g` with `g = sigmoid(beta z) w2`: plain first-order operations, so one
        backward pass trains through it (eikonal loss, cosines, colour inputs).

        Args:
            points: (P, 3) in the field's frame.
            normals: whether to compute the gradient.
        """
        if self.grid.backend == "numba":
            from surface_sos_ns.compiled.sdf import sdf_and_normal

            value, normal = sdf_and_normal(
                points, self.grid.table, self.hidden, self.out, self.grid.layout, self.extent, SOFTPLUS_BETA, normals
            )
            return SurfaceSample(value[:, 0], normal, value[:, 1:])
        features, jacobian = self.grid(self._unit_cube(points), jacobian=normals)
        z = F.linear(torch.cat([points, features], -1), self.hidden.weight, self.hidden.bias)
        value = self.out(F.softplus(z, beta=SOFTPLUS_BETA))
        normal = None
        if jacobian is not None:
            g = torch.sigmoid(SOFTPLUS_BETA * z) * self.out.weight[0]
            to_inputs = g @ self.hidden.weight  # (P, 3 + L*F)
            through_grid = torch.bmm(to_inputs[:, None, 3:], jacobian)[:, 0] / (2 * self.extent)
            normal = to_inputs[:, :3] + through_grid
        return SurfaceSample(value[:, 0], normal, value[:, 1:])
