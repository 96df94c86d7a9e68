"""Colour networks (the paper's eq. 2-4, Fig. 3): two hidden layers of 64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surface_sos_ns.fields.hash_grid import Backend, choose_backend


def spherical_harmonics(directions: Tensor) -> Tensor:
    """Real spherical harmonics of degree 0 to 3.

    Args:
        directions: (P, 3) unit vectors.

    Returns:
        (P, 16), orthonormal on the sphere.
    """
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    return torch.stack(
        [
            torch.full_like(x, 0.28209479177387814),
            -0.4886025119029199 * y,
            0.4886025119029199 * z,
            -0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * zz - 1),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (5 * zz - 1),
            0.3731763325901154 * z * (5 * zz - 3),
            -0.4570457994644658 * x * (5 * zz - 1),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ],
        -1,
    )


class ColourNet(nn.Module):
    """`M_C`: colour, and on request the predicted alpha of eq. 3, from what the geometry says at a point.

    Args:
        inputs: width of the geometric inputs (position, normal, sdf, geometry feature ...), directions not counted.
        predict_alpha: append one output in (0, 1), eq. 3.
        backend: of the hash grids: with numba, the layers are compiled too.
    """

    def __init__(self, inputs: int, hidden: int = 64, predict_alpha: bool = False, backend: Backend = "auto"):
        super().__init__()
        self.predict_alpha, self.backend = predict_alpha, backend
        self.net = nn.Sequential(
            nn.Linear(inputs + 16, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 4 if predict_alpha else 3),
        )

    def forward(self, inputs: Tensor, directions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Args: inputs (P, I), directions (P, 3) unit. Returns: rgb (P, 3) in (0, 1), alpha (P,) or None."""
        if choose_backend(self.backend, inputs.device) == "numba":
            from surface_sos_ns.compiled.mlp import network

            if directions.requires_grad:  # compiled harmonics have no gradient: take torch's, as inputs like others
                inputs, directions = torch.cat([inputs, spherical_harmonics(directions)], -1), directions[:0]
            rows = network(inputs.t(), directions.t(), True, *self.net.parameters())
            return rows[:3].t(), (rows[3] if self.predict_alpha else None)
        value = torch.sigmoid(self.net(torch.cat([inputs, spherical_harmonics(directions)], -1)))
        return value[:, :3], (value[:, 3] if self.predict_alpha else None)
