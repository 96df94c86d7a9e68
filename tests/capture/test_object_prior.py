"""The object prior without masks on a small textured scene, and what the whole prior promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.hull import VisualHull
from surface_sos_ns.capture.hull_projection import project_hull
from surface_sos_ns.capture.object_prior import GIVEN, ObjectPrior, build_object_prior
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.support_plane import SupportPlane, find_support_plane
from surface_sos_ns.masks.geometry import _down_to, masks_from_geometry
from surface_sos_ns.masks.mask_scoring import PointScore
from surface_sos_ns.masks.patch_grid import enlarged
from surface_sos_ns.masks.prior import refine_on_patches
from surface_sos_ns.masks.provider import Photos
from tests.helpers.ball_views import CENTRE, RADIUS, iou, ring, sphere_masks
from tests.helpers.textured_ball import BALL, cameras_above, textured_ball


def test_support_plane():
    views = cameras_above()
    _, _, points = textured_ball(views)
    plane = find_support_plane(views.centres(), points.xyz, ObjectSphere(BALL, 1.0))
    assert plane is not None
    np.testing.assert_allclose(plane.normal, [0, 0, 1], atol=0.02)
    assert abs(plane.offset) < 0.02
    assert (plane.height(views.centres()) > 0).all()
    # A ball alone has no plane that carries it.
    assert find_support_plane(views.centres(), points.xyz[:300], ObjectSphere(BALL, 1.0)) is None


@pytest.mark.seconds(6)
def test_the_hull_ends_at_the_plane_that_carries_the_object():
    """Silhouettes from above leave a tip of the hull beneath a ball: 0.6 / cos(0.4) from its middle, 0.05 too deep."""
    views = cameras_above()
    _, masks, points = textured_ball(views)
    deepest = {}
    for name, given in (("floor", points), ("no points", None)):
        prior = build_object_prior(views, masks, given, resolution=96)
        inside = np.argwhere(prior.hull.probability > 0.5)
        lowest = (inside[:, 2].min() + 0.5) / 48 - 1
        deepest[name] = prior.sphere.centre[2] + prior.sphere.radius * lowest
    assert deepest["no points"] < -0.03
    assert -0.03 < deepest["floor"] < 0.03  # 0.02 radii beneath the floor, and half a voxel


@pytest.mark.seconds(2)
def test_a_plane_that_would_cut_off_what_is_seen_does_not_carry_the_object():
    views = cameras_above()
    _, masks, points = textured_ball(views)
    raised = SparsePoints(points.xyz + np.array([0.0, 0.0, 0.6]), points.rgb, points.track_length)
    sphere = ObjectSphere(BALL, 0.8)
    plane = find_support_plane(views.centres(), raised.xyz[300:], sphere)
    assert plane is not None and abs(plane.offset - 0.6) < 0.02  # through the ball's middle
    named = {"object_point": sphere.centre, "object_radius": sphere.radius, "resolution": 64}
    with_plane, without = (build_object_prior(views, masks, given, **named) for given in (raised, None))
    assert np.array_equal(with_plane.hull.probability, without.hull.probability)


def test_an_object_reaches_down_to_what_carries_it():
    """Points at its top only, or a smooth body below them; but what floats high above a plane does not stand on it."""
    plane = SupportPlane(np.array([0.0, 0.0, 1.0]), 2.0, 0.01)
    column = np.stack([np.full(50, 3.0), np.full(50, -1.0), np.linspace(0, 1, 50)], axis=1)
    top, floating = column + np.array([0, 0, 2.6]), column + np.array([0, 0, 5.0])
    low, high = _down_to(plane, top).min(axis=0), _down_to(plane, top).max(axis=0)
    np.testing.assert_allclose([low, high], [[3, -1, 2], [3, -1, 3.6]])
    np.testing.assert_array_equal(_down_to(plane, floating), floating)
    np.testing.assert_array_equal(_down_to(None, top), top)


@pytest.mark.seconds(8)
def test_object_is_found_without_masks():
    views = cameras_above()
    photos, masks, points = textured_ball(views)
    lines: list[str] = []
    found = masks_from_geometry(photos, views, points, resolution=64, progress=lines.append)
    assert found.hull.agreement > 0.8
    assert np.mean([iou(one >= 0.5, mask) for one, mask in zip(found.masks, masks, strict=True)]) > 0.85
    hull = project_hull(found.hull, found.sphere, views)
    assert np.mean([iou(image >= 0.5, mask) for image, mask in zip(hull, masks, strict=True)]) > 0.8
    assert np.linalg.norm(found.sphere.centre - BALL) < 0.25 and 0.55 < found.sphere.radius < 1.1
    assert any("GrabCut" in line for line in lines)


@pytest.mark.seconds(6)
def test_colour_and_axes_alone_when_there_are_no_points():
    views = cameras_above(8)
    photos, masks, _ = textured_ball(views)
    found, again = (masks_from_geometry(photos, views, None, resolution=48) for _ in range(2))
    np.testing.assert_array_equal(again.hull.probability, found.hull.probability)
    assert np.mean([iou(one >= 0.5, mask) for one, mask in zip(found.masks, masks, strict=True)]) > 0.7


@pytest.mark.seconds(6)
def test_refinement_brings_back_what_was_lost_in_all_photos():
    """The lower half of the ball is cut off, and one photo has a block of floor: no vote alone can mend that."""
    views = cameras_above()
    images, truths, _ = textured_ball(views)
    given = []
    for index, truth in enumerate(truths):
        uv, _ = views.project_one(index, BALL[None])
        cut = truth.copy()
        cut[int(uv[0, 1]) + 5 :] = False
        given.append(cut.astype(np.float32))
    given[4][-30:, :40] = 1
    photos = Photos([Path(f"{index}.png") for index in range(len(views))], images, views, [(160, 120)] * len(views))
    voted, odds = refine_on_patches(photos, given, ObjectSphere(BALL, 1.0), lambda line: None)
    masks = [enlarged(grid, (120, 160)) > 0.5 for grid in odds]
    before = np.array([iou(one > 0.5, truth) for one, truth in zip(given, truths, strict=True)])
    after = np.array([iou(one, truth) for one, truth in zip(masks, truths, strict=True)])
    assert before.mean() < 0.7 and after.min() > 0.8
    assert not masks[4][-30:, :40].any()
    assert voted[0].shape == odds[0].shape


def test_points_score_masks():
    """Of true, shifted, full and no masks only the true ones cover points on the ball and nothing else."""
    views = cameras_above()
    images, truths, points = textured_ball(views)
    photos = Photos([Path(f"{i}.png") for i in range(len(views))], images, views, [(160, 120)] * len(views), points)
    scoring = PointScore(photos)
    true = scoring.score([truth.astype(np.float32) for truth in truths])
    shifted = scoring.score([np.roll(truth, 25, axis=1).astype(np.float32) for truth in truths])
    assert true is not None and shifted is not None
    assert true > 0.9 and shifted < true - 0.2
    assert scoring.score([np.ones((60, 80), np.float32)] * len(views)) == 0
    assert scoring.score([None] * len(views)) == 0
    pointless = Photos(photos.files, images, views, photos.sizes)
    assert PointScore(pointless).score([truth.astype(np.float32) for truth in truths]) is None


def test_training_starts_from_one_body_unless_masks_were_given():
    """On a cube's diagonal: a block, and one of an eighth of its size that only a lowered level shows."""
    probability = np.zeros((32, 32, 32), np.float32)
    probability[2:14, 2:14, 2:14], probability[20:26, 20:26, 20:26] = 0.9, 0.2
    sphere, hull = ObjectSphere(np.zeros(3), 1.0), VisualHull(probability, np.ones(2, np.float32), 0.9)
    given, made = (ObjectPrior(sphere, hull, [None] * 2, None, 0.9, source) for source in (GIVEN, "masks by prior"))
    assert given.initial_hull(0.25).probability[22, 22, 22] > 0.9
    whole, alone = given.initial_hull(0.25), made.initial_hull(0.25)
    assert (alone.probability[18:, 18:, 18:] == 0).all() and alone.level == whole.level == hull.level - 0.25
    assert (alone.probability[:14, :14, :14] == whole.probability[:14, :14, :14]).all()


def test_prior_from_masks_survives_saving(tmp_path):
    views = ring(12, CENTRE)
    masks: list = [mask.astype(np.float32) for mask in sphere_masks(views, CENTRE, RADIUS)]
    masks[5] = None
    points = SparsePoints(CENTRE[None], np.ones((1, 3)), [3], np.ones((1, 12), bool))
    prior = build_object_prior(views, masks, points, resolution=32)
    assert prior.source == "coarse masks" and prior.confidence > 0.9
    path = tmp_path / "cache" / "prior.npz"
    prior.save(path)
    loaded = ObjectPrior.load(path)
    np.testing.assert_allclose(loaded.hull.probability, prior.hull.probability, atol=1e-3)
    np.testing.assert_allclose(loaded.sphere.centre, prior.sphere.centre)
    assert (loaded.sphere.radius, loaded.source, loaded.masks[5]) == (prior.sphere.radius, prior.source, None)
    np.testing.assert_array_equal(loaded.masks[0], masks[0])
    np.testing.assert_array_equal(loaded.points.visibility, points.visibility)
    assert [file.name for file in path.parent.iterdir()] == ["prior.npz"]  # nothing temporary is left
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CaptureError, match="prior.npz cannot be read.*Delete it"):
        ObjectPrior.load(path)
    with pytest.raises(FileNotFoundError):
        ObjectPrior.load(tmp_path / "none.npz")


