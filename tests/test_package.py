"""The wheel: what is in it, how large it is, and that an index would take it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

LIMIT = 1 << 20
"""Bytes: 1 MB is read as 1 MiB here. Half a thousand files of code alone take 2 % more than 1 000 000 bytes."""


def run(*arguments: str | Path) -> str:
    found = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.mark.slow
@pytest.mark.seconds(60)
def test_the_wheel_is_small_and_complete(tmp_path: Path) -> None:
    source, dist = tmp_path / "source", tmp_path / "dist"
    shutil.copytree(ROOT / "surface_sos_ns", source / "surface_sos_ns", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run("build", "--outdir", dist, source)  # the source archive, and the wheel from it
    assert "PASSED" in run("twine", "check", "--strict", *dist.iterdir())
    (wheel,) = dist.glob("*.whl")
    assert wheel.stat().st_size < LIMIT
    inside = set(zipfile.ZipFile(wheel).namelist())
    files = {path for path in (source / "surface_sos_ns").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    expected = {path.relative_to(source).as_posix() for path in files}
    assert {"surface_sos_ns/py.typed", "surface_sos_ns/report/page.css", "surface_sos_ns/batch/overview.js"} <= expected
    assert expected <= inside, "every file of the package is in the wheel, also those that are no Python"
    assert not any(name.startswith(("tests/", "docs/", "tools/", "examples/")) for name in inside)
