"""What runs compiled on a CPU. Every function here has a twin in plain torch that it is tested against."""

from __future__ import annotations

from pathlib import Path


def _drop_stale_caches() -> None:
    """Forget compiled code that is older than any source file here.

    numba watches only the file a kernel stands in; but kernels are built from functions of their neighbours, so one
    file that changes makes all of them stale.
    """
    folder = Path(__file__).parent
    newest = max(source.stat().st_mtime for source in folder.glob("*.py"))
    for index in (folder / "__pycache__").glob("*.nbi"):
        if index.stat().st_mtime < newest:
            index.unlink(missing_ok=True)


_drop_stale_caches()
