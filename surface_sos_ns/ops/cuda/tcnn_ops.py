"""The back-end for CUDA with tiny-cuda-nn: its hash grid; all else is torch."""

from __future__ import annotations

from torch import Tensor

from surface_sos_ns.ops.cuda import grid_tcnn
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import GPU_CHUNK_POINTS, TorchOps


class TcnnOps(TorchOps):
    """The hash grid in tiny-cuda-nn. Arguments, results and errors are those of `TorchOps`.

    Steps are not static: it is not known where tiny-cuda-nn synchronises with the host.

    Args:
        remark: see `TorchOps`.
    """

    description = "tcnn for the hash grid, torch for all else"

    def __init__(self, remark: str | None = None):
        super().__init__(chunk_points=GPU_CHUNK_POINTS, remark=remark)

    def hash_grid(
        self, x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        return grid_tcnn.encode(x, table, layout, jacobian)
