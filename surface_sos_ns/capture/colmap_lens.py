"""Lenses of COLMAP's camera models in the two that nerfstudio traces rays by: OpenCV's perspective one and its fisheye.

Most models are special cases of one of the two, and are taken over exactly. The others (FOV, EUCM, divisions, rational
and thin-prism lenses) are fitted: the coefficients for which the rays of pixels all over the photo come back to their
pixels best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.views import DISTORTION, Views

__all__ = ["ColmapLens", "convert_lens"]

PARAMETERS = {
    "SIMPLE_PINHOLE": ("fl", "cx", "cy"),
    "PINHOLE": ("fl_x", "fl_y", "cx", "cy"),
    "SIMPLE_RADIAL": ("fl", "cx", "cy", "k1"),
    "RADIAL": ("fl", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2"),
}
"""Parameters of COLMAP's models that are special cases of nerfstudio's OPENCV, in COLMAP's order."""

FISHEYE_PARAMETERS = {
    "SIMPLE_FISHEYE": ("fl", "cx", "cy"),
    "FISHEYE": ("fl_x", "fl_y", "cx", "cy"),
    "SIMPLE_RADIAL_FISHEYE": ("fl", "cx", "cy", "k1"),
    "RADIAL_FISHEYE": ("fl", "cx", "cy", "k1", "k2"),
    "OPENCV_FISHEYE": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k4"),
}
"""The same for nerfstudio's OPENCV_FISHEYE."""

GRID = 41
"""Pixels along each side of the photo whose rays a lens is fitted to."""

MAX_FIT_ERROR = 0.001
"""Largest distance between a fitted lens and COLMAP's, as a fraction of the photo's longer side; above it the photos
must be undistorted."""

WIDE = np.radians(80)
"""Angle to the optical axis from which on a perspective lens is not tried."""

UNDISTORT = "Undistort the photos (colmap image_undistorter) and name the folder that it makes."


@dataclass(frozen=True)
class ColmapLens:
    """A lens as in transforms.json.

    Attributes:
        keys: camera_model, w, h, fl_x, fl_y, cx, cy and distortion coefficients; pixels, pixel centres at +0.5.
        error: largest distance in pixels from COLMAP's lens; 0 where it is the same lens.
    """

    keys: dict[str, Any]
    error: float = 0.0


def convert_lens(camera: Any) -> ColmapLens:
    """A pycolmap camera as a lens of transforms.json.

    Raises:
        CaptureError: it is a panorama, or no lens of nerfstudio's comes close to it.
    """
    model = camera.model.name
    size = {"w": int(camera.width), "h": int(camera.height)}
    for name, known in (("OPENCV", PARAMETERS), ("OPENCV_FISHEYE", FISHEYE_PARAMETERS)):
        if model in known:
            values = dict(zip(known[model], map(float, camera.params), strict=True))
            focal = values.pop("fl", None)
            both = {} if focal is None else {"fl_x": focal, "fl_y": focal}
            return ColmapLens({"camera_model": name} | size | both | values)
    if model == "EQUIRECTANGULAR":
        raise CaptureError(
            "a camera is a panorama (EQUIRECTANGULAR); expected perspective or fisheye photos. Cut panoramas into "
            "perspective photos: ns-process-data images --camera-type equirectangular."
        )
    pixels, rays = _rays(camera)
    angles = np.arccos(np.clip(rays[:, 2], -1, 1))
    kinds = [True] if angles.max() > WIDE else [False, True]
    keys, error = min((_fitted(camera, pixels, rays, fisheye) for fisheye in kinds), key=lambda found: found[1])
    allowed = MAX_FIT_ERROR * max(size.values())
    if error > allowed:
        raise CaptureError(
            f"a lens of COLMAP's model {model} differs by {error:.1f} pixels from the nearest lens that nerfstudio can "
            f"follow; expected at most {allowed:.1f}. {UNDISTORT}"
        )
    return ColmapLens(size | keys, error)


def _rays(camera: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (P, 2) all over the photo and their rays (P, 3): unit vectors, x right, y down, z forward."""
    across = np.linspace(0.5, camera.width - 0.5, GRID)
    down = np.linspace(0.5, camera.height - 0.5, GRID)
    pixels = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    rays = np.asarray(camera.cam_ray_from_img(pixels))
    seen = np.isfinite(rays).all(axis=1)
    seen[seen] &= np.abs(np.asarray(camera.img_from_cam(rays[seen])) - pixels[seen]).max(axis=1) < 0.01
    if seen.sum() < len(seen) / 2:
        raise CaptureError(f"most pixels of a lens of COLMAP's model {camera.model.name} have no ray. {UNDISTORT}")
    return pixels[seen], rays[seen]


def _fitted(camera: Any, pixels: np.ndarray, rays: np.ndarray, fisheye: bool) -> tuple[dict[str, Any], float]:
    """Keys of the lens whose projections of the rays are closest to the pixels, and its largest error in pixels."""
    from scipy.optimize import least_squares

    start = [camera.focal_length_x, camera.focal_length_y, camera.principal_point_x, camera.principal_point_y]
    free = 4 + (4 if fisheye else 6)

    def lens(values: np.ndarray) -> Views:
        fx, fy, cx, cy, *distortion = np.concatenate([values, np.zeros(10 - free)])
        pose = np.eye(4)[None, :3]
        return Views(pose, fx, fy, cx, cy, camera.width, camera.height, np.array([distortion]), fisheye)  # type: ignore[arg-type]

    def misses(values: np.ndarray) -> np.ndarray:
        u, v, _ = lens(values).project_camera(0, rays[:, 0], -rays[:, 1], -rays[:, 2])
        return np.nan_to_num(np.stack([u, v], axis=-1) - pixels, nan=float(camera.width)).ravel()

    scale = np.array([*start, *[0.1] * (free - 4)])
    found = least_squares(misses, [*start, *[0.0] * (free - 4)], x_scale=scale)
    fx, fy, cx, cy, *distortion = found.x.tolist()
    keys = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy} | dict(zip(DISTORTION, distortion, strict=False))
    error = float(np.linalg.norm(misses(found.x).reshape(-1, 2), axis=1).max())
    return {"camera_model": "OPENCV_FISHEYE" if fisheye else "OPENCV"} | keys, error
