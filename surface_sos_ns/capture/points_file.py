"""Sparse points that a capture brings: read when needed, moved to the world frame, checked against the cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.colmap_points import read_colmap_points
from surface_sos_ns.capture.ply import read_ply_points
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.views import Views

__all__ = ["PointsFile", "first_fitting_points"]

MAX_CENTRE_ERROR = 0.05
"""Largest median distance between COLMAP's camera centres and the capture's, as a fraction of the cameras' extent."""
MIN_IN_IMAGE = 0.5
"""Smallest fraction of the observations (point, photo of its track) whose point projects into the photo."""
MIN_IN_IMAGE_WITHOUT_TRACKS = 0.02
"""The same over all pairs of a point and a photo, where the file has no tracks."""


@dataclass(frozen=True, eq=False)
class PointsFile:
    """A file of sparse points and its transform to the world frame. It is read by `load` only.

    Attributes:
        path: a .ply file, or the folder of a COLMAP model.
        transforms: candidates (3, 4) for the transform from the file's frame to the world frame, before scaling. A
            COLMAP model may be in its own frame or in that of transforms.json: the candidate that brings COLMAP's
            camera centres closest to the capture's is used.
        scale: factor applied after the transform.
    """

    path: Path
    transforms: tuple[np.ndarray, ...]
    scale: float

    @property
    def is_colmap(self) -> bool:
        """Whether it is a COLMAP model, which has tracks; a .ply file has none."""
        return self.path.suffix.lower() != ".ply"

    @property
    def contents(self) -> list[Path]:
        """The files that points and visibility are read from."""
        if not self.is_colmap:
            return [self.path]
        return sorted(path for kind in ("images.*", "points3D.*") for path in self.path.glob(kind))

    def load(self, views: Views, photos: Sequence[str]) -> SparsePoints:
        """Reads the points and moves them to the world frame.

        Args:
            views: N views, world frame; the points are checked against them.
            photos: paths of the N photos, as in transforms.json.

        Raises:
            ImportError: pycolmap is not installed.
            OSError: a file cannot be read.
            CaptureError: there are no points, or they do not fit the cameras: COLMAP's camera centres differ from the
                capture's, or the points do not project into the photos.
        """
        if self.is_colmap:
            points, centres = read_colmap_points(self.path, photos)
            errors = [_centre_error(self._to_world(centres, transform), views) for transform in self.transforms]
        else:
            points = read_ply_points(self.path)
            errors = [0.0] * len(self.transforms)  # a .ply file has no cameras to compare with
        if len(points) == 0:
            raise CaptureError("there are none.")
        best = int(np.argmin(errors))
        xyz = self._to_world(points.xyz, self.transforms[best])
        in_image = _fraction_in_image(views, xyz, points.visibility)
        lowest = MIN_IN_IMAGE if points.visibility is not None else MIN_IN_IMAGE_WITHOUT_TRACKS
        if errors[best] > MAX_CENTRE_ERROR or in_image < lowest:
            raise CaptureError("they do not fit the cameras of the capture.")
        return replace(points, xyz=xyz)

    def _to_world(self, xyz: np.ndarray, transform: np.ndarray) -> np.ndarray:
        return self.scale * (xyz @ transform[:, :3].T + transform[:, 3])


def first_fitting_points(
    files: Sequence[PointsFile], views: Views, photos: Sequence[str]
) -> tuple[SparsePoints | None, list[str]]:
    """The points of the first file that can be read and fits the cameras.

    Args:
        files: in order of preference: a COLMAP model, which has tracks, before a .ply file.
        views: N views, world frame.
        photos: paths of the N photos, as in transforms.json.

    Returns:
        The points, world frame, or None if no file can be used; and a sentence for each file that was rejected.
    """
    remarks: list[str] = []
    for file in files:
        try:
            return file.load(views, photos), remarks
        except (ImportError, OSError, CaptureError) as error:
            remarks.append(f"The sparse points in {file.path} are left out: {error}")
    return None, remarks


def _centre_error(found: np.ndarray, views: Views) -> float:
    """Median distance of camera centres (N, 3) from those of the views, as a fraction of the cameras' extent.

    The extent is the largest distance of a view from the mean of all. Centres that are nan do not count; 0 if all are.
    """
    posed = np.isfinite(found).all(axis=1)
    if not posed.any():
        return 0.0
    centres = views.centres()
    extent = float(np.linalg.norm(centres - centres.mean(axis=0), axis=1).max())
    return float(np.median(np.linalg.norm(found[posed] - centres[posed], axis=1))) / max(extent, 1e-12)


def _fraction_in_image(views: Views, xyz: np.ndarray, visibility: np.ndarray | None) -> float:
    """Fraction of the (point, view) pairs whose point projects into the photo; of at most 2000 points.

    Args:
        views: N views, world frame.
        xyz: (P, 3) points, world frame.
        visibility: (P, N) bool, the pairs to look at; None takes all.
    """
    chosen = np.random.default_rng(0).permutation(len(xyz))[:2000]
    uv, _ = views.project(xyz[chosen])
    inside = views.inside(uv)
    if visibility is None:
        return float(inside.mean()) if inside.size else 0.0
    observed = visibility[chosen].T
    return float(inside[observed].mean()) if observed.any() else 1.0
