"""Hash grid and ReLU network as one autograd node."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from surface_sos_ns.ops.cpu import dense, grid
from surface_sos_ns.ops.cpu.mlp import Layers
from surface_sos_ns.ops.layout import GridLayout

_NO_DIRECTIONS = np.zeros((3, 0), np.float32)


class _Encoded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, layout: GridLayout, *parameters: Tensor) -> Tensor:
        x = grid.as_rows(points)
        features, _ = grid.gather(x, table, layout, jacobian=False, blocked=True)
        layers = Layers(parameters)
        out, kept = layers.forward(
            features, _NO_DIRECTIONS, x.shape[1], parameters[-1].shape[0], False, any(ctx.needs_input_grad)
        )
        ctx.save_for_backward(table, *parameters)
        ctx.state, ctx.layout = (layers, x, features, kept, out), layout
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        table, *parameters = ctx.saved_tensors
        layers, x, features, kept, out = ctx.state
        by_out = grads[0].contiguous().numpy()
        by_features, totals = layers.backward(features, _NO_DIRECTIONS, kept, out, by_out, False, True)
        to_table = grid.scatter(x, table, ctx.layout, by_features) if ctx.needs_input_grad[1] else None
        to_points = grid.scatter_to_points(x, table, ctx.layout, by_features) if ctx.needs_input_grad[0] else None
        return to_points, to_table, None, *dense.unpadded(totals, parameters)


def encoded_network(points: Tensor, table: Tensor, layout: GridLayout, *parameters: Tensor) -> Tensor:
    """See `TorchOps.relu_network`.

    Returns:
        outputs (O, P), one row per output.

    Raises:
        ValueError: a point is NaN.
        UserError: hidden widths are unequal or no multiple of 4.
    """
    result: Tensor = _Encoded.apply(points, table, layout, *parameters)
    return result
