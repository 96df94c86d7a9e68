"""Initialisation of network layers."""

from __future__ import annotations

from torch import nn


def relu_layer(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer before a ReLU: He initialisation (He et al. 2015), zero bias.

    Hash features start near zero. Under torch's default initialisation a hidden unit with a negative bias is then dead
    from the start: it never sees a gradient. In a network this small, enough of them may die for the background's
    geometry to fail.
    """
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
