"""Scans of Triton's interpreter, fast enough for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def scan_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the interpreter combine whole slices along the scanned axis: one element after the other takes minutes."""
    from triton.runtime.interpreter import ScanOps

    def generic_scan(self: Any, inputs: Any) -> list[Any]:
        slices = [np.moveaxis(tensor.handle.data, self.axis, 0) for tensor in inputs]
        dtypes = [tensor.dtype for tensor in inputs]
        results = [np.empty_like(data) for data in slices]
        so_far: Any = None
        for i in range(len(slices[0])):
            here = [self.to_tensor(data[i], dtype) for data, dtype in zip(slices, dtypes, strict=True)]
            so_far = here if i == 0 else self.combine_fn.fn(*so_far, *here)
            for result, part in zip(results, so_far, strict=True):
                result[i] = part.handle.data
        moved = [np.moveaxis(result, 0, self.axis) for result in results]
        return [self.to_tensor(result, dtype) for result, dtype in zip(moved, dtypes, strict=True)]

    monkeypatch.setattr(ScanOps, "generic_scan", generic_scan)
