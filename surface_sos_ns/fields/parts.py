"""The part field: which of K parts of the object a surface point belongs to, independent of the viewing direction."""

from __future__ import annotations

from torch import Tensor, nn

from surface_sos_ns.fields.hash_grid import HashGrid
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps

PART_LAYOUT = GridLayout(levels=6, features=2, log2_entries=15, base_resolution=8, max_resolution=96)
"""Sizes of its hash grid: about as fine as the spacing of the surface points from which it is learned."""
PART_HIDDEN = 32
"""Width of its hidden layer."""


class PartField(nn.Module):
    """Logits of K parts over the cube [-1, 1]^3 of the object frame.

    Args:
        parts: K.
        ops: back-end of the numeric operations.
    """

    def __init__(self, parts: int, ops: TorchOps = TORCH):
        super().__init__()
        self.grid = HashGrid(PART_LAYOUT, ops)
        self.ops = ops
        self.hidden = nn.Linear(PART_LAYOUT.width, PART_HIDDEN)
        self.out = nn.Linear(PART_HIDDEN, parts)

    @property
    def parts(self) -> int:
        """K."""
        return self.out.out_features

    def forward(self, points: Tensor) -> Tensor:
        """Logits (P, K) at points (P, 3) of the object frame."""
        layers = (self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias)
        return self.ops.relu_network((points + 1) * 0.5, self.grid.table, self.grid.layout, *layers)
