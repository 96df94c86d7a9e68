"""Sparse points of COLMAP models, with their tracks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.names import listed, match_references
from surface_sos_ns.capture.points import SparsePoints

__all__ = ["points_of_model", "read_colmap_points", "read_model"]


def read_colmap_points(folder: Path, photos: Sequence[str]) -> tuple[SparsePoints, np.ndarray]:
    """Reads the points of a COLMAP model, and where its cameras are.

    Args:
        folder: of the model: cameras, images and points3D, binary or text (for example ``colmap/sparse/0``).
        photos: paths of the N photos in the order of the views, as in transforms.json (``images/a/0001.jpg``). They
            are matched with COLMAP's image names by `names.match_references`; other images of the model are ignored.

    Returns:
        points: in COLMAP's world frame.
        centres: (N, 3) camera centres, same frame; nan for photos that the model has no pose of.

    Raises:
        ImportError: pycolmap is not installed.
        CaptureError: the folder holds no readable model, none of the photos, or an image that could be several photos.
    """
    model = read_model(folder)
    view_of = _views_of_images(model, photos, folder)
    centres = np.full((len(photos), 3), np.nan)
    for image_id, view in view_of.items():
        if model.images[image_id].has_pose:
            centres[view] = model.images[image_id].projection_center()
    return points_of_model(model, view_of, len(photos)), centres


def points_of_model(model: Any, view_of: Mapping[int, int], view_count: int) -> SparsePoints:
    """The points of a pycolmap reconstruction, ordered by their ids.

    Args:
        model: the pycolmap.Reconstruction.
        view_of: view index by image id; images that are not in it do not count for visibility.
        view_count: number of views.
    """
    ids = sorted(model.points3D.keys())
    xyz = np.zeros((len(ids), 3))
    rgb = np.zeros((len(ids), 3), np.uint8)
    length = np.zeros(len(ids), np.int64)
    visibility = np.zeros((len(ids), view_count), bool)
    for row, point_id in enumerate(ids):
        point = model.points3D[point_id]
        xyz[row], rgb[row] = point.xyz, point.color
        length[row] = point.track.length()
        for element in point.track.elements:
            if element.image_id in view_of:
                visibility[row, view_of[element.image_id]] = True
    return SparsePoints(xyz, rgb, length, visibility)


def read_model(folder: Path) -> Any:
    """The pycolmap.Reconstruction of a folder.

    Raises:
        ImportError: pycolmap is not installed.
        CaptureError: the folder holds no readable model.
    """
    from surface_sos_ns.utils.colmap import pycolmap

    try:
        return pycolmap.Reconstruction(str(folder))
    except Exception as error:  # pycolmap raises different types from version to version
        raise CaptureError(
            f"{folder} holds no readable COLMAP model ({error}); expected cameras, images and points3D."
        ) from error


def _views_of_images(model: Any, photos: Sequence[str], folder: Path) -> dict[int, int]:
    """View index by COLMAP image id, for the images that are photos of the capture.

    Raises:
        CaptureError: no image is a photo, or an image could be several photos. Visibility would be wrong then, which is
            worse than having no points.
    """
    ids = sorted(model.images)
    names = [model.images[image_id].name for image_id in ids]
    found = match_references(photos, names)
    count = Counter(index for indices in found for index in indices)
    for indices in found:
        if len(indices) > 1 or any(count[index] > 1 for index in indices):
            could_be = [photo for photo, theirs in zip(photos, found, strict=True) if theirs == indices]
            raise CaptureError(
                f"In the COLMAP model in {folder}, it is not clear which image is which photo: "
                f"{listed([names[index] for index in indices], 2)} could be {listed(could_be, 2)}."
            )
    if ids and not any(found):
        raise CaptureError(
            f"The COLMAP model in {folder} knows none of the photos (it has {listed(names, 1)}, the capture "
            f"{listed(photos, 1) or 'none'})."
        )
    return {ids[indices[0]]: view for view, indices in enumerate(found) if indices}
