"""The wheel: what is in it, how large it is, that an index would take it, and that it works without the repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.terminal import Terminal

LIMIT = 1 << 20
"""Bytes: 1 MB is read as 1 MiB here. Half a thousand files of code alone take 3 % more than 1 000 000 bytes."""
SHORT = (
    *("--max-num-iterations", "20", "--pipeline.datamanager.train-num-rays-per-batch", "64"),
    *("--pipeline.model.initial-fit-steps", "10", "--vis", "tensorboard"),
)


def run(*arguments: str | Path, python: str | Path = sys.executable, **options: Any) -> str:
    command = [str(word) for word in (python, *arguments)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a package is built from, without anything that earlier builds left in the repository."""
    source = tmp_path_factory.mktemp("package") / "source"
    shutil.copytree(ROOT / "surface_sos_ns", source / "surface_sos_ns", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    dist = source.parent / "dist"
    # The source archive, and the wheel from it, by the setuptools of this environment: nothing is downloaded.
    run("-m", "build", "--no-isolation", "--outdir", dist, source)
    assert "PASSED" in run("-m", "twine", "check", "--strict", *dist.iterdir())
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.mark.seconds(20)
def test_the_wheel_is_small_and_complete(wheel: Path, source: Path) -> None:
    assert wheel.stat().st_size < LIMIT
    inside = set(zipfile.ZipFile(wheel).namelist())
    files = {path for path in (source / "surface_sos_ns").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    expected = {path.relative_to(source).as_posix() for path in files}
    assert {"surface_sos_ns/py.typed", "surface_sos_ns/report/page.css", "surface_sos_ns/batch/overview.js"} <= expected
    assert expected <= inside, "every file of the package is in the wheel, also those that are no Python"
    assert not any(name.startswith(("tests/", "docs/", "tools/", "examples/")) for name in inside)


@pytest.mark.seconds(60)
def test_the_wheel_works_where_the_repository_is_not(
    wheel: Path, demo_capture: Path, terminal: Terminal, tmp_path: Path
) -> None:
    """In an environment of its own, which has this one's packages but not its link to the repository."""
    environment = tmp_path / "environment"
    run("-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    # Paths named in a .pth file are searched last, and .pth files in them, such as the repository's, are not read.
    (packages / "host.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run("-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    where = run("-c", "import surface_sos_ns; print(surface_sos_ns.__file__)", python=python, cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)

    def command(module: str, *arguments: str | Path) -> str:
        return run("-m", module, *arguments, python=python, cwd=tmp_path, env=terminal.environment())

    assert "surface-sos-lite" in command("nerfstudio.scripts.train", "--help")
    assert "--views" in command("surface_sos_ns.cli", "demo", "--help")
    command("nerfstudio.scripts.train", "surface-sos-lite", "--data", demo_capture, "--timestamp", "t", *SHORT)
    (config,) = tmp_path.glob("outputs/*/surface-sos-lite/t/config.yml")
    command("surface_sos_ns.cli", "export", "--load-config", config, "--output-dir", "RESULTS", "--what", "masks")
    assert len(list((tmp_path / "RESULTS" / "masks").rglob("*.png"))) == 32
