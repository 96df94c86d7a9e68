"""Undistorted photos, and the pinhole cameras that they are for."""

from __future__ import annotations

import cv2
import numpy as np

from surface_sos_ns.capture.views import Views

__all__ = ["pinhole", "undistorted"]


def pinhole(views: Views) -> Views:
    """Pinhole cameras with the poses and image sizes of the views, all of whose pixels lie inside the photos.

    The focal lengths of a distorted lens are multiplied by the smallest factor for which this holds, which keeps the
    pixels' aspect ratio. A fisheye lens keeps its focal length: the image has the scale of the photo's centre and loses
    its rim.

    Args:
        views: N views.

    Returns:
        N views without distortion.
    """
    changed = [_fitting(views, index) for index in range(len(views))]
    fx, fy, cx, cy = np.array(changed).reshape(-1, 4).T
    return Views(views.camera_to_world, fx, fy, cx, cy, views.width, views.height)


def undistorted(image: np.ndarray, lens: Views, target: Views, index: int) -> np.ndarray:
    """Resamples a photo for a pinhole camera, by bicubic interpolation. Outside the photo, its border is repeated.

    Args:
        image: (H, W) or (H, W, C), the photo.
        lens: views of the photos as taken.
        target: the same views as pinhole cameras, see `pinhole`.
        index: of the photo's view.
    """
    width, height = int(target.width[index]), int(target.height[index])
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = np.stack([x, y], axis=-1).reshape(-1, 2)
    far = lens.camera_to_world[index, :, 3] + target.rays(index, pixels)
    uv, _ = lens.project_one(index, far)
    # In OpenCV the centre of the first pixel is (0, 0), here it is (0.5, 0.5).
    across, down = np.nan_to_num(uv.T - 0.5, nan=-1.0).astype(np.float32).reshape(2, height, width)
    return cv2.remap(image, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _fitting(views: Views, index: int) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of the pinhole camera of a view, pixels."""
    fx, fy, cx, cy = (float(getattr(views, name)[index]) for name in ("fx", "fy", "cx", "cy"))
    if views.fisheye[index]:
        return fx, fy, cx, cy
    width, height = float(views.width[index]), float(views.height[index])
    if not views.distortion[index].any():
        return fx, fy, cx, cy
    across, down = np.linspace(0, width, 200), np.linspace(0, height, 200)

    def normalised(x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        return views.normalised(index, np.stack(np.broadcast_arrays(x, y), axis=-1))

    left, right = normalised(0.0, down)[:, 0].max(), normalised(width, down)[:, 0].min()
    top, bottom = normalised(across, 0.0)[:, 1].max(), normalised(across, height)[:, 1].min()
    factor = max(width / (fx * (right - left)), height / (fy * (bottom - top)))
    fx, fy = fx * factor, fy * factor
    return fx, fy, width / 2 - fx * (left + right) / 2, height / 2 - fy * (top + bottom) / 2
