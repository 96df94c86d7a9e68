"""Colour networks (the paper's eq. 2-4, Fig. 3): two hidden layers of 64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surface_sos_ns.ops.torch_ops import TORCH, TorchOps


class ColourNet(nn.Module):
    """`M_C` of eq. 2 and 4: colour from geometry and viewing direction; optionally the alpha of eq. 3.

    Args:
        inputs: width of the geometric inputs (position, normal, SDF, geometry feature ...), without the 16 spherical
            harmonics of the direction.
        hidden: width of both hidden layers.
        predict_alpha: append the predicted alpha in (0, 1), eq. 3.
        light: length L of the latent code of a photo's light (NeRF-W); 0 for none.
        ops: back-end of the numeric operations.
    """

    def __init__(
        self, inputs: int, hidden: int = 64, predict_alpha: bool = False, ops: TorchOps = TORCH, light: int = 0
    ):
        super().__init__()
        self.predict_alpha, self.ops, self.light = predict_alpha, ops, light
        self.net = nn.Sequential(
            nn.Linear(inputs + light + 16, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 4 if predict_alpha else 3),
        )

    def forward(self, inputs: Tensor, directions: Tensor, light: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Evaluate eq. 2 or 4, and eq. 3 where alpha is predicted.

        Args:
            inputs: (P, I) geometric inputs.
            directions: (P, 3) unit viewing directions, from the camera to the point.
            light: (P, L) latent codes; None takes the mean of the training photos', 0.

        Returns:
            rgb (P, 3) in (0, 1), and alpha (P,) in (0, 1) or None.
        """
        if self.light:
            codes = inputs.new_zeros(inputs.shape[0], self.light) if light is None else light
            inputs = torch.cat([inputs, codes], -1)
        value = self.ops.colour_network(inputs, directions, *self.net.parameters())
        return value[:, :3], (value[:, 3] if self.predict_alpha else None)
