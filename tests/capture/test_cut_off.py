"""Objects larger than the picture: their sphere and their hull, in scenes that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surface_sos_ns.capture.bounds import find_object_sphere
from surface_sos_ns.capture.cut_off import cut_off_masks, cut_off_remark, mostly_whole
from surface_sos_ns.capture.hull import voxel_centres
from surface_sos_ns.capture.hull_projection import project_hull
from surface_sos_ns.capture.hull_voting import vote_hull
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from tests.helpers.ball_views import iou, ring
from tests.helpers.capsules import Capsule, cropped_above, masks_of

TOWER = Capsule((0.0, 0.0, 0.6), (0.0, 0.0, -2.0), 0.3)
BODY, LEG = Capsule((0.0, 0.0, 0.3), (0.0, 0.0, 0.0), 0.5), Capsule((0.15, 0.1, -0.5), (0.2, 0.1, -1.1), 0.12)


def joined(first: Views, second: Views) -> Views:
    """The views of both."""
    names = ("camera_to_world", "fx", "fy", "cx", "cy", "width", "height", "distortion", "fisheye")
    return Views(**{name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in names})


def hull_cells(probability: np.ndarray, sphere: ObjectSphere) -> np.ndarray:
    """(P, 3) centres of the hull's cells, world frame."""
    return voxel_centres(len(probability))[np.argwhere(probability >= 0.5)] * sphere.radius + sphere.centre


def probability_at(probability: np.ndarray, sphere: ObjectSphere, points) -> np.ndarray:
    """(P,) of the cells that hold points."""
    place = (np.asarray(points) - sphere.centre) / sphere.radius
    return probability[tuple(np.floor((place + 1) / 2 * len(probability)).astype(int).T)]


def test_masks_at_the_border_but_not_specks_there():
    inside, touching, speck = (np.zeros((60, 80), bool) for _ in range(3))
    for mask in (inside, touching, speck):
        mask[20:40, 30:50] = True
    touching[20:, 30:50] = True
    speck[:3, :5] = True
    assert cut_off_masks([inside, touching, speck, None]).tolist() == [False, True, False, False]
    assert mostly_whole([inside] * 4 + [touching]) and not mostly_whole([inside] * 3 + [touching])
    assert mostly_whole([inside, inside, None, np.zeros_like(inside)])


def test_remark_names_the_photos_and_what_follows():
    inside = np.zeros((60, 80))
    inside[20:40, 30:50] = 1.0
    touching = np.ones((60, 80))
    assert cut_off_remark([inside, None], ["a.jpg", "b.jpg"]) is None
    few = cut_off_remark([inside] * 9 + [touching], [f"{i}.jpg" for i in range(10)])
    assert few == "1 of 10 photos cut the object off at their border (9.jpg); most of the others show all of it"
    many = cut_off_remark([touching] * 5, [f"{i}.jpg" for i in range(5)])
    assert many is not None and many.startswith("5 of 5 photos cut the object off")
    assert "(0.jpg, 1.jpg, 2.jpg and 2 more)" in many and "from the photos that show it" in many


@pytest.mark.seconds(8)
def test_a_tower_whose_foot_three_of_27_photos_show():
    lower = Capsule((0.0, 0.0, -0.7), TOWER.end, TOWER.radius)
    close = cropped_above(ring(24, (0.0, 0.0, 0.2)), lower, whole=())
    wide = ring(4, (0.0, 0.0, -0.7), distance=7.0)
    views, held_out = joined(close, wide.subset([0, 1, 2])), wide.subset([3])
    masks = masks_of([TOWER], views)
    assert cut_off_masks(masks).tolist() == [True] * 24 + [False] * 3
    sphere = find_object_sphere(views, masks)
    for end in (TOWER.start, TOWER.end):
        assert np.linalg.norm(np.array(end) - sphere.centre) + TOWER.radius <= 1.02 * sphere.radius
    assert sphere.radius < 1.7 * 1.6  # half of the tower's length is 1.6
    hull = vote_hull(views, masks, sphere, resolution=64)
    axis = np.linspace(TOWER.start, TOWER.end, 20)
    assert (probability_at(hull.probability, sphere, axis) > 0.5).all()
    seen = project_hull(hull, sphere, held_out)[0] >= 0.5
    assert iou(seen, masks_of([TOWER], held_out)[0]) > 0.85


@pytest.mark.seconds(8)
@pytest.mark.parametrize("wrong", [False, True])
def test_a_leg_that_three_of_24_photos_show_and_nothing_else(wrong):
    views = ring(24)
    views = cropped_above(views, LEG, whole=(0, 8, 16))  # on three sides
    masks = masks_of([BODY, LEG], views)
    if wrong:  # two photos that show nothing of the leg take a neighbour along, each another one
        masks[3][:20, :20] = True
        masks[10][:20, -20:] = True
    sphere = find_object_sphere(views, masks)
    hull = vote_hull(views, masks, sphere, resolution=64)
    assert (probability_at(hull.probability, sphere, np.linspace(LEG.start, LEG.end, 10)) > 0.5).all()
    cells = hull_cells(hull.probability, sphere)
    away = np.minimum(BODY.distance(cells), LEG.distance(cells))
    assert away.max() < 0.45, "three silhouettes leave corners, but no cones"
    volume = len(cells) * (2 * sphere.radius / 64) ** 3
    true = np.pi * (0.5**2 * 0.3 + 4 / 3 * 0.5**3 + 0.12**2 * 0.6)
    assert volume < 1.6 * true


@pytest.mark.seconds(5)
def test_cameras_on_one_side_that_the_object_fills_the_pictures_of_leave_no_cone():
    """Three more photos, from nearly one place, in which the body fills the picture: nothing is behind or before it."""
    views = ring(24)
    near = ring(24, distance=1.6, focal=500.0).subset([3, 3, 3])
    shifts = np.array([[0.0, 0.0, 0.0], [0.05, 0.0, 0.02], [-0.05, 0.03, 0.0]])
    poses = near.camera_to_world.copy()
    poses[:, :, 3] += shifts
    cropped = cropped_above(views, LEG, whole=(0, 8, 16))
    views = joined(cropped, replace(near, camera_to_world=poses))
    masks = masks_of([BODY, LEG], views)
    assert all(mask.all() for mask in masks[-3:])
    sphere = find_object_sphere(views, masks)
    cells = hull_cells(vote_hull(views, masks, sphere, resolution=64).probability, sphere)
    assert np.minimum(BODY.distance(cells), LEG.distance(cells)).max() < 0.45


@pytest.mark.seconds(5)
def test_the_sphere_holds_a_thin_part_that_many_masks_miss():
    """Each photo ends below the middle of the body, and four in ten masks lack the leg."""
    whole = ring(40)
    top = 45.0
    views = replace(whole, cy=whole.cy - top, height=whole.height - int(top))
    with_leg, without = masks_of([BODY, LEG], views), masks_of([BODY], views)
    masks = [without[i] if i % 5 in (0, 2) else with_leg[i] for i in range(len(views))]
    assert cut_off_masks(masks).all()
    sphere = find_object_sphere(views, masks)
    assert np.linalg.norm(np.array(LEG.end) - sphere.centre) + LEG.radius <= 1.05 * sphere.radius


@pytest.mark.seconds(3)
def test_masks_cut_off_on_all_sides_still_bound_the_object():
    """Each photo shows a quarter of a body, another one each time."""
    views = ring(32)
    quarters = []
    for index in range(len(views)):
        left, top = (0 if index % 2 else 80), (0 if index // 2 % 2 else 60)
        quarters.append(
            replace(
                views.subset([index]),
                cx=views.cx[[index]] - left,
                cy=views.cy[[index]] - top,
                width=np.array([80]),
                height=np.array([60]),
            )
        )
    together = quarters[0]
    for one in quarters[1:]:
        together = joined(together, one)
    masks = masks_of([BODY], together)
    assert cut_off_masks(masks).all()
    sphere = find_object_sphere(together, masks)
    middle = np.array([0.0, 0.0, 0.15])
    assert np.linalg.norm(sphere.centre - middle) + 0.65 <= 1.05 * sphere.radius
    assert sphere.radius < 1.7 * 0.65
    hull = vote_hull(together, masks, sphere, resolution=64)
    whole = ring(5, distance=4.5)
    found = project_hull(hull, sphere, whole)
    for image, mask in zip(found, masks_of([BODY], whole), strict=True):
        assert iou(image >= 0.5, mask) > 0.85
