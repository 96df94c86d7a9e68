"""The back-end for CUDA: the hash grid in Triton or tiny-cuda-nn, draws by nerfacc, everything else in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from surface_sos_ns.ops.cuda import grid_tcnn, nerfacc_draws
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TorchOps

Encode = Callable[[Tensor, Tensor, GridLayout, bool], "tuple[Tensor, Tensor | None]"]
"""A function with the arguments and the result of `ops.hash_grid.encode`."""


class CudaOps(TorchOps):
    """Kernels for CUDA. Arguments, results and errors are those of `TorchOps`.

    Args:
        grid: implementation of the hash grid.
        nerfacc_problem: why nerfacc cannot draw the samples; None where it can.
        remark: added to `describe`, such as why the hash grid is not in Triton.
    """

    name = "cuda"

    def __init__(
        self, grid: Literal["triton", "tcnn", "torch"], nerfacc_problem: str | None = None, remark: str | None = None
    ):
        super().__init__(static=True)
        self.grid, self.nerfacc_problem, self.remark = grid, nerfacc_problem, remark
        self._encode: Encode = super().hash_grid
        if grid == "triton":
            from surface_sos_ns.ops.cuda import grid_triton  # its import needs the package

            self._encode = grid_triton.encode
        elif grid == "tcnn":
            self._encode = grid_tcnn.encode

    def describe(self) -> str:
        grid = self.grid if self.remark is None else f"{self.grid} ({self.remark})"
        draws = "nerfacc" if self.nerfacc_problem is None else f"torch ({self.nerfacc_problem})"
        return f"CUDA, hash grid: {grid}, draws: {draws}, else torch"

    def hash_grid(
        self, x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        return self._encode(x, table, layout, jacobian)

    def stratified_draws(self, edges: Tensor, cdf: Tensor, draws: int, stratified: bool) -> Tensor:
        if self.nerfacc_problem is not None or edges.shape[0] == 0:  # launching a CUDA kernel for no rays is an error
            return super().stratified_draws(edges, cdf, draws, stratified)
        return nerfacc_draws.stratified_draws(edges, cdf, draws, stratified)
