"""A density field over a hash grid, as in instant-ngp: the default background."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surface_sos_ns.fields.hash_grid import HashGrid
from surface_sos_ns.fields.layers import relu_layer
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps

MAX_LOG_DENSITY = 15.0
"""Bound on the logarithm of the density, in the backward on its absolute value: one outlier must not blow up a step."""


class _TruncatedExp(torch.autograd.Function):
    """exp with a bounded value and a bounded gradient (instant-ngp's truncated exponential)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x.clamp(max=MAX_LOG_DENSITY).exp()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        return grad * ctx.saved_tensors[0].clamp(-MAX_LOG_DENSITY, MAX_LOG_DENSITY).exp()


class DensityField(nn.Module):
    """`(density, geometry feature)` over the cube [-extent, extent]^3, from a hash grid and one hidden layer.

    Args:
        layout: of the hash grid.
        geometry_width: length G of the geometry feature for the colour net.
        extent: half the side of the cube, in the units of the points.
        bias: added to the logarithm of the density; negative starts the field nearly empty.
        hidden: width of the hidden layer.
        ops: back-end of the numeric operations.
    """

    def __init__(
        self,
        layout: GridLayout,
        geometry_width: int,
        extent: float = 2.0,
        bias: float = -1.0,
        hidden: int = 64,
        ops: TorchOps = TORCH,
    ):
        super().__init__()
        self.grid = HashGrid(layout, ops)
        self.extent, self.bias, self.ops = extent, bias, ops
        self.geometry_width = geometry_width
        self.hidden = relu_layer(layout.width, hidden)
        self.out = nn.Linear(hidden, 1 + geometry_width)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate at points.

        Args:
            points: (P, 3) in the field's frame; those outside the cube are clamped to its faces.

        Returns:
            density (P,), per unit of length of that frame, and geometry feature (P, G).
        """
        layers = (self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias)
        value = self.ops.relu_network((points / self.extent + 1) * 0.5, self.grid.table, self.grid.layout, *layers)
        return _TruncatedExp.apply(value[:, 0] + self.bias), value[:, 1:]
