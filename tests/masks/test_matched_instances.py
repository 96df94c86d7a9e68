"""Instances of a detector, numbered anew in every photo, made objects with names; and Mask R-CNN with several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surface_sos_ns.masks import maskrcnn
from surface_sos_ns.masks.maskrcnn import MaskRcnn
from surface_sos_ns.masks.matched_instances import Instances, match_instances, number_instances
from surface_sos_ns.masks.object_choice import names_of
from surface_sos_ns.masks.provider import MaskError, Photos
from tests.helpers.ball_views import iou
from tests.helpers.three_balls import cameras_around_balls, three_balls


@pytest.fixture(scope="module")
def scene() -> tuple[Photos, list[np.ndarray]]:
    views = cameras_around_balls(12)
    images, identities, points = three_balls(views)
    files = [Path(f"/capture/images/{index:02}.jpg") for index in range(12)]
    return Photos(files, images, views, views.sizes(), points), identities


LABELS = ("vase", "cup", "cup")


def detected(truth: list[np.ndarray], labels: tuple[str, ...] = LABELS) -> list[Instances]:
    """What a detector makes of the balls: in random order, with a box about two of them as one thing now and then."""
    generator = np.random.default_rng(5)
    found = []
    for view, identities in enumerate(truth):
        shown = [number for number in generator.permutation(3) + 1 if (identities == number).sum() > 30]
        masks = [identities == number for number in shown]
        names = [labels[number - 1] for number in shown]
        scores = [0.9 - 0.1 * number for number in shown]
        if view % 4 == 1:
            masks.append((identities == 1) | (identities == 2))
            names.append("bowl")
            scores.append(0.35)
        found.append(Instances(np.stack(masks), names, np.array(scores)))
    return found


def test_what_is_found_twice_is_numbered_once() -> None:
    cup = np.zeros((20, 30), bool)
    cup[5:15, 5:15] = True
    part, other = cup.copy(), np.roll(cup, 12, axis=1)
    part[5:8] = False
    found = Instances(np.stack([part, other, cup]), ["bowl", "vase", "cup"], np.array([0.5, 0.9, 0.8]))
    identities, taken = number_instances(found)
    assert taken == [1, 2]
    np.testing.assert_array_equal(identities, np.where(other, 1, np.where(cup, 2, 0)))
    nothing = Instances(np.zeros((0, 20, 30), bool), [], np.zeros(0))
    assert number_instances(nothing) == (None, [])


@pytest.mark.seconds(5)
def test_instances_become_the_same_objects_in_all_photos(scene) -> None:
    photos, truth = scene
    names = [path.name for path in photos.files]
    found = match_instances(detected(truth), photos.views, 3, names)
    assert found.names == ("vase", "cup", "cup_2")  # in the order of their scores
    for view, true in enumerate(truth):
        for identity in (1, 2, 3):
            if (true == identity).sum() > 60:
                assert iou(found.identities[view] == identity, true == identity) > 0.9
    assert (found.confidence > 0.6).all()
    some = match_instances(detected(truth), photos.views, 2, names)
    assert some.names == ("vase", "cup") and max(int(one.max()) for one in some.identities) == 2
    with pytest.raises(MaskError, match="of 3 objects .* expected 5"):
        match_instances(detected(truth), photos.views, 5, names)


def test_names_out_of_words() -> None:
    assert names_of(["wine glass", "cup", "Cup", "cup", "?"]) == ("wine_glass", "cup", "Cup_2", "cup_3", "object")


@pytest.mark.seconds(5)
def test_maskrcnn_with_several_objects(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, truth = scene
    everything = detected(truth)

    def detect(model, image, categories, device) -> Instances:
        index = next(index for index, photo in enumerate(photos.images) if photo is image)
        return everything[index]

    monkeypatch.setattr(maskrcnn, "_detect", detect)
    monkeypatch.setattr(MaskRcnn, "check", lambda self: None)
    found = MaskRcnn(device="cpu", objects=0).masks(photos, str)
    assert found.names == ("vase", "cup", "cup_2")
    cups = MaskRcnn("cup", device="cpu", objects=2).masks(photos, str)
    assert cups.names == ("cup", "cup_2")
    assert iou(cups.identities[0] == 1, truth[0] == 2) > 0.9
    with pytest.raises(MaskError, match="are for several objects"):
        MaskRcnn(device="cpu", objects=1)
