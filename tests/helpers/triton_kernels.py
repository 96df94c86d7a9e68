"""Triton's kernels without a GPU: in its interpreter, or compiled for GPUs that are not there."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Mapping
from typing import Any
from unittest import mock

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run in the interpreter in this process; see `test_triton_grid.py`."""
CAPABILITIES = (75, 80, 86, 89, 90, 100, 120)
"""Compute capabilities, times ten, of the GPUs that are supported."""

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs the package triton")
not_interpreted = pytest.mark.skipif(INTERPRETED, reason="not for the interpreter")
each_capability = pytest.mark.parametrize("capability", CAPABILITIES)


def kernel_device() -> torch.device:
    """Where kernels run in this process. Skips the test where they do not."""
    if not INTERPRETED and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; runs on the CPU as part of test_kernels_in_the_interpreter")
    return torch.device("cpu" if INTERPRETED else "cuda")


def compile_kernel(kernel: Any, types: Mapping[str, str], constants: Mapping[str, Any], capability: int) -> bytes:
    """The machine code of a kernel for a GPU.

    Args:
        kernel: a function under `triton.jit`.
        types: of arguments that are not pointers to float32, in Triton's notation, such as `i32`.
        constants: values of its `constexpr` arguments.
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
