"""Photos as a pinhole camera would have taken them: without the distortion of their lens."""

from __future__ import annotations

import cv2
import numpy as np

from surface_sos_ns.capture.views import Views

__all__ = ["pinhole", "undistorted"]


def pinhole(views: Views) -> Views:
    """For each view a camera without distortion, of the same pose and image size, whose pixels the photo all shows.

    Its focal lengths are the lens's times a factor just large enough for that, so pixels keep their shape. Those of a
    fisheye are never shortened: the picture keeps the scale of the photo's middle and loses its rim.
    """
    changed = [_fitting(views, index) for index in range(len(views))]
    fx, fy, cx, cy = np.array(changed).reshape(-1, 4).T
    return Views(views.camera_to_world, fx, fy, cx, cy, views.width, views.height)


def undistorted(image: np.ndarray, lens: Views, target: Views, index: int) -> np.ndarray:
    """A photo (H, W[, C]) of view ``index`` of ``lens``, as that view of ``target`` (see `pinhole`) sees it; cubic.

    What the photo does not show repeats its border.
    """
    width, height = int(target.width[index]), int(target.height[index])
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = np.stack([x, y], axis=-1).reshape(-1, 2)
    far = lens.camera_to_world[index, :, 3] + target.rays(index, pixels)
    uv, _ = lens.project_one(index, far)
    # OpenCV counts from the middle of the first pixel.
    across, down = np.nan_to_num(uv.T - 0.5, nan=-1.0).astype(np.float32).reshape(2, height, width)
    return cv2.remap(image, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _fitting(views: Views, index: int) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of the pinhole camera."""
    fx, fy, cx, cy = (float(getattr(views, name)[index]) for name in ("fx", "fy", "cx", "cy"))
    if views.fisheye[index]:
        return fx, fy, cx, cy
    width, height = float(views.width[index]), float(views.height[index])
    if not views.distortion[index].any():
        return fx, fy, cx, cy
    across, down = np.linspace(0, width, 200), np.linspace(0, height, 200)

    def seen(x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        return views.normalised(index, np.stack(np.broadcast_arrays(x, y), axis=-1))

    left, right = seen(0.0, down)[:, 0].max(), seen(width, down)[:, 0].min()
    top, bottom = seen(across, 0.0)[:, 1].max(), seen(across, height)[:, 1].min()
    factor = max(width / (fx * (right - left)), height / (fy * (bottom - top)))
    fx, fy = fx * factor, fy * factor
    return fx, fy, width / 2 - fx * (left + right) / 2, height / 2 - fy * (top + bottom) / 2
