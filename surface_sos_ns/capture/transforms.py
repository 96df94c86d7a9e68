"""What a capture's transforms.json holds, from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from surface_sos_ns.capture.views import Views

__all__ = ["transforms"]

INTRINSICS = {"fl_x": "fx", "fl_y": "fy", "cx": "cx", "cy": "cy", "w": "width", "h": "height"}
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def transforms(views: Views, frames: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Content of transforms.json.

    Args:
        views: N cameras, frame of the capture.
        frames: of each what else is said of it: file_path, coarse_mask_path ...

    Returns:
        Frames with their poses; intrinsics stand once where all views share them, else with each frame.
    """
    lenses = [_lens(views, index) for index in range(len(views))]
    shared = all(lens == lenses[0] for lens in lenses)
    posed = []
    for frame, lens, pose in zip(frames, lenses, views.camera_to_world, strict=True):
        matrix = np.concatenate([pose, [[0, 0, 0, 1]]]).tolist()
        posed.append({**frame, "transform_matrix": matrix, **({} if shared else lens)})
    model = "OPENCV_FISHEYE" if views.fisheye.any() else "OPENCV"  # nerfstudio reads one for the whole file
    return {"camera_model": model, **(lenses[0] if shared else {}), "frames": posed}


def _lens(views: Views, index: int) -> dict[str, float]:
    values = {key: getattr(views, name)[index].item() for key, name in INTRINSICS.items()}
    return values | dict(zip(DISTORTION, views.distortion[index].tolist(), strict=True))
