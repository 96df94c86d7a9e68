"""A network with one hidden layer on a hash grid's features: what density and label share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.fields.hash_grid import HashGrid


def encoded_network(grid: HashGrid, points: Tensor, hidden: nn.Linear, out: nn.Linear) -> Tensor:
    """Args: points (P, 3) in the grid's unit cube. Returns: (P, O), with a ReLU between the two layers."""
    if grid.backend == "numba":
        from surface_sos_ns.compiled import encoded

        layers = (hidden.weight, hidden.bias, out.weight, out.bias)
        return encoded.encoded_network(points, grid.table, grid.layout, *layers).t()
    features, _ = grid(points)
    return out(F.relu(hidden(features)))
