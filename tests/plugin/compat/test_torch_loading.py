"""Canary: torch refuses the numpy scalars that nerfstudio's schedules leave in checkpoints.

In a process of its own: in this one they are allowed.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

SCHEDULE = """
import io, torch
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
optimiser = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
schedule = ExponentialDecaySchedulerConfig(lr_final=1e-3, max_steps=10).setup().get_scheduler(optimiser, 1e-2)
optimiser.step(); schedule.step()
file = io.BytesIO()
torch.save(optimiser.state_dict(), file)
file.seek(0)
torch.load(file)
"""


@pytest.mark.seconds(5)
def test_torch_still_refuses_a_checkpoint_of_nerfstudios() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCHEDULE], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "numpy" in done.stderr and "UnpicklingError" in done.stderr, done.stderr[-2000:]
