"""The hash grid in Triton as operators of torch's: their shapes, for fake tensors and torch.compile, and gradients.

Only running an operator imports Triton; fake tensors of any device pass without it and without a GPU.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.utils.errors import UserError

TABLE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Types of a table; sums and results are float32."""


def encode(x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False) -> tuple[Tensor, Tensor | None]:
    """See `ops.hash_grid.encode`. Gradients go to `table` and `x`; second derivatives raise an error.

    Args:
        x: (P, 3) float32 on a CUDA device, in the unit cube; points outside are clamped to its faces, and get no
            gradient along the axes in which they were. NaN points give NaN features: a check would stall the GPU.
        table: (entries, F) float32, float16 or bfloat16; sums and results are float32.
        layout: of the table.
        jacobian: also return the derivative of the features with respect to x.

    Raises:
        ValueError: tensors of another dtype, device or shape.
        UserError: a level of 2**31 numbers or more.
    """
    if x.device != table.device:
        raise ValueError(f"the Triton hash grid needs points and table on one CUDA device: {x.device}, {table.device}")
    if x.dtype != torch.float32 or x.ndim != 2 or x.shape[1] != 3:
        raise ValueError(f"the Triton hash grid takes (P, 3) float32 points, not {tuple(x.shape)} {x.dtype}")
    if table.dtype not in TABLE_DTYPES or table.shape != (table_entries(layout), layout.features):
        raise ValueError(f"not a table of {layout} in float32, float16 or bfloat16: {tuple(table.shape)} {table.dtype}")
    if x.requires_grad:
        x = x.clamp(0.0, 1.0)  # the kernels clamp as well; torch's clamp decides on the gradient of points on the faces
    features, jacobians = _gather(x.contiguous(), table.contiguous(), _sizes(layout), jacobian)
    return features, (jacobians if jacobian else None)


@functools.cache
def table_entries(layout: GridLayout) -> int:
    """Entries of all levels.

    Raises:
        UserError: a level of 2**31 numbers or more.
    """
    largest = int(layout.entries.max())
    if largest * layout.features >= 2**31:
        raise UserError(f"The Triton hash grid counts with 32 bits; {largest} entries a level are too many.")
    return int(layout.entries.sum())


# ------------------------------------------------------------------ operators

# Operators take tensors and numbers, so a layout is passed as the list of its numbers.


def _sizes(layout: GridLayout) -> list[int]:
    return list(dataclasses.astuple(layout))


@torch.library.custom_op(
    "surface_sos::grid_gather",
    mutates_args=(),
    schema="(Tensor x, Tensor table, int[] sizes, bool jacobian) -> (Tensor, Tensor)",
)
def _gather(x: Tensor, table: Tensor, sizes: list[int], jacobian: bool) -> tuple[Tensor, Tensor]:
    """Features, and their Jacobian or a tensor (0,)."""
    from surface_sos_ns.ops.cuda import grid_triton

    features, jacobians = grid_triton.gather(x, table, GridLayout(*sizes), jacobian)
    return features, (x.new_empty(0) if jacobians is None else jacobians)


@_gather.register_fake
def _(x: Tensor, table: Tensor, sizes: list[int], jacobian: bool) -> tuple[Tensor, Tensor]:
    width = GridLayout(*sizes).width
    return x.new_empty(x.shape[0], width), (x.new_empty(x.shape[0], width, 3) if jacobian else x.new_empty(0))


@torch.library.custom_op(
    "surface_sos::grid_scatter",
    mutates_args=(),
    schema="(Tensor x, Tensor? grad_features, Tensor? grad_jacobians, int[] sizes) -> Tensor",
)
def _scatter(x: Tensor, grad_features: Tensor | None, grad_jacobians: Tensor | None, sizes: list[int]) -> Tensor:
    """Gradient to the table."""
    from surface_sos_ns.ops.cuda import grid_triton

    return grid_triton.scatter(x, grad_features, grad_jacobians, GridLayout(*sizes))


@_scatter.register_fake
def _(x: Tensor, grad_features: Tensor | None, grad_jacobians: Tensor | None, sizes: list[int]) -> Tensor:
    layout = GridLayout(*sizes)
    return x.new_empty(table_entries(layout), layout.features)


@torch.library.custom_op(
    "surface_sos::grid_scatter_to_points",
    mutates_args=(),
    schema="(Tensor x, Tensor table, Tensor? grad_features, Tensor? grad_jacobians, int[] sizes) -> Tensor",
)
def _scatter_to_points(
    x: Tensor, table: Tensor, grad_features: Tensor | None, grad_jacobians: Tensor | None, sizes: list[int]
) -> Tensor:
    """Gradient to the points."""
    from surface_sos_ns.ops.cuda import grid_triton

    return grid_triton.scatter_to_points(x, table, grad_features, grad_jacobians, GridLayout(*sizes))


@_scatter_to_points.register_fake
def _(
    x: Tensor, table: Tensor, grad_features: Tensor | None, grad_jacobians: Tensor | None, sizes: list[int]
) -> Tensor:
    return torch.empty_like(x)


# ------------------------------------------------------------------ gradients


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, table, ctx.sizes, ctx.jacobian = inputs
    # the gradient to the table does not depend on it
    ctx.save_for_backward(x, table if ctx.needs_input_grad[0] else None)
    ctx.set_materialize_grads(False)  # no zeros for the Jacobian's gradient where only features were used
    ctx.table_dtype = table.dtype


@once_differentiable
def _backward(ctx: Any, grad_features: Tensor | None, grad_jacobians: Tensor | None) -> tuple[Tensor | None, ...]:
    x, table = ctx.saved_tensors
    if not ctx.jacobian:
        grad_jacobians = None  # of the tensor (0,) that stands for it
    grad_x = grad_table = None
    if grad_features is not None or grad_jacobians is not None:
        if ctx.needs_input_grad[0]:
            grad_x = _scatter_to_points(x, table, grad_features, grad_jacobians, ctx.sizes)
        if ctx.needs_input_grad[1]:
            grad_table = _scatter(x, grad_features, grad_jacobians, ctx.sizes).to(ctx.table_dtype)
    return grad_x, grad_table, None, None


_gather.register_autograd(_backward, setup_context=_save)
