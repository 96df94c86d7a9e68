"""The fields' networks in plain torch: SDF with normal (eq. 1), ReLU layers, spherical harmonics."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SOFTPLUS_BETA = 100.0
"""beta of the softplus in the SDF network."""


def relu_layers(values: Tensor, *parameters: Tensor) -> Tensor:
    """Linear layers with ReLUs between them.

    Args:
        values: (P, I).
        parameters: weight (N, K) and bias (N,) of each layer in turn.

    Returns:
        (P, O).
    """
    *hidden, last = zip(parameters[0::2], parameters[1::2], strict=True)
    for weight, bias in hidden:
        values = F.relu(F.linear(values, weight, bias))
    return F.linear(values, *last)


def sdf_and_normal(
    points: Tensor, features: Tensor, jacobian: Tensor | None, extent: float, *parameters: Tensor
) -> tuple[Tensor, Tensor | None]:
    """`(sdf, geometry) = M_S(p, h(p))` with one hidden softplus layer (eq. 1), and the exact normal.

    With z = W1 [p; h] + b1 and g = sigmoid(beta z) w2, where w2 is the row of W2 that gives the SDF, the normal is
    `W1_p^T g + J^T W1_h^T g`. It needs no autograd in the forward pass, so one ordinary backward pass trains through it
    (eikonal loss, cosines, colour inputs).

    Args:
        points: (P, 3) in the cube [-extent, extent]^3, which the hash grid covers.
        features: (P, C) of the hash grid there.
        jacobian: (P, C, 3) of the features by the points of the grid's unit cube; None for no normal.
        extent: half the side of the cube.
        parameters: weight and bias of the hidden layer and of the last one.

    Returns:
        SDF and geometry feature (P, 1 + G), and the gradient (P, 3) of the SDF by the points or None.
    """
    weight, bias, last_weight, last_bias = parameters
    z = F.linear(torch.cat([points, features], -1), weight, bias)
    value = F.linear(F.softplus(z, beta=SOFTPLUS_BETA), last_weight, last_bias)
    if jacobian is None:
        return value, None
    g = torch.sigmoid(SOFTPLUS_BETA * z) * last_weight[0]
    to_inputs = g @ weight  # (P, 3 + C)
    through_grid = torch.bmm(to_inputs[:, None, 3:], jacobian)[:, 0] / (2 * extent)
    return value, to_inputs[:, :3] + through_grid


def spherical_harmonics(directions: Tensor) -> Tensor:
    """Real spherical harmonics of degrees 0 to 3 (16 of them, instant-ngp's SH-4).

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
