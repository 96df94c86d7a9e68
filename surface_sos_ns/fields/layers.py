"""How layers of the fields' networks start."""

from __future__ import annotations

from torch import nn


def relu_layer(inputs: int, outputs: int) -> nn.Linear:
    """A layer that a ReLU follows (He et al. 2015), without bias to begin with.

    Features of a hash grid begin near zero. With torch's own start some units then have a negative bias and never see a
    gradient, in a network this small now and then so many that the background's geometry does not come out.
    """
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
