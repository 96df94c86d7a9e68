"""The back-end for CUDA: the hash grid in Triton or tiny-cuda-nn, everything else in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from surface_sos_ns.ops.cuda import grid_tcnn
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TorchOps

Encode = Callable[[Tensor, Tensor, GridLayout, bool], "tuple[Tensor, Tensor | None]"]
"""A function with the arguments and the result of `ops.hash_grid.encode`."""


class CudaOps(TorchOps):
    """Kernels for CUDA. Arguments, results and errors are those of `TorchOps`.

    Args:
        grid: implementation of the hash grid.
        remark: added to `describe`, such as why the hash grid is not in Triton.
    """

    name = "cuda"

    def __init__(self, grid: Literal["triton", "tcnn", "torch"], remark: str | None = None):
        super().__init__(static=grid != "tcnn")  # nobody knows when tiny-cuda-nn waits for the host
        self.grid, self.remark = grid, remark
        self._encode: Encode = super().hash_grid
        if grid == "triton":
            from surface_sos_ns.ops.cuda import grid_operator  # its import needs torch 2.4

            self._encode = grid_operator.encode
        elif grid == "tcnn":
            self._encode = grid_tcnn.encode

    def describe(self) -> str:
        grid = self.grid if self.remark is None else f"{self.grid} ({self.remark})"
        return f"CUDA, hash grid: {grid}, else torch"

    def hash_grid(
        self, x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        return self._encode(x, table, layout, jacobian)
