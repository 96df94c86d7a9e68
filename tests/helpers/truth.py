"""Captures with true masks, read with no code that is tested."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from surface_sos_ns.capture.views import Views


def load_capture(folder: Path, split: str | None = None):
    """Views, coarse masks and true masks (bool, None where missing) of a capture in nerfstudio's layout."""
    meta = json.loads((folder / "transforms.json").read_text())
    frames = [frame for frame in meta["frames"] if split is None or frame["file_path"] in set(meta[split])]

    def column(name: str) -> np.ndarray:
        return np.array([frame.get(name, meta.get(name, 0)) for frame in frames], dtype=float)

    views = Views(
        np.array([frame["transform_matrix"] for frame in frames])[:, :3],
        *(column(name) for name in ("fl_x", "fl_y", "cx", "cy", "w", "h")),
        np.stack([column(name) for name in ("k1", "k2", "k3", "k4", "p1", "p2")], axis=-1),
    )

    def masks(key: str) -> list[np.ndarray | None]:
        return [
            cv2.imread(str(folder / frame[key]), cv2.IMREAD_GRAYSCALE) >= 128 if key in frame else None
            for frame in frames
        ]

    return views, masks("coarse_mask_path"), masks("gt_mask_path")
