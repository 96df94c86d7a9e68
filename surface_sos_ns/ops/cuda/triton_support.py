"""What all of Triton's kernels need around them: options and device of a launch, and a comparison with torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

THREADS = 128
"""CUDA threads of a program, the unit in which a kernel is launched."""

OPTIONS: dict[str, Any] = {"num_warps": THREADS // 32, "enable_fp_fusion": True}
"""Options of all launches. Explicit, because Triton's defaults differ between versions."""


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make the tensor's device the current one, on which Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def scalar(number: float | Tensor, like: Tensor) -> Tensor:
    """A number as a tensor () of the type and on the device of `like`, without a copy from the host; no gradient."""
    return number.detach().to(like.dtype) if isinstance(number, Tensor) else like.new_full((), number)


def compare(truth: Iterable[Tensor], ours: Iterable[Tensor]) -> None:
    """Compare results of kernels with those of torch.

    Raises:
        RuntimeError: they differ by more than rounding.
    """
    for expected, found in zip(truth, ours, strict=True):
        expected, found = expected.detach().cpu(), found.detach().cpu()
        if not torch.allclose(expected, found, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
            raise RuntimeError("Triton's kernels and torch give different results")
