"""The tools that make captures for the benchmarks still find what they use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

TOOLS = sorted((ROOT / "tools").glob("*.py"))


@pytest.mark.seconds(5)
@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_a_tool_says_what_it_takes(tool) -> None:
    found = subprocess.run([sys.executable, str(tool), "--help"], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert found.returncode == 0, found.stderr
    assert "usage:" in found.stdout


def test_the_tools_are_there() -> None:
    assert len(TOOLS) >= 4
