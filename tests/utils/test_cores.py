"""How many threads work, and that a library's own do not change those of torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from surface_sos_ns.utils.cores import allowed_cores, usable_cores

CUT_OUT = """
import torch  # first, as in our commands: numba then calls the OpenMP library that torch brings
import numba, numpy as np
from surface_sos_ns.utils.cutouts import cutout_of_photo
torch.set_num_threads(1)
torch.ones(10).exp()  # torch looks at its number of threads when it first works
assert torch.get_num_threads() == 1
alpha = np.linspace(0, 1, 400).reshape(20, 20)
cutout_of_photo(np.full((20, 20, 3), 0.5), alpha)
print(torch.get_num_threads(), numba.get_num_threads(), numba.threading_layer())
"""


def test_a_command_takes_what_omp_num_threads_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(6), raising=False)
    for limit, expected in (("2", 2), ("12", 6), ("", 6), ("many", 6)):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert usable_cores() == expected and allowed_cores() == 6


@pytest.mark.seconds(15)
@pytest.mark.skipif(allowed_cores() < 2, reason="threads that the process may not use are not started")
def test_torch_keeps_its_threads_beside_those_of_a_cut_out() -> None:
    """In a process of its own: numba starts its threads once, and takes torch's along."""
    pytest.importorskip("pymatting")
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2", "NUMBA_THREADING_LAYER": "omp"}
    found = subprocess.run([sys.executable, "-c", CUT_OUT], capture_output=True, text=True, env=environment)
    assert found.stdout.split() == ["1", "2", "omp"], found.stderr
