"""Where Triton's kernels run."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from tests.helpers.triton_kernels import INTERPRETED, scan_all_rows_at_once


@pytest.fixture(params=["cpu" if INTERPRETED else pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where kernels run in this process: on a GPU, or on the CPU in Triton's interpreter."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs the package triton")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; runs on the CPU as part of test_kernels_in_the_interpreter")
    if INTERPRETED:
        scan_all_rows_at_once(monkeypatch)
    return torch.device(request.param)
