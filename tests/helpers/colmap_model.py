"""COLMAP models on disk, with known cameras and points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap

from surface_sos_ns.capture.views import Views


def colmap_model(
    folder: Path,
    views: Views,
    names: Sequence[str],
    xyz: np.ndarray,
    scale: float = 1.0,
    seen_by: list[list[str]] | None = None,
    cameras: Sequence[tuple[str, Sequence[float]]] | None = None,
) -> Path:
    """A model in a world that is `scale` times as large; every image sees every point if it is not said which do.

    Args:
        cameras: of each image the COLMAP model and its parameters; without, a pinhole with the views' focal length.
    """
    model = pycolmap.Reconstruction()
    width, height = int(views.width[0]), int(views.height[0])
    if cameras is None:
        cameras = [("SIMPLE_PINHOLE", (float(views.fx[0]), width / 2, height / 2))] * len(names)
    known = list(dict.fromkeys((kind, tuple(values)) for kind, values in cameras))
    for index, (kind, values) in enumerate(known, start=1):
        camera = pycolmap.Camera(model=kind, width=width, height=height, params=list(values), camera_id=index)
        model.add_camera_with_trivial_rig(camera)
    flip = np.diag([1.0, -1.0, -1.0])
    for index, name in enumerate(names):
        rotation = flip @ views.camera_to_world[index, :, :3].T
        pose = pycolmap.Rigid3d(np.c_[rotation, -scale * rotation @ views.camera_to_world[index, :, 3]])
        camera_id = known.index((cameras[index][0], tuple(cameras[index][1]))) + 1
        image = pycolmap.Image(name, np.full((len(xyz), 2), 10.0), camera_id=camera_id, image_id=index + 1)
        model.add_image_with_trivial_frame(image, pose)
    for number, position in enumerate(xyz):
        track = pycolmap.Track()
        for name in names if seen_by is None else seen_by[number]:
            track.add_element(list(names).index(name) + 1, number)
        model.add_point3D(scale * position, track, np.array([9, 8, 7], np.uint8))
    folder.mkdir(parents=True)
    model.write(str(folder))
    return folder
