"""The hash grid's and the renderer's Triton kernels compile for the GPUs there are, without one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.triton_kernels import compile_kernel, needs_triton, not_interpreted, some_capabilities

pytestmark = needs_triton

MODULES = ("grid_triton", "composite_triton")
CONSTANTS: dict[str, Any] = {
    # hash grid
    "F": 2,
    "WIDTH": 32,
    "COLUMNS": 2,
    "JACOBIAN": True,
    "FEATURES": True,
    "RUN": 4,
    # rays of 24 samples
    "SAMPLES": 24,
    "PADDED": 32,
    "BLOCK": 16,
}
"""Arguments that are constants of a compiled kernel."""
INTEGERS = {"levels": "*i32", "count": "i32", "feature_row": "i32", "rays": "i32", "channels": "i32"}
"""Types of the arguments that are not pointers to float32."""


def kernels() -> Iterator[Any]:
    """All that are launched: they alone declare what not to specialise on."""
    from triton import JITFunction

    for module in MODULES:
        for found in vars(importlib.import_module(f"surface_sos_ns.ops.cuda.{module}")).values():
            if isinstance(found, JITFunction) and found.do_not_specialize:
                yield found


def size_of(kernel: Any, capability: int, absent: str = "") -> int:
    """Bytes of machine code of a kernel, with None for the arguments whose names start with `absent`."""
    constants = {name: CONSTANTS[name] for name in kernel.arg_names if name in CONSTANTS}
    if absent:
        constants |= dict.fromkeys((name for name in kernel.arg_names if name.startswith(absent)), None)
    return len(compile_kernel(kernel, INTEGERS, constants, capability))


@not_interpreted
@pytest.mark.seconds(6)
@some_capabilities
def test_kernels_compile_without_a_gpu(capability: int) -> None:
    names = []
    for kernel in kernels():
        assert size_of(kernel, capability) > 1000
        if any(name.startswith("by_") for name in kernel.arg_names):
            assert size_of(kernel, capability, absent="by_") > 1000
        names.append(kernel.__name__)
    assert {"_gather", "_scatter", "_scatter_to_points", "_ray_weights_backward", "_density_opacity"} < set(names)
