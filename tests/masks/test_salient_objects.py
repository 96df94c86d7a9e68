"""The most salient things without any mask: groups of points on a plane, and masks of them by several methods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.masks import salient_objects as salient
from surface_sos_ns.masks import sam2
from surface_sos_ns.masks.auto import Auto
from surface_sos_ns.masks.cosegment import Cosegment
from surface_sos_ns.masks.methods import METHODS
from surface_sos_ns.masks.prior import Prior
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos
from surface_sos_ns.masks.salient_objects import find_things, salient_objects
from surface_sos_ns.masks.sam2 import Sam2
from tests.helpers.ball_views import iou
from tests.helpers.three_balls import BALLS, cameras_around_balls, three_balls


@pytest.fixture(scope="module")
def scene() -> tuple[Photos, list[np.ndarray]]:
    views = cameras_around_balls(12)
    images, identities, points = three_balls(views)
    files = [Path(f"/capture/images/{index:02}.jpg") for index in range(12)]
    return Photos(files, images, views, views.sizes(), points), identities


def ball_of(centre: np.ndarray) -> int:
    """The number of the ball that is nearest to a point, from 1."""
    return int(np.argmin([np.linalg.norm(centre - ball) for ball, _ in BALLS])) + 1


def test_things_are_groups_of_points_on_the_plane(scene) -> None:
    """The floor is none, nor is what lies beside the part of it that has points; the most salient comes first."""
    photos, _ = scene
    points = photos.points
    generator = np.random.default_rng(0)
    lamp = np.array([0.2, 5.5, 1.5]) + generator.normal(0, 0.05, (60, 3))  # behind the floor's end
    more = SparsePoints(
        np.concatenate([points.xyz, lamp]),
        np.concatenate([points.rgb, np.zeros((60, 3), np.uint8)]),
        np.concatenate([points.track_length, np.full(60, 12)]),
        np.concatenate([points.visibility, np.ones((60, 12), bool)]),
    )
    for given in (more, replace(more, visibility=None)):
        things = find_things(replace(photos, points=given))
        assert sorted(ball_of(thing.sphere.centre) for thing in things) == [1, 2, 3]
        assert [thing.salience for thing in things] == sorted((thing.salience for thing in things), reverse=True)
        for thing in things:
            centre, radius = BALLS[ball_of(thing.sphere.centre) - 1]
            assert np.linalg.norm(thing.sphere.centre - centre) < 0.35 * radius
            assert radius < thing.sphere.radius < 2.2 * radius
            assert (np.linalg.norm(thing.xyz - centre, axis=1) < 1.01 * radius).all()


def test_things_that_touch_are_parted_when_more_are_asked_for(scene) -> None:
    photos, _ = scene
    generator = np.random.default_rng(1)
    floor = np.concatenate([generator.uniform(-3, 3, (900, 2)), generator.normal(0, 0.005, (900, 1))], axis=1)
    grid = np.stack(np.meshgrid(*[np.linspace(-0.2, 0.2, 7)] * 3), axis=-1).reshape(-1, 3)
    blocks = [centre + grid + generator.normal(0, 0.004, grid.shape) for centre in ([0, 0, 0.3], [0.48, 0, 0.3])]
    xyz = np.concatenate([floor, *blocks])
    touching = replace(photos, points=SparsePoints(xyz, np.zeros((len(xyz), 3)), np.full(len(xyz), 4)))
    parted = find_things(touching, 2)
    assert len(parted) == 2
    assert sorted(float(thing.xyz[:, 0].mean()) for thing in parted) == pytest.approx([0.0, 0.48], abs=0.03)
    with pytest.raises(MaskError, match=r"\d things stand out by their points, and 9 objects are asked for"):
        salient_objects(touching, 9)


def check(found: CoarseMasks, photos: Photos, truth: list[np.ndarray], least: float) -> None:
    """Whether the identities are those of the balls, in any order, in all photos."""
    overlaps = np.zeros((3, 3))
    for identity in (1, 2, 3):
        for ball in (1, 2, 3):
            pairs = [
                (np.zeros_like(true) == 1 if owner is None else owner == identity, true == ball)
                for owner, true in zip(found.identities, truth, strict=True)
            ]
            overlaps[identity - 1, ball - 1] = iou(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs]))
    assert sorted(overlaps.argmax(axis=1)) == [0, 1, 2]
    assert overlaps.max(axis=1).min() > least, overlaps


@pytest.mark.seconds(8)
def test_masks_of_the_most_salient_things(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, truth = scene
    monkeypatch.setattr(salient, "RESOLUTION", 48)  # enough for small photos
    found = Prior(3, ("orange", "green", "pink")).masks(photos, str)
    assert found.names == ("orange", "green", "pink")
    check(found, photos, truth, 0.75)
    assert found.confidence.min() > 0.5


@pytest.mark.seconds(6)
def test_cosegmentation_of_several_things(scene) -> None:
    photos, truth = scene
    found = Cosegment("descriptor", objects=3).masks(photos, str)
    assert found.names == ("object_1", "object_2", "object_3")
    check(found, photos, truth, 0.55)


def test_sam2_is_prompted_at_each_thing(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the network that knows the balls: it segments the one that most of its prompts are on."""
    photos, truth = scene

    def segment(model, processor, image, prompts, device) -> tuple[np.ndarray, np.ndarray]:
        view = next(index for index, photo in enumerate(photos.images) if photo is image)
        at = truth[view][prompts[:, 1].astype(int), prompts[:, 0].astype(int)]
        ball = np.bincount(at[at > 0], minlength=2).argmax()
        return (truth[view] == ball)[None], np.array([0.9])

    monkeypatch.setattr(sam2, "_segment", segment)
    monkeypatch.setattr(Sam2, "check", lambda self: None)
    lines: list[str] = []
    found = Sam2("cpu", names=("a", "b", "c")).masks(photos, lines.append)
    check(found, photos, truth, 0.9)
    assert lines[0].startswith("a: SAM 2 on cpu")


def test_auto_takes_the_things_of_prior() -> None:
    provider = Auto(objects=4)
    provider.check()
    assert provider._several is not None and provider._several.names[-1] == "object_4"
    for name in ("auto", "prior", "cosegment", "sam2", "click"):
        assert {"objects", "names"} <= set(METHODS[name].options)
        with pytest.raises(MaskError, match="needs the number of objects"):
            METHODS[name].load()(objects=0)
