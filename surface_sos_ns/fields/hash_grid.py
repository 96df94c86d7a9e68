"""Multi-resolution hash grid: the trainable table and its interpolation.

The encoding is linear in the table, so features *and* Jacobian have a first-order backward that is one scatter: no
second-order graph is needed for SDF normals.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps


class HashGrid(nn.Module):
    """Trainable multi-resolution grid over the unit cube.

    Args:
        layout: sizes.
        ops: numeric operations.
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
            jacobian: also return the derivative of the features with respect to x.

        Returns:
            features (P, L*F) and, where asked for, their Jacobian (P, L*F, 3).
        """
        return self.ops.hash_grid(x, self.table, self.layout, jacobian)
