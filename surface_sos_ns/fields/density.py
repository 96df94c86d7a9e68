"""A density field over a hash grid: the background where no distance is needed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surface_sos_ns.fields.hash_grid import HashGrid
from surface_sos_ns.fields.layers import relu_layer
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps


class _TruncatedExp(torch.autograd.Function):
    """exp whose backward is bounded, so that one outlier does not blow up a step."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x.clamp(max=15.0).exp()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        return grad * ctx.saved_tensors[0].clamp(-15.0, 15.0).exp()


class DensityField(nn.Module):
    """`(density, geometry)` over the cube [-extent, extent]^3, one hidden layer.

    Args:
        layout: of the hash grid.
        geometry_width: length of the geometry feature.
        extent: half the side of the cube covered.
        bias: added to the logarithm of the density; negative starts the field nearly empty.
        hidden: width of the hidden layer.
        ops: numeric operations.
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
        """Args: points (P, 3) in the field's frame. Returns: density (P,) per unit length, geometry (P, G)."""
        layers = (self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias)
        value = self.ops.relu_network((points / self.extent + 1) * 0.5, self.grid.table, self.grid.layout, *layers)
        return _TruncatedExp.apply(value[:, 0] + self.bias), value[:, 1:]
