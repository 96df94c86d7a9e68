"""The label field: how far a surface point belongs to the object, whatever direction it is seen from.

It is the alpha of the paper's eq. 3 with the view taken out. A smooth, low-resolution grid on purpose: one wrong mask
must not carve its outline into the label; sharp edges come from the geometry the label is read on.
"""

from __future__ import annotations

from torch import Tensor, nn

from surface_sos_ns.fields.hash_grid import HashGrid
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps

LABEL_LAYOUT = GridLayout(levels=8, features=2, log2_entries=16, base_resolution=8, max_resolution=128)


class LabelField(nn.Module):
    """Logit of 'is object' over the cube [-1, 1]^3 of the object frame."""

    def __init__(self, layout: GridLayout = LABEL_LAYOUT, hidden: int = 32, ops: TorchOps = TORCH):
        super().__init__()
        self.grid = HashGrid(layout, ops)
        self.ops = ops
        self.hidden = nn.Linear(layout.width, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, points: Tensor) -> Tensor:
        """Args: points (P, 3) in the object frame. Returns: logits (P,)."""
        layers = (self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias)
        return self.ops.relu_network((points + 1) * 0.5, self.grid.table, self.grid.layout, *layers)[:, 0]
