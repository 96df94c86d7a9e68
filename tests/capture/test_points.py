"""Reading sparse points, and triangulating them from photos with known poses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.colmap_points import read_colmap_points
from surface_sos_ns.capture.ply import read_ply_points
from surface_sos_ns.capture.points_file import PointsFile, first_fitting_points
from surface_sos_ns.capture.triangulation import triangulate_points
from surface_sos_ns.capture.views import Views
from tests.helpers.ball_views import ring
from tests.helpers.colmap_model import colmap_model


def _write_ply(path: Path, xyz: np.ndarray, rgb: np.ndarray, encoding: str) -> None:
    header = f"ply\nformat {encoding} 1.0\ncomment made by a test\nelement vertex {len(xyz)}\n"
    header += "".join(f"property float {name}\n" for name in "xyz")
    header += "".join(f"property uint8 {name}\n" for name in ("red", "green", "blue")) + "end_header\n"
    with open(path, "wb") as stream:
        stream.write(header.encode())
        if encoding == "ascii":
            for position, colour in zip(xyz, rgb, strict=True):
                stream.write((" ".join(map(str, [*position, *colour])) + "\n").encode())
        else:
            order = "<" if "little" in encoding else ">"
            rows = np.zeros(len(xyz), [(n, order + "f4") for n in "xyz"] + [(n, "u1") for n in "rgb"])
            for i, name in enumerate("xyz"):
                rows[name] = xyz[:, i]
            for i, name in enumerate("rgb"):
                rows[name] = rgb[:, i]
            stream.write(rows.tobytes())


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply(tmp_path, encoding):
    generator = np.random.default_rng(0)
    xyz, rgb = generator.normal(size=(20, 3)), generator.integers(0, 256, (20, 3))
    xyz[4] = np.nan
    _write_ply(tmp_path / "points.ply", xyz, rgb, encoding)
    points = read_ply_points(tmp_path / "points.ply")
    kept = np.arange(20) != 4
    np.testing.assert_allclose(points.xyz, xyz[kept], atol=1e-6)
    np.testing.assert_array_equal(points.rgb, rgb[kept])
    assert points.visibility is None and not points.track_length.any()


def test_damaged_ply_is_named(tmp_path):
    path = tmp_path / "points.ply"
    _write_ply(path, np.zeros((5, 3)), np.zeros((5, 3)), "binary_little_endian")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CaptureError, match="points.ply ends after 3 of 5"):
        read_ply_points(path)
    path.write_text("no point cloud")
    with pytest.raises(CaptureError, match="not a PLY"):
        read_ply_points(path)
    header = (
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    path.write_text(header + "0 0 1\n0 1 0\n")
    with pytest.raises(CaptureError, match="points.ply ends after 2 of 3"):
        read_ply_points(path)
    for line, damaged in (("element vertex 3", "element vertex"), ("format ascii 1.0", "format"), ("float x", "float")):
        path.write_text(header.replace(line, damaged))
        with pytest.raises(CaptureError, match="points.ply: the line '.*' of its header is not complete"):
            read_ply_points(path)
    path.write_text(header.replace("vertex 3", "vertex many"))
    with pytest.raises(CaptureError, match="points.ply: the line 'element vertex many' of its header is not right"):
        read_ply_points(path)
    for damage in ("0 0 1\n0 x 0\n0 0 0\n", "0 0 1\n0 1\n0 0 0\n", "0 0 1\n\x00\x01\x02\n"):
        path.write_text(header + damage)
        with pytest.raises(CaptureError, match="points.ply: its points cannot be read"):
            read_ply_points(path)
    for number in ("-1", "1" + 17 * "0"):
        path.write_text(header.replace("vertex 3", f"vertex {number}").replace("ascii", "binary_little_endian"))
        with pytest.raises(CaptureError, match="points.ply ends after 0 of"):
            read_ply_points(path)


def testcolmap_model(tmp_path):
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=100, height=80, params=[90, 50, 40], camera_id=1)
    model.add_camera_with_trivial_rig(camera)
    for image_id in (1, 2, 3):
        image = pycolmap.Image(f"folder/{image_id}.jpg", np.full((2, 2), 10.0), camera_id=1, image_id=image_id)
        pose = pycolmap.Rigid3d(np.concatenate([np.eye(3), [[0], [0], [image_id]]], axis=1))
        model.add_image_with_trivial_frame(image, pose)
    track = pycolmap.Track()
    track.add_element(1, 0)
    track.add_element(3, 1)
    model.add_point3D(np.array([1.0, 2, 3]), track, np.array([9, 8, 7], np.uint8))
    model.write(str(tmp_path))
    points, centres = read_colmap_points(tmp_path, ["3.jpg", "2.jpg", "1.jpg"])
    np.testing.assert_allclose(points.xyz, [[1, 2, 3]])
    np.testing.assert_allclose(centres, [[0, 0, -3], [0, 0, -2], [0, 0, -1]])
    np.testing.assert_array_equal(points.rgb, [[9, 8, 7]])
    np.testing.assert_array_equal(points.visibility, [[True, False, True]])
    assert points.track_length.tolist() == [2]
    with pytest.raises(CaptureError, match="knows none of the photos"):
        read_colmap_points(tmp_path, ["a.jpg"])
    with pytest.raises(CaptureError, match="no readable COLMAP model"):
        read_colmap_points(tmp_path / "nowhere", ["a.jpg"])


@pytest.mark.parametrize("in_b", [(0, 1, 2), (1, 2, 3)], ids=["all names twice", "two names twice"])
def test_photos_of_one_name_in_two_folders_have_their_own_points(tmp_path, in_b):
    """Points are seen by the photos of one folder only."""
    photos = [f"images/a/{number}.jpg" for number in range(3)] + [f"images/b/{number}.jpg" for number in in_b]
    names = [photo.removeprefix("images/") for photo in photos]
    seen_by = [names[:3]] * 5 + [names[3:]] * 7
    colmap_model(tmp_path / "model", ring(6), names, np.random.default_rng(0).normal(size=(12, 3)), seen_by=seen_by)
    in_a = np.array([photo.startswith("images/a/") for photo in photos])
    for order in (np.arange(6), np.arange(6)[::-1]):
        points, _ = read_colmap_points(tmp_path / "model", [photos[index] for index in order])
        seen_from_a, seen_from_b = (points.visibility[:, in_a[order] == side] for side in (True, False))
        assert (len(points), seen_from_a.all(1).sum(), seen_from_b.all(1).sum()) == (12, 5, 7)
        assert not (seen_from_a.any(1) & seen_from_b.any(1)).any()


def test_the_first_points_that_fit_the_cameras_are_taken(tmp_path):
    """A COLMAP model, a model of another scene, one whose names are not clear, and a .ply file."""
    views = ring(6)
    photos = [f"images/{side}/{number}.jpg" for side in "ab" for number in range(3)]
    xyz = np.random.default_rng(0).uniform(-0.3, 0.3, (50, 3))
    names = [photo.removeprefix("images/") for photo in photos]
    good = colmap_model(tmp_path / "good", views, names, xyz)
    turned = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0]])

    def points_file(path: Path) -> PointsFile:
        return PointsFile(path, (turned, np.eye(4)[:3]), 1.0)

    ply = tmp_path / "points.ply"
    _write_ply(ply, xyz, np.zeros((50, 3)), "binary_little_endian")
    found, remarks = first_fitting_points([points_file(good), points_file(ply)], views, photos)
    np.testing.assert_allclose(found.xyz, xyz)  # the transform that fits is the second one
    assert found.visibility.all() and remarks == []
    assert points_file(good).is_colmap and not points_file(ply).is_colmap
    assert {path.name for path in points_file(good).contents} == {"images.bin", "points3D.bin"}

    ply_file = PointsFile(ply, (np.eye(4)[:3],), 1.0)
    other = colmap_model(tmp_path / "other", views, names, xyz, scale=1.5)
    unclear = colmap_model(tmp_path / "unclear", views, [f"{number}.jpg" for number in range(6)], xyz)
    empty = colmap_model(tmp_path / "empty", views, names, xyz[:0])
    damaged = tmp_path / "damaged.ply"
    _write_ply(damaged, xyz, np.zeros((50, 3)), "ascii")
    damaged.write_bytes(damaged.read_bytes()[:-200] + b"\xff\xfe")
    for folder, reason in (
        (damaged, "it is damaged."),
        (other, "they do not fit the cameras of the capture."),
        (unclear, "it is not clear which image is which photo: 0.jpg could be images/a/0.jpg, images/b/0.jpg."),
        (empty, "there are none."),
        (tmp_path / "nowhere", "expected cameras, images and points3D."),
    ):
        found, remarks = first_fitting_points([points_file(folder), ply_file], views, photos)
        np.testing.assert_allclose(found.xyz, xyz, atol=1e-6)
        assert found.visibility is None
        assert len(remarks) == 1 and remarks[0].endswith(reason)
        assert remarks[0].startswith(f"The sparse points in {folder} are left out: ")
    above = np.c_[np.eye(3), [0, 0, 1000]]
    nothing, remarks = first_fitting_points([PointsFile(ply, (above,), 1.0)], views, photos)
    assert nothing is None and "do not fit" in remarks[0]
    assert first_fitting_points([], views, photos) == (None, [])


def _photos_of_a_textured_plane(views: Views) -> list[np.ndarray]:
    """Photos of random blotches painted on the plane z = 0, by intersecting each pixel's ray with it."""
    noise = np.random.default_rng(0).uniform(0, 255, (256, 256, 3)).astype(np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX)
    photos = []
    for index in range(len(views)):
        height, width = int(views.height[index]), int(views.width[index])
        rows, columns = np.mgrid[:height, :width]
        rays = views.rays(index, np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=-1))
        centre = views.centres()[index]
        hit = centre[:2] - rays[:, :2] * (centre[2] / rays[:, 2:])
        place = ((hit + 2) * 64).astype(np.float32).reshape(height, width, 2)
        photos.append(cv2.remap(texture, place[..., 0], place[..., 1], cv2.INTER_LINEAR).astype(np.uint8))
    return photos


