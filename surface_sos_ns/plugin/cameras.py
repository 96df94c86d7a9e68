"""nerfstudio's cameras from plain arrays and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

if TYPE_CHECKING:  # nerfstudio imports the data parser whatever it does: nothing more than needed at the top
    from surface_sos_ns.capture.views import Views

__all__ = ["cameras_from_views", "undistortion_error", "views_from_cameras"]


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
        ValueError: a camera is neither a perspective nor a fisheye one.
    """
    from surface_sos_ns.capture.views import Views

    kinds = cameras.camera_type.flatten().cpu().numpy()
    if not np.isin(kinds, (CameraType.PERSPECTIVE.value, CameraType.FISHEYE.value)).all():
        raise ValueError(
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


def undistortion_error(cameras: Cameras, index: int, pixels: np.ndarray) -> np.ndarray:
    """How far nerfstudio's rays of one camera miss the pixels that they are for, in pixels.

    nerfstudio undistorts with ten steps of Newton's method in single precision, which strong distortion outlasts.

    Args:
        cameras: N cameras.
        index: which of them.
        pixels: (P, 2) x and y, pixel centres at +0.5.

    Returns:
        (P,) distances between the pixels and where their rays, followed and projected, come out; nan where they do not.
    """
    coords = torch.from_numpy(np.ascontiguousarray(pixels[:, ::-1]).astype(np.float32))
    rays = cameras.generate_rays(torch.full((len(coords), 1), index), coords)
    along = (rays.origins + rays.directions).double().numpy()
    uv, _ = views_from_cameras(cameras).project_one(index, along)
    return np.linalg.norm(uv - pixels, axis=-1)
