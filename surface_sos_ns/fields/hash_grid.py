"""Multi-resolution hash grid: features and their Jacobian from one gather, behind one interface.

Source: the paper's Fig. 3 (16 levels, 16 -> 2048) and Mueller et al. 2022. Levels whose vertices fit into the table are
indexed densely (no collisions); only finer ones are hashed. The encoding is linear in the table, so features *and*
Jacobian have a first-order backward that is one scatter: no second-order graph is needed for SDF normals.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from surface_sos_ns.utils.errors import UserError

Backend = Literal["auto", "torch", "numba", "triton", "tcnn"]
PRIMES = (1, 2654435761, 805459861)
TCNN_FEATURES = (1, 2, 4, 8)  # features per level that tiny-cuda-nn is compiled for


@dataclass(frozen=True)
class GridLayout:
    """Sizes of a hash grid and where each level lives in the flat table."""

    levels: int = 16
    features: int = 2
    log2_entries: int = 19
    base_resolution: int = 16
    max_resolution: int = 2048

    def __post_init__(self) -> None:
        if self.levels < 1 or self.features < 1 or self.base_resolution < 2:
            raise UserError(f"A hash grid needs levels and features >= 1 and base_resolution >= 2; got {self}.")
        if self.max_resolution < self.base_resolution:
            raise UserError(f"A hash grid's max_resolution must be >= base_resolution; got {self}.")

    @property
    def width(self) -> int:
        """Length of a feature vector, all levels concatenated."""
        return self.levels * self.features

    @property
    def resolutions(self) -> np.ndarray:
        """(L,) cells per axis of each level, growing geometrically."""
        if self.levels == 1:
            return np.array([self.base_resolution], dtype=np.int64)
        growth = math.log(self.max_resolution / self.base_resolution) / (self.levels - 1)
        return np.floor(self.base_resolution * np.exp(growth * np.arange(self.levels)) + 1e-6).astype(np.int64)

    @property
    def entries(self) -> np.ndarray:
        """(L,) table entries of each level: all its vertices if they fit, else 2**log2_entries hashed ones."""
        return np.minimum((self.resolutions + 1) ** 3, 2**self.log2_entries)

    @property
    def hashed(self) -> np.ndarray:
        """(L,) bool, whether a level shares entries by hashing."""
        return (self.resolutions + 1) ** 3 > 2**self.log2_entries

    @property
    def offsets(self) -> np.ndarray:
        """(L,) first entry of each level in the flat table."""
        return np.concatenate([[0], np.cumsum(self.entries)[:-1]]).astype(np.int64)


@functools.cache
def _numba_installed() -> bool:
    return importlib.util.find_spec("numba") is not None


@functools.cache
def triton_problem(device: torch.device) -> str | None:
    """Why Triton cannot be used on a CUDA device, or None where it can.

    Tries the kernels, since Triton may be installed without the C compiler or the GPU that it needs. So ask only on a
    machine with CUDA, and not while a graph is captured; the answer is kept.
    """
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    try:
        importlib.import_module("surface_sos_ns.fields.grid_triton").probe(device)
    except Exception as error:  # of many kinds: import, compiler, driver
        reason = " ".join(str(error).split())
        return f"the package triton is installed but does not work here: {type(error).__name__}: {reason}"
    return None


@functools.cache
def tcnn_problem() -> str | None:
    """Why tiny-cuda-nn cannot be used here, or None where it can. Imports it, so ask only on a machine with CUDA."""
    if importlib.util.find_spec("tinycudann") is None:
        return "the package tinycudann is not installed"
    try:
        importlib.import_module("tinycudann")
    except (ImportError, OSError) as error:  # built for another GPU or against another torch
        return f"the package tinycudann does not load: {error}"
    return None


def choose_backend(requested: Backend, device: torch.device, features: int = 2) -> str:
    """The backend that will run on `device` for a grid of `features` features a level.

    'auto' takes numba on a CPU and Triton on CUDA, or tiny-cuda-nn where Triton does not work; torch where none is.

    Raises:
        UserError: a backend was asked for by name that cannot run here; nothing is replaced silently.
    """
    if requested == "auto":
        if device.type == "cpu" and _numba_installed():
            return "numba"
        if device.type == "cuda" and triton_problem(device) is None:
            return "triton"
        if device.type == "cuda" and features in TCNN_FEATURES and tcnn_problem() is None:
            return "tcnn"
        return "torch"
    if requested == "numba" and (device.type != "cpu" or not _numba_installed()):
        raise UserError(f"hash-grid backend 'numba' needs the CPU and the package numba (device: {device}).")
    if requested == "triton":
        problem = triton_problem(device) if device.type == "cuda" else "the device is not CUDA"
        if problem is not None:
            raise UserError(
                f"hash-grid backend 'triton' needs CUDA and the package triton (device: {device}): {problem}."
            )
    if requested == "tcnn":
        problem = tcnn_problem() if device.type == "cuda" else "the device is not CUDA"
        if problem is not None:
            raise UserError(
                f"hash-grid backend 'tcnn' needs CUDA and the package tinycudann (device: {device}): {problem}."
            )
    return requested


class HashGrid(nn.Module):
    """Trainable multi-resolution grid over the unit cube.

    Args:
        layout: sizes.
        backend: see `choose_backend`.
    """

    def __init__(self, layout: GridLayout, backend: Backend = "auto"):
        super().__init__()
        self.layout = layout
        self.requested_backend = backend
        total = int(layout.entries.sum())
        self.table = nn.Parameter(torch.empty(total, layout.features).uniform_(-1e-4, 1e-4))

    @property
    def backend(self) -> str:
        """Name of the backend in use on the table's present device."""
        return choose_backend(self.requested_backend, self.table.device, self.layout.features)

    def describe(self) -> str:
        """The backend in use, and where Triton was the first choice and does not work, why."""
        backend, device = self.backend, self.table.device
        if self.requested_backend == "auto" and device.type == "cuda" and backend != "triton":
            return f"{backend} ({triton_problem(device)})"
        return backend

    def forward(self, x: Tensor, jacobian: bool = False) -> tuple[Tensor, Tensor | None]:
        """Interpolate the table at points.

        Args:
            x: (P, 3) in the unit cube; points outside are clamped to its faces.
            jacobian: also return the derivative of the features with respect to x.

        Returns:
            features (P, L*F) and, where asked for, their Jacobian (P, L*F, 3).
        """
        backend = self.backend
        if backend == "numba":
            from surface_sos_ns.compiled import grid

            return grid.encode(x, self.table, self.layout, jacobian)
        if backend == "triton":
            from surface_sos_ns.fields import grid_triton

            return grid_triton.encode(x, self.table, self.layout, jacobian)
        if backend == "tcnn":
            from surface_sos_ns.fields import grid_tcnn

            return grid_tcnn.encode(x, self.table, self.layout, jacobian)
        from surface_sos_ns.fields import grid_torch

        return grid_torch.encode(x, self.table, self.layout, jacobian)
