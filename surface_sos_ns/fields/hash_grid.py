"""Multi-resolution hash encoding `h(p)` (eq. 1; Mueller et al. 2022): the trainable table and its interpolation.

Features and their Jacobian by the points are both linear in the table. So SDF normals come out of the forward pass, and
training through them needs no second-order graph (double backward).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps


class HashGrid(nn.Module):
    """Trainable multi-resolution grid over the unit cube.

    Args:
        layout: levels, features and table sizes.
        ops: back-end of the numeric operations.
    """

    def __init__(self, layout: GridLayout, ops: TorchOps = TORCH):
        super().__init__()
        self.layout, self.ops = layout, ops
        total = int(layout.entries.sum())
        self.table = nn.Parameter(torch.empty(total, layout.features).uniform_(-1e-4, 1e-4))

    def forward(self, x: Tensor, jacobian: bool = False) -> tuple[Tensor, Tensor | None]:
        """Interpolate the table at points.

        Args:
            x: (P, 3) in the unit cube; points outside are clamped to its faces.
            jacobian: also return the derivative of the features by x.

        Returns:
            features (P, L*F), level by level, and the Jacobian (P, L*F, 3) or None.
        """
        return self.ops.hash_grid(x, self.table, self.layout, jacobian)
