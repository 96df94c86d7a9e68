"""Folders that tests need."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
"""Of the repository."""


def shared_data(*names: str) -> Path:
    """A folder of ``../shared/data``, captures beside the repository; skips the test where it is absent."""
    folder = ROOT.parent.joinpath("shared", "data", *names)
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder
