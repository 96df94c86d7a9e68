"""Finding the object's sphere in synthetic scenes whose object is known."""

from __future__ import annotations

import numpy as np
import pytest

from surface_sos_ns.capture.bounds import closest_point_to_axes, find_object_sphere
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from tests.helpers.ball_views import CENTRE, RADIUS, corrupt, ring, sphere_masks
from tests.helpers.poses import look_at


def _points(xyz: np.ndarray) -> SparsePoints:
    return SparsePoints(xyz, np.full((len(xyz), 3), 128, np.uint8), np.full(len(xyz), 3))


def _ball(generator: np.random.Generator, count: int, centre, radius: float) -> np.ndarray:
    direction = generator.normal(size=(count, 3))
    return np.asarray(centre) + radius * direction / np.linalg.norm(direction, axis=1, keepdims=True)


def _covers(sphere: ObjectSphere, centre, radius: float, loose: float = 1.6) -> None:
    away = float(np.linalg.norm(sphere.centre - centre))
    assert away + radius <= sphere.radius * 1.02, "the object sticks out"
    assert sphere.radius <= loose * radius, "the sphere is far too large"


@pytest.mark.seconds(1.5)
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_sphere_from_masks(share):
    views = ring(30, CENTRE)
    _covers(find_object_sphere(views, corrupt(sphere_masks(views, CENTRE, RADIUS), share)), CENTRE, RADIUS)


@pytest.mark.seconds(1.5)
def test_object_off_the_axes_and_false_blobs():
    """The cameras turn around another place, and a tenth of each picture is covered by a blob somewhere."""
    views = ring(30, CENTRE)
    centre = CENTRE + np.array([0.7, 0.5, -0.2])
    masks = sphere_masks(views, centre, 0.35)
    generator = np.random.default_rng(0)
    for mask in masks:
        row, column = generator.integers(0, 100), generator.integers(0, 140)
        mask[row : row + 18, column : column + 18] = True
    masks[3] = None
    masks[7] = np.zeros_like(masks[0])
    _covers(find_object_sphere(views, masks), centre, 0.35, loose=2.0)


@pytest.mark.seconds(1.5)
def test_scale_does_not_matter():
    small = find_object_sphere(ring(20, CENTRE), sphere_masks(ring(20, CENTRE), CENTRE, RADIUS))
    views = ring(20, CENTRE * 100, distance=400.0)
    large = find_object_sphere(views, sphere_masks(views, CENTRE * 100, RADIUS * 100))
    np.testing.assert_allclose(large.centre, small.centre * 100, rtol=0.02, atol=2)
    assert large.radius == pytest.approx(small.radius * 100, rel=0.03)


def _forward_facing(count: int = 20) -> Views:
    """Parallel cameras that look along -y, shifted a little against each other."""
    generator = np.random.default_rng(0)
    offsets = generator.uniform(-0.6, 0.6, (count, 3)) * [1, 0.1, 1]
    poses = np.array([look_at(offset, offset - np.array([0.0, 1.0, 0.0])) for offset in offsets])[:, :3]
    one = np.ones(count)
    return Views(poses, 170 * one, 170 * one, 80 * one, 60 * one, 160 * one, 120 * one)


@pytest.mark.seconds(1.5)
def test_forward_facing_with_masks_and_points_is_not_stretched_in_depth():
    views, centre = _forward_facing(), np.array([0.2, -4.0, 0.1])
    generator = np.random.default_rng(1)
    wall = generator.uniform([-5, -8.1, -4], [5, -7.9, 4], (500, 3))
    points = _points(np.concatenate([_ball(generator, 300, centre, 0.6), wall]))
    sphere = find_object_sphere(views, sphere_masks(views, centre, 0.6), points)
    _covers(sphere, centre, 0.6, loose=2.2)


