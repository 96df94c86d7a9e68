"""What torch says of nerfstudio's code is quiet, and the same of others' code is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

PROGRAM = """
import sys
from surface_sos_ns.known_warnings import silence_known_warnings
silence_known_warnings()
exec(compile("import torch; float(torch.ones(1, requires_grad=True))", "program", "exec"), {"__name__": sys.argv[1]})
"""


@pytest.mark.seconds(2.5)
@pytest.mark.parametrize("module, quiet", [("nerfstudio.utils.writer", True), ("mine", False)])
def test_a_figure_with_a_gradient_in_nerfstudios_log(module: str, quiet: bool) -> None:
    """The second is the canary: when it fails, torch no longer warns of that."""
    command = [sys.executable, "-c", PROGRAM, module]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ("Converting a tensor with requires_grad=True to a scalar" in done.stderr) != quiet
