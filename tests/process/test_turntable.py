"""Poses before an object that turns about one axis, against turns that are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from surface_sos_ns.process.one_axis import Observations, OneAxis, fit_one_axis, start_one_axis, triangulated
from surface_sos_ns.process.run import run_process
from surface_sos_ns.process.settings import ProcessSettings
from surface_sos_ns.process.turntable import best_angles, feature_tracks
from tests.helpers import textured_corner

COUNT, POINTS, FOCAL = 24, 400, 600.0
AXIS = np.array([0.05, -0.9, -0.43]) / np.linalg.norm([0.05, -0.9, -0.43])


def turntable() -> tuple[OneAxis, np.ndarray, Observations]:
    """A whole turn in unequal steps, points of a ball, and each seen while it is on the near side."""
    generator = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, COUNT, endpoint=False) + generator.uniform(-0.05, 0.05, COUNT)
    start = Rotation.from_rotvec([0.4, -0.2, 0.7]).as_matrix()
    truth = OneAxis(AXIS, angles, start, start @ [0.1, 0.2, -0.1], np.array([0.1, 0.05, 4.0]))
    outward = generator.normal(size=(POINTS, 3))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    poses = truth.poses()
    local = np.einsum("nij,pj->npi", poses[..., :3], outward) + poses[:, None, :, 3]
    facing = np.einsum("nij,pj,npi->np", poses[..., :3], outward, local) < -2.2
    photo, point = np.nonzero(facing)
    places = (local[..., :2] / local[..., 2:])[photo, point]
    seen = Observations(photo, point, places, FOCAL)
    assert np.bincount(point, minlength=POINTS).max() < COUNT / 2, "no point is seen all around"
    twice = np.flatnonzero(np.bincount(point, minlength=POINTS) >= 2)
    kept = np.isin(point, twice)
    return (
        truth,
        outward[twice],
        replace(seen, photo=photo[kept], point=np.searchsorted(twice, point[kept]), places=places[kept]),
    )


def noisy(seen: Observations, pixels: float, wrong: float) -> Observations:
    """Observations with noise, and a share of them anywhere."""
    generator = np.random.default_rng(1)
    places = seen.places + generator.normal(scale=pixels / seen.focal, size=seen.places.shape)
    which = generator.random(len(places)) < wrong
    places[which] += generator.uniform(-0.1, 0.1, (np.count_nonzero(which), 2))
    return replace(seen, places=places)


def drifting(poses: np.ndarray, degrees: float) -> np.ndarray:
    """Free poses, each turned by a few degrees more than the last and some noise."""
    generator = np.random.default_rng(2)
    result = poses.copy()
    for index, pose in enumerate(result):
        drift = np.radians(degrees) * (np.array([0.5, 0.2, 0.1]) * index / len(poses) + generator.normal(size=3) * 0.3)
        pose[:, :3] = Rotation.from_rotvec(drift).as_matrix() @ pose[:, :3]
    return result


def pose_error(found: OneAxis, truth: OneAxis) -> float:
    """Largest angle in degrees between rotations, with the object's frame turned to fit."""
    a, b = found.poses()[..., :3], truth.poses()[..., :3]
    left, _, right = np.linalg.svd(np.einsum("nji,njk->ik", a, b))
    frame = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    return float(np.degrees(Rotation.from_matrix(np.einsum("nij,jk,nlk->nil", a, frame, b)).magnitude().max()))


def test_start_is_exact_for_poses_of_a_turntable():
    truth, _, _ = turntable()
    found = start_one_axis(truth.poses())
    np.testing.assert_allclose(found.poses(), truth.poses(), atol=1e-9)
    assert abs(found.axis @ AXIS) == pytest.approx(1.0)


def test_nothing_that_turns_nothing_to_start_from():
    truth, _, _ = turntable()
    with pytest.raises(ValueError, match="three are the least"):
        start_one_axis(truth.poses()[:2])
    with pytest.raises(ValueError, match="do not turn"):
        start_one_axis(np.repeat(truth.poses()[:1], 5, axis=0))


