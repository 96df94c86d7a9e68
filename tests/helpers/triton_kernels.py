"""Triton's kernels without a GPU: in its interpreter, or compiled for GPUs that are not there."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run in the interpreter in this process; see `test_triton_grid.py`."""
CAPABILITIES = (75, 80, 86, 89, 90, 100, 120)
"""Compute capabilities, times ten, of the GPUs that are supported."""

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs the package triton")
not_interpreted = pytest.mark.skipif(INTERPRETED, reason="not for the interpreter")
only_interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs as part of test_kernels_in_the_interpreter")
each_capability = pytest.mark.parametrize("capability", CAPABILITIES)
some_capabilities = pytest.mark.parametrize(
    "capability",
    [pytest.param(number, marks=[] if number in (75, 90) else [pytest.mark.slow]) for number in CAPABILITIES],
)
"""The oldest and a current GPU; the others are slow tests."""


def compile_kernel(kernel: Any, types: Mapping[str, str], constants: Mapping[str, Any], capability: int) -> bytes:
    """The machine code of a kernel for a GPU.

    Args:
        kernel: a function under `triton.jit`.
        types: of arguments that are not pointers to float32, in Triton's notation, such as `i32`.
        constants: values of its `constexpr` arguments, and None for pointers that it can do without.
        capability: compute capability of the GPU, times ten.
    """
    import triton
    from triton.backends.compiler import GPUTarget

    from surface_sos_ns.ops.cuda.triton_support import OPTIONS

    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in names}
    try:
        source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=dict(constants))
    except TypeError:
        pytest.skip("another version of Triton's compiler interface")
    # into an empty cache, or what was compiled before would be taken
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, TRITON_CACHE_DIR=folder):
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=OPTIONS).asm["cubin"]


def scan_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the interpreter combine whole slices along the scanned axis: one element after the other takes minutes."""
    from triton.runtime.interpreter import ScanOps

    def generic_scan(self: Any, inputs: Any) -> list[Any]:
        slices = [np.moveaxis(tensor.handle.data, self.axis, 0) for tensor in inputs]
        dtypes = [tensor.dtype for tensor in inputs]
        results = [np.empty_like(data) for data in slices]
        so_far: Any = None
        for i in range(len(slices[0])):
            here = [self.to_tensor(data[i], dtype) for data, dtype in zip(slices, dtypes, strict=True)]
            so_far = here if i == 0 else self.combine_fn.fn(*so_far, *here)
            for result, part in zip(results, so_far, strict=True):
                result[i] = part.handle.data
        moved = [np.moveaxis(result, 0, self.axis) for result in results]
        return [self.to_tensor(result, dtype) for result, dtype in zip(moved, dtypes, strict=True)]

    monkeypatch.setattr(ScanOps, "generic_scan", generic_scan)
