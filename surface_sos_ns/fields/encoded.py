"""A network with one hidden layer on a hash grid's features: what density and label share; and how layers start."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.fields.hash_grid import HashGrid


def relu_layer(inputs: int, outputs: int) -> nn.Linear:
    """A layer that a ReLU follows (He et al. 2015), without bias to begin with.

    Features of a hash grid begin near zero. With torch's own start some units then have a negative bias and never see a
    gradient, in a network this small now and then so many that the background's geometry does not come out.
    """
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def encoded_network(grid: HashGrid, points: Tensor, hidden: nn.Linear, out: nn.Linear) -> Tensor:
    """Args: points (P, 3) in the grid's unit cube. Returns: (P, O), with a ReLU between the two layers."""
    if grid.backend == "numba":
        from surface_sos_ns.compiled import encoded

        layers = (hidden.weight, hidden.bias, out.weight, out.bias)
        return encoded.encoded_network(points, grid.table, grid.layout, *layers).t()
    features, _ = grid(points)
    return out(F.relu(hidden(features)))
