"""Triangulation of sparse points from photos with known poses: SIFT, epipolar matching, COLMAP's triangulator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.capture.colmap_points import points_of_model
from surface_sos_ns.capture.keypoints import (
    Keypoints,
    camera_from_world,
    essential_matrix,
    find_keypoints,
    match_descriptors,
    pixel_size,
)
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.files import write_arrays

__all__ = ["triangulate_points"]

NEIGHBOURS = 10
"""Photos that each photo is matched with."""
MIN_POINTS = 30
"""Fewer points than this are discarded."""


def triangulate_points(
    images: Sequence[np.ndarray],
    views: Views,
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[SparsePoints | None, list[str]]:
    """Triangulates keypoints of photos with known poses.

    SIFT keypoints of neighbouring photos are matched along their epipolar lines. pycolmap joins the matches to tracks,
    triangulates them, and filters the points by reprojection error (2 pixels), triangulation angle (2 degrees) and
    track length (3). The poses are not refined.

    Args:
        images: N photos (H, W, 3) uint8 RGB.
        views: N views, world frame.
        cache: an ``.npz`` file that keeps the points; they are read from it if cameras and photos are still the same.
        progress: called with one line per stage.

    Returns:
        The points, world frame, or None if pycolmap is missing or fewer than 30 points were found; and a sentence for
        each thing that went wrong, including why there are no points.
    """
    remarks: list[str] = []
    fingerprint = _fingerprint(images, views)
    if cache is not None:
        stored, remarks = _load_cache(Path(cache), fingerprint)
        if stored is not None:
            return stored, remarks
    try:
        from surface_sos_ns.utils.colmap import pycolmap
    except ImportError as error:
        return None, [*remarks, f"No sparse points: pycolmap cannot be imported ({error}); `pip install pycolmap`."]
    if len(views) < 3:
        return None, [*remarks, f"No sparse points: {len(views)} photos are too few to triangulate from."]
    if progress:
        progress(f"triangulating sparse points: features of {len(images)} photos")
    keypoints = [find_keypoints(image, views, index) for index, image in enumerate(images)]
    pairs = _neighbour_pairs(views)
    if progress:
        progress(f"triangulating sparse points: matching {len(pairs)} pairs of photos")
    matches = {pair: _match(keypoints[pair[0]], keypoints[pair[1]], views, *pair) for pair in pairs}
    try:
        points = _triangulate(pycolmap, keypoints, matches, views)
    except Exception as error:  # a run can do without points, so a failure of pycolmap must not end it
        return None, [*remarks, f"No sparse points: pycolmap could not triangulate ({error})."]
    if len(points) < MIN_POINTS:
        few = (
            f"No sparse points: only {len(points)} could be triangulated (blurred or textureless photos, or poses that "
            "do not fit the photos)."
        )
        return None, [*remarks, few]
    if progress:
        progress(f"triangulated {len(points)} sparse points")
    if cache is not None:
        _save_cache(Path(cache), fingerprint, points)
    return points, remarks


def _neighbour_pairs(views: Views) -> list[tuple[int, int]]:
    """Pairs of views with near camera centres and similar optical axes: the best `NEIGHBOURS` of each view.

    The cost of a pair is the distance of its centres over the median distance, plus twice the angle between its axes in
    radians. Pairs with more than 60 degrees between their axes are left out.
    """
    centres, axes = views.centres(), views.axes()
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    distance = distance / max(float(np.median(distance[distance > 0])), 1e-12) if (distance > 0).any() else distance
    angle = np.arccos(np.clip(axes @ axes.T, -1, 1))
    cost = distance + 2 * angle
    cost[(angle > np.deg2rad(60)) | np.eye(len(views), dtype=bool)] = np.inf
    pairs = set()
    for first in range(len(views)):
        for second in np.argsort(cost[first], kind="stable")[:NEIGHBOURS]:
            if np.isfinite(cost[first, second]):
                pairs.add((min(first, int(second)), max(first, int(second))))
    return sorted(pairs)


def _match(first: Keypoints, second: Keypoints, views: Views, a: int, b: int) -> np.ndarray:
    """(M, 2) uint32 indices of matching keypoints of the views a and b.

    Matches are looked for among the pairs with a Sampson distance of at most 2 pixels.
    """
    if not len(first.normalised) or not len(second.normalised):
        return np.zeros((0, 2), np.uint32)
    essential = essential_matrix(views, a, b)
    left = np.concatenate([first.normalised, np.ones((len(first.normalised), 1))], axis=1).astype(np.float32)
    right = np.concatenate([second.normalised, np.ones((len(second.normalised), 1))], axis=1).astype(np.float32)
    lines_b, lines_a = left @ essential.T.astype(np.float32), right @ essential.astype(np.float32)
    error = lines_b @ right.T
    scale = (lines_b[:, :2] ** 2).sum(1)[:, None] + (lines_a[:, :2] ** 2).sum(1)[None]
    pixel = pixel_size(views, a)
    near = error**2 <= (2.0 * pixel) ** 2 * scale  # Sampson distance
    similarity = first.descriptors @ second.descriptors.T
    similarity[~near] = -1.0
    rows, columns, cosine = match_descriptors(similarity, 0.85)
    return np.stack([rows, columns], axis=-1)[cosine > 0.75].astype(np.uint32)


def _triangulate(
    pycolmap: Any, keypoints: list[Keypoints], matches: dict[tuple[int, int], np.ndarray], views: Views
) -> SparsePoints:
    """Tracks and points by pycolmap, in memory. Keypoints are undistorted, so all cameras are pinholes."""
    model = pycolmap.Reconstruction()
    graph = pycolmap.CorrespondenceGraph()
    for index, found in enumerate(keypoints):
        focal = 1.0 / pixel_size(views, index)
        width, height = (int(2 * focal),) * 2
        camera = pycolmap.Camera(
            model="SIMPLE_PINHOLE",
            width=width,
            height=height,
            params=[focal, width / 2, height / 2],
            camera_id=index + 1,
        )
        model.add_camera_with_trivial_rig(camera)
        pixels = found.normalised * focal + [width / 2, height / 2]
        image = pycolmap.Image(name=f"{index:06d}", keypoints=pixels, camera_id=index + 1, image_id=index + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(camera_from_world(views, index)))
        graph.add_image(index + 1, len(pixels))
    for (first, second), pairs in matches.items():
        if len(pairs):
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED.value
            geometry.inlier_matches = pairs
            graph.add_two_view_geometry(first + 1, second + 1, geometry)
    graph.finalize()
    manager = pycolmap.ObservationManager(model, graph)
    triangulator = pycolmap.IncrementalTriangulator(graph, model, manager)
    options = pycolmap.IncrementalTriangulatorOptions()
    options.random_seed = 0
    options.complete_max_reproj_error = options.merge_max_reproj_error = 2.0
    for index in range(len(keypoints)):
        triangulator.triangulate_image(options, index + 1)
    triangulator.complete_all_tracks(options)
    triangulator.merge_all_tracks(options)
    manager.filter_all_points3D(2.0, 2.0)
    manager.filter_points3D_with_short_tracks(3)
    for point_id in list(model.points3D.keys()):
        point = model.points3D[point_id]
        colours = [keypoints[e.image_id - 1].rgb[e.point2D_idx] for e in point.track.elements]
        point.color = np.mean(colours, axis=0).round().astype(np.uint8)
    return points_of_model(model, {index + 1: index for index in range(len(keypoints))}, len(keypoints))


def _fingerprint(images: Sequence[np.ndarray], views: Views) -> str:
    """Digest of poses, intrinsics and every 16th pixel of the photos."""
    digest = hashlib.sha256(b"points-1")
    for array in (views.camera_to_world, views.fx, views.fy, views.cx, views.cy, views.distortion, views.fisheye):
        digest.update(np.ascontiguousarray(array).tobytes())
    for image in images:
        digest.update(str(image.shape).encode())
        digest.update(np.ascontiguousarray(image[::16, ::16]).tobytes())
    return digest.hexdigest()


def _load_cache(path: Path, fingerprint: str) -> tuple[SparsePoints | None, list[str]]:
    """The cached points if they are of the same inputs, and a sentence if the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != fingerprint:
                return None, []
            return SparsePoints(stored["xyz"], stored["rgb"], stored["track_length"], stored["visibility"]), []
    except FileNotFoundError:
        return None, []
    except Exception as error:  # numpy and zipfile raise many types; the cache is written again
        return None, [f"The cached sparse points {path} cannot be read ({error}); they were triangulated again."]


def _save_cache(path: Path, fingerprint: str, points: SparsePoints) -> None:
    write_arrays(
        path,
        fingerprint=np.array(fingerprint),
        xyz=points.xyz,
        rgb=points.rgb,
        track_length=points.track_length,
        visibility=points.visibility if points.visibility is not None else np.zeros((len(points), 0), bool),
    )
