"""What torch says of nerfstudio's code is quiet, and the same of others' code is not.

Canaries: in code that is not nerfstudio's, or without the filters, each is said.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

SILENCE = "from surface_sos_ns.plugin.compat.known_warnings import silence_known_warnings; silence_known_warnings()\n"
PROGRAM = """
import sys
exec(compile("import torch; " + sys.argv[2], "program", "exec"), {"__name__": sys.argv[1]})
"""
CODE = {
    "Converting a tensor with requires_grad=True to a scalar": "float(torch.ones(1, requires_grad=True))",
    "Using a non-tuple sequence for multidimensional indexing": "torch.ones(2, 2)[[0, slice(None)]]",
}
OLD_NAMES = ("`torch.jit.script`", "`torch.cuda.amp.custom_")


def said(program: str, *arguments: str) -> str:
    """What a program writes to standard error."""
    command = [sys.executable, "-W", "default", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@pytest.mark.seconds(2.5)
@pytest.mark.parametrize("module, quiet", [("nerfstudio.utils.writer", True), ("mine", False)])
@pytest.mark.parametrize("warning", CODE)
def test_code_of_nerfstudios_that_torch_warns_of(warning: str, module: str, quiet: bool) -> None:
    assert (warning in said(SILENCE + PROGRAM, module, CODE[warning])) != quiet


@pytest.mark.seconds(5)
def test_old_names_that_nerfstudio_uses() -> None:
    program = "import nerfstudio.field_components.activations, nerfstudio.cameras.camera_utils"
    with ThreadPoolExecutor() as beside:
        loud, quiet = beside.map(said, (program, SILENCE + program))
    for name in OLD_NAMES:
        assert name in loud and name not in quiet, name
