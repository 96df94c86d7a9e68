"""The hash grid by tiny-cuda-nn on a CUDA device, on the same table as the other back-ends.

tiny-cuda-nn's own multi-level grid sizes its levels slightly differently and owns its parameters; a run trained with it
could be loaded only where it is installed. So each level is a *single-level* encoding of it, and these agree with ours
entry by entry (tiny-cuda-nn's `grid.h` and `common_device.h`):

- With `base_resolution = n + 1` its scale is n cells and a dense level is indexed `x + (n + 1) (y + (n + 1) z)`.
- Its hash 'CoherentPrime' is the XOR of the coordinates times the same primes, modulo the table's size.
- It reads positions as `n x + 1/2`, so points are passed shifted by half a cell.
- It pads a dense level to a multiple of 8 entries.

Jacobian: trilinear interpolation is linear in each coordinate within a cell, so the derivative along an axis is the
difference of the values on the cell's two faces. It is exact, needs no second-order graph, and one launch per level
evaluates all six faces.

The project has not run this file on a GPU. Its arithmetic is tested against a plain emulation of tiny-cuda-nn's
published indexing; the same test compares the real package where one is installed.
"""

from __future__ import annotations

import functools
import threading

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.utils.errors import UserError

TCNN_FEATURES = (1, 2, 4, 8)
"""Features per level that tiny-cuda-nn is compiled for."""

# `functional_call` swaps a module's parameters during the call, which two threads must not do at once.
_LOCK = threading.Lock()


@functools.cache
def _level_encoding(resolution: int, features: int, log2_entries: int) -> nn.Module:
    """A single-level grid with `resolution` cells per axis; its parameters are passed with each call."""
    import tinycudann

    encoding = tinycudann.Encoding(
        3,
        {
            "otype": "Grid",
            "type": "Hash",
            "n_levels": 1,
            "n_features_per_level": features,
            "log2_hashmap_size": log2_entries,
            "base_resolution": resolution + 1,
            "interpolation": "Linear",
        },
        dtype=torch.float32,  # half precision would make normals, which are differences, noisy
    )
    # frees the module's own table, which is not used
    encoding.params = nn.Parameter(encoding.params.detach()[:0].clone())
    module: nn.Module = encoding
    return module


def _interpolate(at: Tensor, table: Tensor, resolution: int, log2_entries: int) -> Tensor:
    """Features (Q, F) of one level at points (Q, 3), given in cells from 0 to resolution."""
    features = table.shape[1]
    encoding = _level_encoding(resolution, features, log2_entries)
    parameters = F.pad(table, (0, 0, 0, -table.shape[0] % 8)).reshape(-1)
    with _LOCK:
        values: Tensor = torch.func.functional_call(encoding, {"params": parameters}, ((at - 0.5) / resolution,))
        return values[:, :features]


def encode(x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False) -> tuple[Tensor, Tensor | None]:
    """See `ops.hash_grid.encode`.

    Raises:
        ValueError: the points require a gradient.
        UserError: a number of features that tiny-cuda-nn is not compiled for.
    """
    if x.requires_grad:
        raise ValueError("the tcnn hash grid has no gradient to points; use scene.backend torch for that")
    if layout.features not in TCNN_FEATURES:
        raise UserError(
            f"tiny-cuda-nn has grids of {TCNN_FEATURES} features a level, not {layout.features}. Choose another "
            "number, or scene.backend torch."
        )
    points = x.shape[0]
    if points == 0:  # launching a kernel for no points is an error
        nothing = table[:0, :1]  # part of the graph, as with other back-ends; its gradient is zero
        return nothing.expand(0, layout.width), (nothing[..., None].expand(0, layout.width, 3) if jacobian else None)
    x = x.clamp(0.0, 1.0)
    own_axis = torch.eye(3, dtype=torch.bool, device=x.device)
    features, jacobians = [], []
    tables = table.split(layout.entries.tolist())
    for resolution, level_table in zip(layout.resolutions.tolist(), tables, strict=True):
        scaled = x * float(resolution)
        if not jacobian:
            features.append(_interpolate(scaled, level_table, resolution, layout.log2_entries))
            continue
        cell = scaled.floor().clamp(max=float(resolution - 1))
        # (P, face, axis, coordinate): the point moved along one axis to the lower and the upper face of its cell
        faces = torch.stack([torch.where(own_axis, (cell + side)[:, None], scaled[:, None]) for side in (0, 1)], 1)
        values = _interpolate(faces.reshape(-1, 3), level_table, resolution, layout.log2_entries)
        values = values.reshape(points, 2, 3, layout.features)
        slope = values[:, 1] - values[:, 0]  # (P, axis, F) per cell
        features.append(values[:, 0, 0] + (scaled - cell)[:, :1] * slope[:, 0])
        jacobians.append(slope.transpose(1, 2) * float(resolution))
    return torch.cat(features, -1), (torch.cat(jacobians, 1) if jacobian else None)
