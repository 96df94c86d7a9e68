"""Which back-end computes the numeric operations on a device."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Literal

import torch

from surface_sos_ns.ops.torch_ops import GPU_CHUNK_POINTS, TORCH, TorchOps
from surface_sos_ns.utils.errors import UserError

Backend = Literal["auto", "torch", "numba", "triton", "tcnn"]
"""What `SceneConfig.backend` may be."""


@functools.cache
def numba_problem() -> str | None:
    """Why numba's kernels cannot be used on a CPU, or None where they can."""
    return None if importlib.util.find_spec("numba") is not None else "the package numba is not installed"


@functools.cache
def triton_problem(device: torch.device) -> str | None:
    """Why Triton cannot be used on a CUDA device, or None where it can.

    Runs the kernels, since Triton may be installed without the C compiler or the GPU that it needs. So call it only
    with CUDA, and not while a CUDA graph is captured. The answer is cached.
    """
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    try:
        for kernels in ("grid_triton", "composite", "sampler", "adam"):
            importlib.import_module(f"surface_sos_ns.ops.cuda.{kernels}").probe(device)
    except Exception as error:  # of many kinds: import, compiler, driver
        reason = " ".join(str(error).split())
        return f"the package triton is installed but does not work here: {type(error).__name__}: {reason}"
    return None


@functools.cache
def tcnn_problem() -> str | None:
    """Why tiny-cuda-nn cannot be used here, or None where it can. Imports it, so call it only with CUDA."""
    if importlib.util.find_spec("tinycudann") is None:
        return "the package tinycudann is not installed"
    try:
        importlib.import_module("tinycudann")
    except (ImportError, OSError) as error:  # built for another GPU or against another torch
        return f"the package tinycudann does not load: {error}"
    return None


def choose_ops(requested: Backend, device: torch.device) -> TorchOps:
    """The back-end for a model on `device`.

    'auto' takes numba on a CPU; on CUDA Triton, or tiny-cuda-nn where Triton does not work; and plain torch where none
    of them is available, and on other devices.

    Raises:
        UserError: a back-end requested by name cannot run here. There is no fallback from it.
    """
    if requested == "torch":
        return _torch_on_cuda() if device.type == "cuda" else TORCH
    if requested == "auto":
        return _best(device)
    if requested == "numba":
        problem = numba_problem() if device.type == "cpu" else "the device is not the CPU"
        _refuse(requested, "the CPU and the package numba", device, problem)
        return _numba()
    if requested == "triton":
        problem = triton_problem(device) if device.type == "cuda" else "the device is not CUDA"
        _refuse(requested, "CUDA and the package triton", device, problem)
        return _triton()
    problem = tcnn_problem() if device.type == "cuda" else "the device is not CUDA"
    _refuse(requested, "CUDA and the package tinycudann", device, problem)
    return _tcnn()


def _best(device: torch.device) -> TorchOps:
    if device.type == "cpu" and numba_problem() is None:
        return _numba()
    if device.type != "cuda":
        return TORCH
    problem = triton_problem(device)
    if problem is None:
        return _triton()
    return _tcnn(problem) if tcnn_problem() is None else _torch_on_cuda(problem)


def _refuse(requested: str, needs: str, device: torch.device, problem: str | None) -> None:
    if problem is not None:
        raise UserError(f"scene.backend {requested} needs {needs} (device: {device}): {problem}.")


@functools.cache
def _numba() -> TorchOps:
    from surface_sos_ns.ops.cpu.numba_ops import NumbaOps  # numba takes a second to import

    return NumbaOps()


@functools.cache
def _triton() -> TorchOps:
    from surface_sos_ns.ops.cuda.triton_ops import TritonOps  # its operators need torch 2.4

    return TritonOps()


def _tcnn(remark: str | None = None) -> TorchOps:
    from surface_sos_ns.ops.cuda.tcnn_ops import TcnnOps

    return TcnnOps(remark)


def _torch_on_cuda(remark: str | None = None) -> TorchOps:
    """Plain torch with fixed shapes: a list of samples would make the host wait."""
    return TorchOps(static=True, chunk_points=GPU_CHUNK_POINTS, remark=remark)
