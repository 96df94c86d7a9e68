"""The voted hull against an analytic sphere, with perfect and with badly corrupted masks, and on the demo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surface_sos_ns.capture.bounds import find_object_sphere
from surface_sos_ns.capture.hull import VisualHull, main_components, voxel_centres
from surface_sos_ns.capture.hull_projection import project_hull
from surface_sos_ns.capture.hull_voting import mask_agreement, vote_hull
from surface_sos_ns.capture.sphere import ObjectSphere
from tests.helpers.ball_views import CENTRE, RADIUS, corrupt, iou, ring, sphere_masks
from tests.helpers.truth import load_capture


def truth_grid(resolution: int, radius: float) -> np.ndarray:
    axis = voxel_centres(resolution)
    return np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2) - radius


FRAME = ObjectSphere(CENTRE, 1.0)


@pytest.mark.parametrize("distortion", [None, np.array([0.2, -0.05, 0, 0, 0.004, -0.003])])
def test_hull_of_a_sphere_and_its_signed_distance(distortion):
    views = ring(30, CENTRE, distortion=distortion)
    grid = vote_hull(views, sphere_masks(views, CENTRE, RADIUS), FRAME, resolution=64, dilation_px=0.0)
    truth = truth_grid(64, RADIUS)
    assert iou(grid.probability >= 0.5, truth < 0) > 0.93
    assert grid.agreement > 0.95
    assert grid.view_weights.min() > 0.9
    distance = grid.signed_distance()
    near = np.abs(truth) < 0.25
    assert distance[32, 32, 32] < 0 < distance[0, 0, 0]
    assert np.abs(distance - truth)[near].mean() < 2 / 64  # object-frame units: one voxel
    slope = np.polyfit(truth[near], distance[near], 1)[0]
    assert 0.9 < slope < 1.1


def test_hull_survives_a_third_of_the_masks_being_wrong():
    views = ring(30, CENTRE)
    masks = corrupt(sphere_masks(views, CENTRE, RADIUS), 0.3)
    grid = vote_hull(views, masks, FRAME, resolution=64)
    assert iou(grid.probability >= 0.5, truth_grid(64, RADIUS) < 0) > 0.88
    overlaps = mask_agreement(views, masks, grid, FRAME)
    shifted = overlaps < 0.3
    assert shifted.sum() >= 3
    assert grid.view_weights[shifted].max() < 0.2 < 0.9 < np.median(grid.view_weights)


def test_probability_is_soft_and_deterministic():
    views = ring(12, CENTRE)
    masks = corrupt(sphere_masks(views, CENTRE, RADIUS), 0.2)
    first, second = (vote_hull(views, masks, FRAME, resolution=32) for _ in range(2))
    np.testing.assert_array_equal(first.probability, second.probability)
    assert first.probability.dtype == np.float32
    assert ((first.probability > 0.05) & (first.probability < 0.95)).mean() > 0.01
    assert first.probability.min() >= 0 and first.probability.max() <= 1


def test_views_that_do_not_see_a_voxel_have_no_say():
    views = ring(20, CENTRE, focal=600.0)  # each photo shows a part of the sphere only
    masks = sphere_masks(views, CENTRE, RADIUS)
    assert all(mask[0, 60:100].any() for mask in masks)  # the silhouettes leave the pictures
    grid = vote_hull(views, masks, FRAME, resolution=32, level=0.8)
    assert grid.probability[16, 16, 16] > 0.9


def test_a_relaxed_hull_is_a_larger_hull_of_the_same_votes():
    views = ring(30, CENTRE)
    grid = vote_hull(views, corrupt(sphere_masks(views, CENTRE, RADIUS), 0.3), FRAME, resolution=48)
    relaxed = grid.relaxed(0.25)
    solid, larger, truth = grid.probability >= 0.5, relaxed.probability >= 0.5, truth_grid(48, RADIUS) < 0
    assert larger[solid].all() and larger.sum() > solid.sum()
    assert larger[truth].mean() > 0.99 > iou(larger, truth) > 0.6, "nearly all of the object, and not everything"
    assert relaxed.level == pytest.approx(grid.level - 0.25)
    np.testing.assert_array_equal(relaxed.view_weights, grid.view_weights)
    # The order of the voxels stays, and so does the hull where nothing is given away.
    order = np.argsort(grid.probability, axis=None, kind="stable")
    assert (np.diff(relaxed.probability.ravel()[order]) >= -1e-6).all()
    np.testing.assert_allclose(grid.relaxed(0.0).probability, grid.probability, atol=2e-6)
    assert (relaxed.signed_distance() <= grid.signed_distance() + 1e-6).all()


def test_projection_of_a_grid_matches_the_silhouette():
    views = ring(6, CENTRE, size=(320, 240), focal=340.0)
    truth = truth_grid(64, RADIUS)
    grid = VisualHull(np.clip(0.5 - truth * 16, 0, 1).astype(np.float32), np.ones(6, np.float32), 1.0)
    images = project_hull(grid, FRAME, views)
    assert images.shape == (6, 240, 320)
    for image, mask in zip(images, sphere_masks(views, CENTRE, RADIUS), strict=True):
        assert iou(image >= 0.5, mask) > 0.98
    assert project_hull(grid, FRAME, views, size=(60, 80)).shape == (6, 60, 80)


def test_errors_say_what_is_wrong():
    views = ring(4, CENTRE)
    masks = sphere_masks(views, CENTRE, RADIUS)
    with pytest.raises(ValueError, match="No coarse mask has an object pixel"):
        vote_hull(views, [np.zeros_like(mask) for mask in masks], FRAME, resolution=16)
    with pytest.raises(ValueError, match="3 masks for 4 views"):
        vote_hull(views, masks[:3], FRAME, resolution=16)
    with pytest.raises(ValueError, match="mask of view 1 has shape"):
        vote_hull(views, [masks[0], masks[1][:50], *masks[2:]], FRAME, resolution=16)
    with pytest.raises(ValueError, match="no surface"):
        VisualHull(np.zeros((8, 8, 8), np.float32), np.ones(1, np.float32), 0.0).signed_distance()


def test_the_hull_of_the_demo_is_nearer_to_the_truth_than_the_masks_it_comes_from(demo_capture: Path) -> None:
    """Coarse masks of the training views in; truth of the held-out views for scoring."""
    train, coarse, _ = load_capture(demo_capture, "train_filenames")
    held_out, given, truth = load_capture(demo_capture, "val_filenames")
    sphere = find_object_sphere(train, coarse)
    images = project_hull(vote_hull(train, coarse, sphere, resolution=64), sphere, held_out)
    found = np.mean([iou(image >= 0.5, mask) for image, mask in zip(images, truth, strict=True)])
    assert found > max(0.73, 0.1 + np.mean([iou(mask, true) for mask, true in zip(given, truth, strict=True)]))


def balls(*radii: float) -> VisualHull:
    """Balls beside each other along x, soft at their surfaces, as a hull."""
    axis = voxel_centres(64)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    places = np.linspace(-1, 1, 2 * len(radii) + 1)[1::2]
    inside = [r - np.sqrt((x - place) ** 2 + y**2 + z**2) for place, r in zip(places, radii, strict=True)]
    return VisualHull((1 / (1 + np.exp(-40 * np.max(inside, axis=0)))).astype(np.float32), np.ones(1, np.float32), 1.0)


def test_small_piece_beside_the_object_goes_with_its_soft_surroundings():
    hull, alone = balls(0.4, 0.2), balls(0.4, -9.0)  # an eighth of the volume
    found = main_components(hull).probability
    assert found.max() > 0.99 and np.abs(found - alone.probability).max() < 0.02
    # Training starts from a lower level: nothing of it may come back there.
    axis = voxel_centres(64)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    around = np.sqrt((x - 0.5) ** 2 + y**2 + z**2) < 0.3
    assert hull.relaxed(0.15).probability[around].min() > 0.2
    assert main_components(hull).relaxed(0.15).probability[around].max() < 1e-4


@pytest.mark.parametrize(("gap", "stays"), [(2, True), (5, False)])
def test_a_thin_part_that_is_broken_in_the_vote_stays(gap, stays):
    probability = np.zeros((64, 64, 64), np.float32)
    probability[10:40, 20:40, 20:40] = 0.9  # a voxel is a 32nd of the radius
    probability[40 + gap : 56, 29:31, 29:31] = 0.9
    found = main_components(VisualHull(probability, np.ones(1, np.float32), 1.0)).probability
    assert (found[50, 30, 30] > 0.5) == stays


def test_pieces_of_like_size_and_single_ones_stay():
    for hull in (balls(0.4, 0.3), balls(0.4)):
        assert main_components(hull) is hull
    assert (main_components(balls(0.3, 0.25, 0.1)).probability[32] > 0.5).any()
