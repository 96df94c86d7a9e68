"""Colour networks (the paper's eq. 2-4, Fig. 3): two hidden layers of 64."""

from __future__ import annotations

from torch import Tensor, nn

from surface_sos_ns.ops.torch_ops import TORCH, TorchOps


class ColourNet(nn.Module):
    """`M_C`: colour, and on request the predicted alpha of eq. 3, from what the geometry says at a point.

    Args:
        inputs: width of the geometric inputs (position, normal, sdf, geometry feature ...), directions not counted.
        hidden: width of both hidden layers.
        predict_alpha: append one output in (0, 1), eq. 3.
        ops: numeric operations.
    """

    def __init__(self, inputs: int, hidden: int = 64, predict_alpha: bool = False, ops: TorchOps = TORCH):
        super().__init__()
        self.predict_alpha, self.ops = predict_alpha, ops
        self.net = nn.Sequential(
            nn.Linear(inputs + 16, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 4 if predict_alpha else 3),
        )

    def forward(self, inputs: Tensor, directions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Args: inputs (P, I), directions (P, 3) unit. Returns: rgb (P, 3) in (0, 1), alpha (P,) or None."""
        value = self.ops.colour_network(inputs, directions, *self.net.parameters())
        return value[:, :3], (value[:, 3] if self.predict_alpha else None)
