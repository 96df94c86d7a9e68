"""Peak memory of a process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from surface_sos_ns.utils.memory import peak_gb

MODULE = "surface_sos_ns.utils.memory"


def test_a_process_does_not_count_the_memory_of_the_one_that_started_it() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells a process its own")
    held = np.ones(60_000_000)  # 0.48 GB
    said = subprocess.run(
        [sys.executable, "-c", f"from {MODULE} import peak_gb; print(peak_gb())"], stdout=subprocess.PIPE, check=True
    )
    ours = peak_gb()
    assert ours is not None and ours > held.nbytes / 1e9 > 0.4 > float(said.stdout) > 0.005
