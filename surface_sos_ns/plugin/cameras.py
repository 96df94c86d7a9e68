"""nerfstudio's cameras from plain arrays and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from surface_sos_ns.utils.errors import UserError

if TYPE_CHECKING:  # nerfstudio imports the data parser whatever it does: nothing more than needed at the top
    from surface_sos_ns.capture.views import Views

__all__ = ["cameras_from_views", "has_good_ray", "views_from_cameras"]


MAX_RAY_ERROR = 0.25
"""Pixels by which a ray may miss the pixel it is for."""
RAYS_AT_ONCE = 200_000


def cameras_from_views(views: Views, **more: Any) -> Cameras:
    """N cameras of any mix of lenses, with the poses of the views.

    Args:
        views: N views.
        more: further arguments of Cameras, such as times and metadata.
    """

    def column(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32))[:, None]

    kinds = np.where(views.fisheye, CameraType.FISHEYE.value, CameraType.PERSPECTIVE.value)
    return Cameras(
        camera_to_worlds=torch.from_numpy(views.camera_to_world.astype(np.float32)),
        fx=column(views.fx),
        fy=column(views.fy),
        cx=column(views.cx),
        cy=column(views.cy),
        width=torch.from_numpy(views.width.astype(np.int32))[:, None],
        height=torch.from_numpy(views.height.astype(np.int32))[:, None],
        distortion_params=torch.from_numpy(views.distortion.astype(np.float32)),
        camera_type=torch.from_numpy(kinds.astype(np.int64))[:, None],
        **more,
    )


def views_from_cameras(cameras: Cameras) -> Views:
    """nerfstudio's cameras as plain arrays, world frame.

    Raises:
        UserError: a camera is neither a perspective nor a fisheye one.
    """
    from surface_sos_ns.capture.views import Views

    kinds = cameras.camera_type.flatten().cpu().numpy()
    if not np.isin(kinds, (CameraType.PERSPECTIVE.value, CameraType.FISHEYE.value)).all():
        raise UserError(
            "Only perspective and fisheye cameras can be used; cut panoramas into perspective photos first."
        )
    arrays = {
        name: getattr(cameras, name).flatten().cpu().numpy() for name in ("fx", "fy", "cx", "cy", "width", "height")
    }
    distortion = cameras.distortion_params
    return Views(
        camera_to_world=cameras.camera_to_worlds.cpu().double().numpy(),
        distortion=np.zeros((len(kinds), 6)) if distortion is None else distortion.cpu().double().numpy(),
        fisheye=kinds == CameraType.FISHEYE.value,
        **arrays,
    )


def has_good_ray(cameras: Cameras, index: int, pixels: np.ndarray) -> np.ndarray:
    """For which pixels nerfstudio's rays are right.

    They are not where a lens looks nowhere (see `Views.has_ray`), nor where ten steps of Newton's method, which is how
    nerfstudio undistorts, are not enough. The axis of a fisheye, where nerfstudio divides 0 by 0, counts as right.

    Args:
        cameras: N cameras.
        index: which of them.
        pixels: (P, 2) x and y, pixel centres at +0.5.

    Returns:
        (P,) bool.
    """
    still = cameras[index : index + 1]
    still.camera_to_worlds = torch.eye(4)[None, :3]  # at the origin: no large coordinates to round in single precision
    views = views_from_cameras(still)
    found = []
    for part in np.array_split(pixels, max(1, len(pixels) // RAYS_AT_ONCE)):
        coords = torch.from_numpy(np.ascontiguousarray(part[:, ::-1]).astype(np.float32))
        theirs = still.generate_rays(torch.zeros(len(coords), 1, dtype=torch.long), coords).directions.numpy()
        right = views.rays(0, part)
        # Pixels per radian: more towards the rim of a perspective picture.
        pixel = views.fx[0] if views.fisheye[0] else views.fx[0] / np.maximum(-right[:, 2], 1e-3) ** 2
        good = np.linalg.norm(theirs - right, axis=-1) * pixel < MAX_RAY_ERROR
        # Distortion may stretch a small angle over many pixels. Behind the camera nothing is projected: nan is no miss.
        missed = np.linalg.norm(views.project_one(0, theirs.astype(np.float64))[0] - part, axis=-1) >= MAX_RAY_ERROR
        axis = np.linalg.norm(part - [views.cx[0], views.cy[0]], axis=-1) < 1e-3
        found.append((good & ~missed | axis) & views.has_ray(0, part))
    return np.concatenate(found)
