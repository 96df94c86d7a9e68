"""The hash grid in plain torch: on any device, differentiable in points and table."""

from __future__ import annotations

import torch
from torch import Tensor

from surface_sos_ns.ops.layout import PRIMES, GridLayout


def _level_entries(vertices: Tensor, resolution: int, entries: int, hashed: bool) -> Tensor:
    """Integer vertices (..., 3) -> entries (...) within their level's table."""
    x, y, z = vertices.unbind(-1)
    if hashed:
        return (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) & (entries - 1)
    return x + (resolution + 1) * (y + (resolution + 1) * z)


def encode(x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False) -> tuple[Tensor, Tensor | None]:
    """Multi-resolution hash encoding `h(p)` (eq. 1; Mueller et al. 2022), and its Jacobian by the points.

    Args:
        x: (P, 3) in the unit cube; points outside are clamped to its faces.
        table: (entries, F) of all levels, see `GridLayout`.
        layout: of the table.
        jacobian: also return the derivative of the features by x.

    Returns:
        features (P, L*F), level by level, and the Jacobian (P, L*F, 3) or None. Gradients go to `table` and `x`;
        for a point on a face of the cube that to `x` is the one from inside or none (versions of torch differ).
        Back-ends may lack second derivatives.

    Raises:
        ValueError: numba back-end only, where a point is NaN.
    """
    x = x.clamp(0.0, 1.0)
    bits = torch.arange(8, device=x.device)
    corners = torch.stack([bits & 1, bits >> 1 & 1, bits >> 2 & 1], -1)  # (8, 3) corners of a cell
    upper, sign = corners.bool(), (2 * corners - 1).to(x.dtype)
    features, jacobians = [], []
    # split, not slices: the backward of 16 slices would fill 16 whole tables with zeros.
    tables = table.split(layout.entries.tolist())
    for level, level_table in enumerate(tables):
        resolution, hashed = int(layout.resolutions[level]), bool(layout.hashed[level])
        scaled = x * float(resolution)
        cell = scaled.detach().floor().clamp(max=float(resolution - 1)).long()
        fraction = (scaled - cell)[:, None]
        entry = _level_entries(cell[:, None] + corners, resolution, level_table.shape[0], hashed)  # (P, 8)
        values = level_table.index_select(0, entry.reshape(-1)).reshape(-1, 8, layout.features)
        wx, wy, wz = torch.where(upper, fraction, 1 - fraction).unbind(-1)  # (P, 8) each: one factor per axis
        features.append(((wx * wy * wz)[..., None] * values).sum(1))
        if jacobian:
            slopes = torch.stack([wy * wz, wx * wz, wx * wy], -1) * (sign * float(resolution))  # (P, 8, 3)
            jacobians.append(torch.einsum("pkf,pkd->pfd", values, slopes))
    return torch.cat(features, -1), (torch.cat(jacobians, 1) if jacobian else None)
