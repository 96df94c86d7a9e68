"""Fits one axis to a turntable's poses: from those of incremental mapping, all verified matches, and all photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from surface_sos_ns.process.one_axis import Observations, OneAxis, fit_one_axis, start_one_axis, triangulated
from surface_sos_ns.process.structure import MAX_ERROR_OF_FEW, MIN_ANGLE_OF_FEW, Structure, open_database

__all__ = ["best_angles", "feature_tracks", "settle_on_one_axis"]

ROUNDS = ((32.0, 16.0, 8.0, 4.0), (8.0, 4.0, 2.0), (2.0, 1.0), (1.0, 0.5, 0.25))
"""Widths, in pixels, of the fits between which points are triangulated again."""
ENOUGH = 0.6
"""Share of the observations of points in three photos or more that have to fit one axis, within COLMAP's own bound on
the error: of a can on a turntable 0.76 to 0.81 do, of something turned by hand few."""
FEWEST = 12
"""Observations that a photo needs to be placed."""
GRID = np.radians(np.arange(0.0, 360.0, 0.25))
"""Angles at which each photo is tried."""
GRID_WIDTH = 4.0
"""Pixels at which an observation counts half as much there."""
BETTER = 0.8
"""Cost of another angle, over that of the present one, from which on a photo is moved there."""


@dataclass(frozen=True)
class _Tracks:
    """Points seen in photos, by keypoints: M observations of P points."""

    photo: np.ndarray  # (M,) int
    keypoint: np.ndarray  # (M,) int, of that photo
    point: np.ndarray  # (M,) int
    count: int  # P


def feature_tracks(keypoints: Sequence[int], matches: Sequence[tuple[int, int, np.ndarray]]) -> _Tracks:
    """Joins matches of pairs of photos to points that are seen in many.

    Where joining brings two keypoints of a photo together something is wrong with one of the matches; each of them is a
    point of its own then.

    Args:
        keypoints: how many each of N photos has.
        matches: two photos, and (K, 2) int keypoints of the one and the other that match.
    """
    offsets = np.concatenate([[0], np.cumsum(keypoints)])
    first = np.concatenate([offsets[a] + pairs[:, 0].astype(np.int64) for a, _, pairs in matches])
    second = np.concatenate([offsets[b] + pairs[:, 1].astype(np.int64) for _, b, pairs in matches])
    total = int(offsets[-1])
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(total, total))
    label = connected_components(graph, directed=False)[1].astype(np.int64)
    photo = np.searchsorted(offsets, np.arange(total), side="right") - 1
    used = np.unique(np.concatenate([first, second]))
    places, often = np.unique(label[used] * len(keypoints) + photo[used], return_counts=True)
    wrong = np.unique(places[often > 1] // len(keypoints))
    right = used[~np.isin(label[used], wrong)]
    joined, point = np.unique(label[right], return_inverse=True)
    single = np.isin(label[first], wrong)
    pairs = len(joined) + np.arange(np.count_nonzero(single))
    node = np.concatenate([right, first[single], second[single]])
    return _Tracks(
        photo[node], node - offsets[photo[node]], np.concatenate([point, pairs, pairs]), len(joined) + len(pairs)
    )


def best_angles(model: OneAxis, seen: Observations) -> np.ndarray:
    """(N,) angles at which photos fit the points of all others best; the present one where none is better by `BETTER`.

    A repeating pattern, or a start that was far off, holds a photo at a local minimum that no small step leaves.
    """
    angles = model.angles.copy()
    often = np.bincount(seen.point)
    for photo in range(len(angles)):
        mine = (seen.photo == photo) & (often[seen.point] >= 3)
        points, own = np.unique(seen.point[mine], return_inverse=True)
        rest = np.isin(seen.point, points) & (seen.photo != photo)
        others = seen.kept(rest)
        others = replace(others, point=np.searchsorted(points, others.point))
        if len(points) == 0:
            continue
        places = triangulated(model, others, len(points))
        sure = np.ones(len(points), bool)
        sure[others.point[~(_lengths(model, others, places) < GRID_WIDTH)]] = False
        if np.count_nonzero(sure[own]) < FEWEST:
            continue
        shown, at = places[own[sure[own]]], seen.places[mine][sure[own]]
        tried = replace(model, angles=np.concatenate([[model.angles[photo]], GRID]))
        count, points_shown = len(tried.angles), len(shown)
        everywhere = Observations(
            np.repeat(np.arange(count), points_shown),
            np.tile(np.arange(points_shown), count),
            np.tile(at, (count, 1)),
            seen.focal,
        )
        error = _lengths(tried, everywhere, shown).reshape(count, points_shown)
        cost = np.log1p(np.minimum(error, 1e6) ** 2 / GRID_WIDTH**2).sum(axis=1)
        best = int(np.argmin(cost))
        if cost[best] < BETTER * cost[0]:
            angles[photo] = tried.angles[best]
    return angles


def settle_on_one_axis(
    structure: Structure, database: Path, images: Path, names: Sequence[str], say: Callable[[str], None] = print
) -> Structure:
    """Poses with one axis in all photos, if a share `ENOUGH` of the observations fits them; else those there are.

    Args:
        structure: what incremental mapping found; one lens.
        database: with the features and verified matches.
        images: folder of the photos, for the points' colours.
        names: of the photos, in the order they were taken.
        say: told in a line what was decided.
    """
    cameras = list(structure.model.cameras.values())
    if len(cameras) != 1:
        return structure
    camera = cameras[0]
    placed = {image.name: image for image in structure.model.images.values() if image.has_pose}
    order = [name for name in names if name in placed]
    try:
        model = start_one_axis(np.stack([np.asarray(placed[name].cam_from_world().matrix()) for name in order]))
    except ValueError:  # too few, or no turn
        return structure
    ids, keypoints, matches = _verified(database, names)
    if not matches:
        return structure
    tracks = feature_tracks([len(one) for one in keypoints], matches)
    shown = np.array(
        [keypoints[photo][keypoint] for photo, keypoint in zip(tracks.photo, tracks.keypoint, strict=True)]
    )
    seen = Observations(tracks.photo, tracks.point, camera.cam_from_img(shown), float(camera.mean_focal_length()))
    known = np.array([name in placed for name in names])
    angles = np.interp(np.arange(len(names)), np.flatnonzero(known), np.unwrap(model.angles))
    model, points, known = _settled(replace(model, angles=angles), seen, known, tracks.count)
    error = _lengths(model, seen, points)
    telling = (np.bincount(seen.point, minlength=tracks.count) >= 3)[seen.point] & known[seen.photo]
    share = float((error[telling] < MAX_ERROR_OF_FEW).mean()) if telling.any() else 0.0
    if share < ENOUGH:
        say(
            f"The object does not turn about one axis before a camera that stands: {share:.0%} of the features fit "
            f"that, expected {ENOUGH:.0%} or more. Each photo has a pose of its own."
        )
        return structure
    turn = np.ptp(np.degrees(np.unwrap(model.angles[known])))
    say(
        f"The object turns about one axis, by {turn:.0f} degrees in all: {share:.0%} of the features fit that. All "
        "poses have this axis."
    )
    keep = (error < MAX_ERROR_OF_FEW) & known[seen.photo]
    result = _reconstruction(camera, model, names, ids, keypoints, known, tracks, keep, points)
    result.extract_colors_for_all_images(str(images))
    found = [name for name, is_known in zip(names, known, strict=True) if is_known]
    return Structure(result, sorted(found), sorted(set(names) - set(found)))


def _settled(
    model: OneAxis, seen: Observations, known: np.ndarray, count: int
) -> tuple[OneAxis, np.ndarray, np.ndarray]:
    """The turn fitted to all observations, points (P, 3), nan where they have no place, and which photos fit (N,).

    Args:
        model: to start from, with an angle for each photo.
        seen: observations of P points in N photos.
        known: (N,) bool, photos whose angle is about right already.
        count: P.
    """
    points = np.full((count, 3), np.nan)
    for number, widths in enumerate(ROUNDS):
        trusted = seen.kept(known[seen.photo])
        places = triangulated(model, trusted, count)
        possible = ~np.isnan(places[:, 0])
        possible[trusted.point[~np.isfinite(_lengths(model, trusted, places))]] = False
        used, chosen = _of_points(trusted, possible)
        points = np.full((count, 3), np.nan)
        model, points[chosen] = fit_one_axis(model, used, places[chosen], widths)
        last = number == len(ROUNDS) - 1
        if number < 2:
            model = replace(model, angles=best_angles(model, seen))
        fits = seen.photo[_lengths(model, seen, points) < (MAX_ERROR_OF_FEW if last else GRID_WIDTH)]
        enough = np.bincount(fits, minlength=len(known)) >= FEWEST
        known = enough if last else known | enough
    return model, points, known


def _verified(
    database: Path, names: Sequence[str]
) -> tuple[list[int], list[np.ndarray], list[tuple[int, int, np.ndarray]]]:
    """Ids of the photos, their keypoints (K, 2), and the matches of pairs that agree on a relative pose."""
    with open_database(database) as opened:
        by_name = {image.name: image.image_id for image in opened.read_all_images()}
        ids = [by_name[name] for name in names]
        keypoints = [np.asarray(opened.read_keypoints(index), np.float64)[:, :2] for index in ids]
        matches = []
        for second in range(len(ids)):
            for first in range(second):
                if opened.exists_two_view_geometry(ids[first], ids[second]):
                    pairs = np.asarray(opened.read_two_view_geometry(ids[first], ids[second]).inlier_matches)
                    if len(pairs) >= FEWEST:
                        matches.append((first, second, pairs))
    return ids, keypoints, matches


def _lengths(model: OneAxis, seen: Observations, points: np.ndarray) -> np.ndarray:
    """(M,) reprojection errors in pixels; infinite behind the camera and for points that are not known."""
    lengths = np.linalg.norm(model.errors(seen, points), axis=1)
    return np.where(np.isnan(lengths), np.inf, lengths)


def _of_points(seen: Observations, points: np.ndarray) -> tuple[Observations, np.ndarray]:
    """The observations of some points, (P,) bool, that two photos or more see, numbered anew; and which they are."""
    chosen = np.flatnonzero(points & (np.bincount(seen.point, minlength=len(points)) >= 2))
    used = seen.kept(np.isin(seen.point, chosen))
    return replace(used, point=np.searchsorted(chosen, used.point)), chosen


def _reconstruction(
    camera: Any,
    model: OneAxis,
    names: Sequence[str],
    ids: Sequence[int],
    keypoints: Sequence[np.ndarray],
    known: np.ndarray,
    tracks: _Tracks,
    keep: np.ndarray,
    points: np.ndarray,
) -> Any:
    """pycolmap's reconstruction of it, of the observations to keep (M,) bool."""
    from surface_sos_ns.utils.colmap import pycolmap

    result = pycolmap.Reconstruction()
    for index in camera.focal_length_idxs():
        camera.params[index] *= model.zoom
    result.add_camera_with_trivial_rig(camera)
    for photo in np.flatnonzero(known):
        image = pycolmap.Image(
            name=names[photo], keypoints=keypoints[photo], camera_id=camera.camera_id, image_id=ids[photo]
        )
        pose = model.poses()[photo]
        result.add_image_with_trivial_frame(
            image, pycolmap.Rigid3d(pycolmap.Rotation3d(np.ascontiguousarray(pose[:, :3])), pose[:, 3])
        )
    order = np.flatnonzero(keep)
    order = order[np.argsort(tracks.point[order], kind="stable")]
    taken: set[tuple[int, int]] = set()
    for group in np.split(order, np.flatnonzero(np.diff(tracks.point[order])) + 1):
        members = [(ids[tracks.photo[index]], int(tracks.keypoint[index])) for index in group]
        members = [member for member in members if member not in taken]
        if len(members) < 2:
            continue
        track = pycolmap.Track()
        for member in members:
            track.add_element(*member)
        taken.update(members)
        result.add_point3D(points[tracks.point[group[0]]], track)
    pycolmap.ObservationManager(result).filter_all_points3D(MAX_ERROR_OF_FEW, MIN_ANGLE_OF_FEW)
    result.update_point_3d_errors()
    return result