def test_triangulation_and_errors_of_exact_observations():
    truth, points, seen = turntable()
    np.testing.assert_allclose(triangulated(truth, seen, len(points)), points, atol=1e-7)
    assert np.abs(truth.errors(seen, points)).max() < 1e-9
    shifted = replace(truth, place=truth.place + np.array([0.04, 0.0, 0.0]))
    forward = truth.poses()[seen.photo, 2]
    depth = (forward[:, :3] * points[seen.point]).sum(axis=1) + forward[:, 3]
    np.testing.assert_allclose(shifted.errors(seen, points)[:, 0], FOCAL * 0.04 / depth, atol=1e-9)
    behind = replace(truth, place=-truth.place)
    assert np.isinf(behind.errors(seen, points)).all()


@pytest.mark.parametrize("zoom", [1.0, 1.08])
def test_fit_takes_drift_and_tilt_out_of_free_poses(zoom):
    truth, points, seen = turntable()
    seen = noisy(replace(seen, places=seen.places * zoom), 0.3, 0.08)
    start = start_one_axis(drifting(truth.poses(), 6.0))
    assert pose_error(start, truth) > 1.5
    found, places = fit_one_axis(start, seen, triangulated(start, seen, len(points)), (8.0, 4.0, 2.0, 1.0))
    assert pose_error(found, truth) < 0.35
    assert found.zoom == pytest.approx(zoom, rel=0.02)
    error = np.linalg.norm(found.errors(seen, places), axis=1)
    assert np.median(error) < 0.5 and (error < 1.5).mean() > 0.85


def test_a_photo_at_a_wrong_angle_is_put_right_and_the_others_stay():
    truth, _, seen = turntable()
    seen = noisy(seen, 0.3, 0.05)
    angles = truth.angles.copy()
    angles[7] -= np.radians(14.0)
    found = best_angles(replace(truth, angles=angles), seen)
    assert np.degrees(abs(np.angle(np.exp(1j * (found - truth.angles)))))[7] < 0.3
    others = np.arange(COUNT) != 7
    np.testing.assert_array_equal(found[others], truth.angles[others])


def test_matches_are_joined_to_points_and_contradictions_stay_pairs():
    tracks = feature_tracks(
        [3, 3, 2],
        [
            (0, 1, np.array([[0, 1], [2, 2]])),
            (1, 2, np.array([[1, 0], [2, 1]])),
            (0, 2, np.array([[1, 1]])),  # 0:1 and 0:2 would be one point
        ],
    )
    found = {}
    for photo, keypoint, point in zip(tracks.photo, tracks.keypoint, tracks.point, strict=True):
        found.setdefault(int(point), set()).add((int(photo), int(keypoint)))
    assert tracks.count == 4 and sorted(map(sorted, found.values())) == [
        [(0, 0), (1, 1), (2, 0)],
        [(0, 1), (2, 1)],
        [(0, 2), (1, 2)],
        [(1, 2), (2, 1)],
    ]


@pytest.mark.seconds(8)
def test_photos_of_a_turntable_have_poses_about_one_axis(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    count = 10
    textured_corner.write_photos(tmp_path / "photos", count, turntable=tmp_path / "masks", level=True)
    run_process(ProcessSettings(tmp_path / "photos", tmp_path / "scene", masks=tmp_path / "masks", use="object"))
    assert "turns about one axis, by" in capfd.readouterr().out
    frames = json.loads((tmp_path / "scene" / "transforms.json").read_text())["frames"]
    rotations = np.array([frame["transform_matrix"] for frame in frames])[:, :3, :3] @ np.diag([1, -1, -1])
    truth = textured_corner.cameras(count, level=True)[0]
    order = [int(Path(frame["file_path"]).stem.rpartition("_")[2]) - 1 for frame in frames]
    steps = [np.einsum("nji,njk->nik", turns[:-1], turns[1:]) for turns in (rotations, truth[order])]
    wrong = Rotation.from_matrix(np.einsum("nji,njk->nik", *steps)).magnitude()
    assert np.degrees(wrong).max() < 0.2
    # The camera sees one axis in all photos.
    seen = np.einsum("nij,nkj->nik", rotations.transpose(0, 2, 1)[1:], rotations.transpose(0, 2, 1)[:-1])
    axes = Rotation.from_matrix(seen).as_rotvec()
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    assert np.abs(np.abs(axes @ axes[0]) - 1).max() < 1e-4
