"""Triton's kernels compile for the GPUs there are, without one."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs the package triton"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
]

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


def size_of(kernel: Any, architecture: int, absent: str) -> int:
    """Bytes of machine code of a kernel, with None for the arguments whose names start with `absent`."""
    import triton
    from triton.backends.compiler import GPUTarget

    from surface_sos_ns.ops.cuda.triton_support import OPTIONS

    names = kernel.arg_names
    constants = {name: CONSTANTS[name] for name in names if name in CONSTANTS}
    constants |= dict.fromkeys((name for name in names if name.startswith(absent)), None)
    types = {name: "constexpr" if name in constants else INTEGERS.get(name, "*fp32") for name in names}
    try:
        source = triton.compiler.ASTSource(fn=kernel, signature=types, constexprs=constants)
    except TypeError:
        pytest.skip("another version of Triton's compiler interface")
    return len(triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=OPTIONS).asm["cubin"])


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(90, marks=pytest.mark.seconds(6)),
        *(pytest.param(number, marks=pytest.mark.slow) for number in (75, 80, 86, 89, 100, 120)),
    ],
)
def test_kernels_compile_without_a_gpu(
    architecture: int, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # in a cache of its own, or what was compiled before would be taken
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
    names = []
    for kernel in kernels():
        assert size_of(kernel, architecture, absent="nothing") > 1000
        if any(name.startswith("by_") for name in kernel.arg_names):
            assert size_of(kernel, architecture, absent="by_") > 1000
        names.append(kernel.__name__)
    assert {"_gather", "_scatter", "_scatter_to_points", "_ray_weights_backward", "_density_opacity"} < set(names)
