"""Kernels for the CPU, compiled by numba. Each has a counterpart in plain torch that it is tested against.

In all backward functions `by_x` is the incoming gradient of the loss by output x, `grad_x` or `to_x` the gradient that
is returned for input x.
"""

from __future__ import annotations

from pathlib import Path

from surface_sos_ns.utils.kernel_cache import allow_unwritable_cache


def _drop_stale_caches() -> None:
    """Delete cached machine code that is older than any source file in this folder.

    numba checks only the file that a kernel is defined in. But kernels inline functions of other files here, so a
    change of one file makes the code of all of them stale.
    """
    folder = Path(__file__).parent
    newest = max(source.stat().st_mtime for source in folder.glob("*.py"))
    for index in (folder / "__pycache__").glob("*.nbi"):
        if index.stat().st_mtime < newest:
            index.unlink(missing_ok=True)


_drop_stale_caches()
allow_unwritable_cache()
