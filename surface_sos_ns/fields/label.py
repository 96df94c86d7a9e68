"""The label field: how far a surface point belongs to the object, whatever direction it is seen from.

It is the alpha of the paper's eq. 3 with the view taken out. A smooth, low-resolution grid on purpose: one wrong mask
must not carve its outline into the label; sharp edges come from the geometry the label is read on.
"""

from __future__ import annotations

from torch import Tensor, nn

from surface_sos_ns.fields.encoded import encoded_network
from surface_sos_ns.fields.hash_grid import Backend, GridLayout, HashGrid

LABEL_LAYOUT = GridLayout(levels=8, features=2, log2_entries=16, base_resolution=8, max_resolution=128)


class LabelField(nn.Module):
    """Logit of 'is object' over the cube [-1, 1]^3 of the object frame."""

    def __init__(self, layout: GridLayout = LABEL_LAYOUT, hidden: int = 32, backend: Backend = "auto"):
        super().__init__()
        self.grid = HashGrid(layout, backend)
        self.hidden = nn.Linear(layout.width, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, points: Tensor) -> Tensor:
        """Args: points (P, 3) in the object frame. Returns: logits (P,)."""
        return encoded_network(self.grid, (points + 1) * 0.5, self.hidden, self.out)[:, 0]