def test_forward_facing_without_masks_takes_the_near_cluster():
    views, centre = _forward_facing(), np.array([0.2, -4.0, 0.1])
    generator = np.random.default_rng(1)
    wall = generator.uniform([-5, -9.1, -4], [5, -8.9, 4], (500, 3))
    ball = _ball(generator, 300, centre, 0.6)
    sphere = find_object_sphere(views, None, _points(np.concatenate([ball, wall])))
    # A start for the object prior, which refines it: most of the object, and nothing of the wall 5 units behind.
    assert (np.linalg.norm(ball - sphere.centre, axis=1) < sphere.radius).mean() > 0.85
    assert np.linalg.norm(sphere.centre - centre) < 0.6
    assert 0.4 < sphere.radius < 1.2


def test_orbit_without_masks_takes_the_cluster_at_the_axes():
    views = ring(24, CENTRE)
    generator = np.random.default_rng(2)
    clutter = generator.uniform(-4, 4, (300, 3))
    sphere = find_object_sphere(views, None, _points(np.concatenate([_ball(generator, 400, CENTRE, 0.5), clutter])))
    assert np.linalg.norm(sphere.centre - CENTRE) < 0.25
    assert 0.4 < sphere.radius < 1.5


def test_named_point_wins():
    views = ring(24, CENTRE)
    masks = [
        a | b
        for a, b in zip(
            sphere_masks(views, CENTRE, 0.3), sphere_masks(views, CENTRE + np.array([0, 0.9, 0]), 0.3), strict=True
        )
    ]
    sphere = find_object_sphere(views, masks, object_point=CENTRE + np.array([0, 0.9, 0]))
    assert np.linalg.norm(sphere.centre - (CENTRE + np.array([0, 0.9, 0]))) < 0.3


def test_closest_point_ignores_a_stray_view():
    views = ring(20, CENTRE)
    poses = views.camera_to_world.copy()
    poses[0] = look_at(np.array([9.0, 9.0, 9.0]), np.array([9.0, 0.0, 0.0]))[:3]
    stray = Views(poses, views.fx, views.fy, views.cx, views.cy, views.width, views.height)
    point, spread = closest_point_to_axes(stray)
    assert np.linalg.norm(point - CENTRE) < 0.05
    assert spread > 0.3


def test_cameras_that_look_away_from_each_other():
    ones = np.ones(12)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    centres = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=-1)
    poses = np.array([look_at(centre, 2 * centre) for centre in centres])[:, :3]
    views = Views(poses, 200 * ones, 200 * ones, 80 * ones, 60 * ones, 160 * ones, 120 * ones)
    with pytest.raises(ValueError, match="do not look at anything in common"):
        find_object_sphere(views)
    masks = [np.zeros((120, 160), bool) for _ in range(12)]
    for mask in masks:
        mask[40:80, 60:100] = True
    with pytest.raises(ValueError, match="common place"):
        find_object_sphere(views, masks)


def test_masks_that_agree_on_nothing_and_too_few_views():
    views = ring(20, CENTRE)
    generator = np.random.default_rng(3)
    masks = []
    for _ in range(20):
        mask = np.zeros((120, 160), bool)
        row, column = generator.integers(0, 112), generator.integers(0, 152)
        mask[row : row + 8, column : column + 8] = True
        masks.append(mask)
    with pytest.raises(ValueError, match="do not agree"):
        find_object_sphere(views, masks)
    with pytest.raises(ValueError, match="at least two"):
        find_object_sphere(views.subset([0]))


@pytest.mark.seconds(3)
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_the_sphere_of_several_objects_holds_all_of_them(share: float) -> None:
    """A large ball, and small ones beside and above it, that touch nothing; some masks are wrong."""
    balls = [((0.0, 0.0, 0.0), 0.5), ((0.9, 0.2, 0.0), 0.12), ((-0.3, -0.8, 0.3), 0.15)]
    views = ring(24)
    together = np.any([sphere_masks(views, centre, radius) for centre, radius in balls], axis=0)
    masks = corrupt(list(together), share)
    found = find_object_sphere(views, masks, several=True)
    for centre, radius in balls:
        assert np.linalg.norm(np.array(centre) - found.centre) + radius <= 1.02 * found.radius
    assert found.radius < 1.7  # the two small ones alone need 0.93
    one = find_object_sphere(views, masks)
    assert np.linalg.norm(np.array(balls[1][0]) - one.centre) > one.radius
