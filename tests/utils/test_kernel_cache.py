"""Kernels that numba has compiled run even if its cache cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import surface_sos_ns

pytest.importorskip("numba")
pytest.importorskip("resource", reason="this system cannot limit the size of files")

KERNELS = """
from numba import njit

@njit(cache=True)
def twice(number):
    return 2 * number

@njit(cache=True)
def thrice(number):
    return 3 * number
"""

PROGRAM = """
import resource

from surface_sos_ns.utils.kernel_cache import allow_unwritable_cache

if {allowed}:
    allow_unwritable_cache()
    allow_unwritable_cache()
resource.setrlimit(resource.RLIMIT_FSIZE, (10, -1))
import kernels

print(kernels.twice(21), kernels.thrice(0.5))
"""


@pytest.mark.seconds(4)
def test_a_full_disk_does_not_stop_a_compiled_kernel(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(KERNELS)

    environment = {**os.environ, "PYTHONPATH": str(Path(surface_sos_ns.__file__).parents[1])}
    environment.pop("NUMBA_CACHE_DIR", None)

    def run(allowed: bool) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-B", "-c", PROGRAM.format(allowed=allowed)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    refused = run(allowed=False)
    assert refused.returncode == 1 and "OSError" in refused.stderr, "numba allows it by itself; the patch can go"
    done = run(allowed=True)
    assert (done.returncode, done.stdout) == (0, "42 1.5\n"), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Warning: ") and str(tmp_path / "__pycache__") in line and "File too large" in line
    assert not list((tmp_path / "__pycache__").glob("kernels.*.nb?*"))