@pytest.fixture(scope="module")
def saved_prior(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The arrays of a prior's file."""
    views = ring(12, CENTRE)
    points = SparsePoints(CENTRE[None], np.ones((1, 3)), [3], np.ones((1, 12), bool))
    path = tmp_path_factory.mktemp("prior") / "prior.npz"
    build_object_prior(views, sphere_masks(views, CENTRE, RADIUS), points, resolution=16).save(path)
    return dict(np.load(path))


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("confidence", "high", "its confidence is 'high', expected a number"),
        ("radius", None, "its radius is None"),
        ("radius", -1.0, "radius is -1.0; expected a positive number"),
        ("level", float("nan"), "its level is nan"),
        ("source", 3, "its source is no text"),
        ("masks", 10**12, "it has 1000000000000 masks and 12 weights"),
        ("format", 0, "format 0, expected 1"),
        ("probability", np.zeros((4, 4)), r"its hull has the shape \(4, 4\)"),
        ("probability", np.full((4, 4, 4), np.nan), "its probability holds no finite numbers"),
        ("centre", np.zeros(2), "expected three finite numbers"),
        ("mask_3", np.zeros(7, np.uint8), "its mask 3 is no grey picture"),
        ("xyz", np.zeros((9, 3)), "expected equal numbers"),
    ],
)
def test_a_file_that_holds_no_prior_is_named(saved_prior, tmp_path, name, value, problem):
    path, arrays = tmp_path / "prior.npz", dict(saved_prior)
    if name in arrays:
        arrays[name] = value
    else:
        description = json.loads(arrays["description"].tobytes()) | {name: value}
        arrays["description"] = np.frombuffer(json.dumps(description).encode(), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(CaptureError, match=f"prior.npz cannot be read.*{problem}"):
        ObjectPrior.load(path)


def test_named_sphere_is_taken_as_it_is():
    views = ring(12, CENTRE)
    masks = sphere_masks(views, CENTRE, RADIUS)
    prior = build_object_prior(views, masks, object_point=CENTRE, object_radius=0.9, resolution=16)
    np.testing.assert_array_equal(prior.sphere.centre, CENTRE)
    assert prior.sphere.radius == 0.9
    with pytest.raises(ValueError, match="object radius is -1"):
        build_object_prior(views, masks, object_radius=-1)
    with pytest.raises(ValueError, match="11 masks for 12 views"):
        build_object_prior(views, masks[1:])
    with pytest.raises(ValueError, match="No coarse mask has an object pixel"):
        build_object_prior(views, [None] * 12, object_point=CENTRE, object_radius=0.9)


@pytest.mark.seconds(6)
def test_several_objects_are_known_by_their_hulls(tmp_path: Path) -> None:
    """Two balls, the second half as large: which voxels are whose, how large they are, and that a file keeps it."""
    views = ring(16, (0.6, 0.0, 0.2), distance=5.0, size=(160, 120), focal=160.0)
    balls = ((np.array([0.0, 0.0, 0.2]), 0.5), (np.array([1.2, 0.0, 0.2]), 0.25))
    identities: list[np.ndarray | None] = []
    for index in range(len(views)):
        masks = [sphere_masks(views.subset([index]), centre, radius)[0] for centre, radius in balls]
        depth = [np.linalg.norm(views.centres()[index] - centre) for centre, _ in balls]
        image = np.zeros(masks[0].shape, np.uint8)
        for number in np.argsort(depth)[::-1]:  # the nearer one hides the other
            image[masks[number] > 0.5] = number + 1
        identities.append(image)
    masks = [None if image is None else (image > 0).astype(np.float32) for image in identities]
    prior = build_object_prior(views, masks, resolution=64, objects=("large", "small"), identities=identities)
    prior.save(tmp_path / "prior.npz")
    prior = ObjectPrior.load(tmp_path / "prior.npz")
    assert prior.objects == ("large", "small") and prior.hull_identity is not None
    assert all(np.array_equal(one, two) for one, two in zip(prior.identities, identities, strict=True))
    sizes = prior.diameters()
    for name, (centre, radius) in zip(prior.objects, balls, strict=True):
        assert np.linalg.norm(centre - prior.sphere.centre) + radius < prior.sphere.radius
        assert sizes[name] * prior.sphere.radius == pytest.approx(2 * radius, rel=0.25)
    axis = (np.arange(64) + 0.5) / 32 - 1
    voxels = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1) * prior.sphere.radius + prior.sphere.centre
    for identity, (centre, radius) in enumerate(balls, start=1):
        inside = np.linalg.norm(voxels - centre, axis=-1) < 0.9 * radius
        assert (prior.hull_identity[inside] == identity).mean() > 0.99
    # Masks that were found by ourselves lose small pieces, but no object.
    found = build_object_prior(
        views, masks, resolution=64, source="masks by x", objects=("large", "small"), identities=identities
    )
    kept = found.initial_hull(0.0).probability >= 0.5
    assert {1, 2} == set(np.unique(found.hull_identity[kept]).tolist())