@pytest.mark.seconds(2.5)
def test_triangulated_points_lie_on_the_plane(tmp_path):
    views = ring(36, distance=3.0, size=(200, 150), focal=220.0, distortion=np.array([0.1, -0.02, 0, 0, 0.001, 0.002]))
    views = views.subset(np.arange(2, 36, 3))  # the steep ring, which sees the plane from above
    photos = _photos_of_a_textured_plane(views)
    points, remarks = triangulate_points(photos, views, tmp_path / "points.npz")
    assert points is not None and len(points) > 100 and remarks == []
    pixel = 3.0 / 220
    assert np.median(np.abs(points.xyz[:, 2])) < 0.7 * pixel
    assert np.percentile(np.abs(points.xyz[:, 2]), 95) < 4 * pixel
    assert points.track_length.min() >= 3 and points.visibility.shape == (len(points), len(views))
    again, _ = triangulate_points(photos, views)
    np.testing.assert_allclose(again.xyz, points.xyz)
    cached, remarks = triangulate_points(photos, views, tmp_path / "points.npz")
    np.testing.assert_array_equal(cached.xyz, points.xyz)
    assert remarks == []
    (tmp_path / "points.npz").write_bytes(b"half a file")
    mended, (remark,) = triangulate_points(photos, views, tmp_path / "points.npz")
    np.testing.assert_array_equal(mended.xyz, points.xyz)
    assert remark.startswith(f"The cached sparse points {tmp_path / 'points.npz'} cannot be read (")


def test_nothing_to_triangulate_is_said_and_survived():
    """As a sentence for whoever asked, and not as a warning of Python's."""
    grey = [np.full((120, 160, 3), 90, np.uint8)] * 6
    said: list[str] = []
    points, (remark,) = triangulate_points(grey, ring(6), progress=said.append)
    assert points is None and remark.startswith("No sparse points: only 0 could be triangulated (")
    assert said[0] == "triangulating sparse points: features of 6 photos"
    points, remarks = triangulate_points(grey[:2], ring(6).subset([0, 1]))
    assert points is None and remarks == ["No sparse points: 2 photos are too few to triangulate from."]
