"""The notebook runs from a clean kernel, and is kept without what it printed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

NOTEBOOK = ROOT / "examples" / "photos_to_masks.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert NOTEBOOK.stat().st_size < 20_000


@pytest.mark.slow
@pytest.mark.seconds(200)
def test_the_notebook_runs_from_a_clean_kernel(tmp_path: Path) -> None:
    """Few steps, no photos of one's own. Each cell shows what it is for."""
    notebook = Path(shutil.copy(NOTEBOOK, tmp_path))
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PHOTOS": "", "STEPS": "40", "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    arguments = ("--nbmake", "--overwrite", "--nbmake-timeout=900", "-p", "no:cacheprovider", "-q", str(notebook))
    program = [sys.executable, "-m", "pytest", *arguments]
    found = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800)
    assert found.returncode == 0, found.stdout[-6000:]
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]  # beside words in colour
    assert len(pictures) == 3
    assert len(list((tmp_path / "results" / "masks").iterdir())) == 24
    assert (tmp_path / "results" / "cutouts").is_dir()
