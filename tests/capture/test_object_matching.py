"""Identities across views: balls at known places, whose masks are numbered well, badly, or anew in each photo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from surface_sos_ns.capture.object_matching import ObjectMatch, match_objects
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from tests.helpers.ball_views import ring

BALLS = (
    ((0.0, 0.0, 0.0), 0.45),
    ((0.8, 0.1, -0.1), 0.2),
    ((-0.2, -0.75, 0.0), 0.25),
    ((-0.6, 0.5, -0.2), 0.16),
)
"""Centre and radius; they hide each other in many views."""
SPHERE = ObjectSphere(np.array([0.1, -0.1, -0.05]), 1.3)
VIEWS = ring(24)


def true_identities(views: Views = VIEWS) -> list[np.ndarray]:
    """(H, W) uint8 of each view: the ball that its rays meet first."""
    images = []
    for index in range(len(views)):
        rows, columns = np.mgrid[: views.height[index], : views.width[index]]
        rays = views.rays(index, np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=-1))
        nearest, image = np.full(len(rays), np.inf), np.zeros(len(rays), np.uint8)
        for identity, (centre, radius) in enumerate(BALLS, start=1):
            offset = np.array(centre) - views.centres()[index]
            along = rays @ offset
            inside = radius**2 - (offset @ offset - along**2)
            depth = along - np.sqrt(np.maximum(inside, 0))
            closer = (inside > 0) & (depth < nearest)
            nearest[closer], image[closer] = depth[closer], identity
        images.append(image.reshape(rows.shape))
    return images


TRUTH = true_identities()


def detected(seed: int, missed: float = 0.15, merged: float = 0.05, extra: float = 0.3) -> list[np.ndarray]:
    """As a detector sees the balls: rough outlines, missed and merged ones, and blobs of number 5 where nothing is."""
    generator, images = np.random.default_rng(seed), []
    rows, columns = np.mgrid[: TRUTH[0].shape[0], : TRUTH[0].shape[1]]
    for truth in TRUTH:
        shifts = [cv2.GaussianBlur(generator.normal(size=truth.shape), (0, 0), 4) * 12 for _ in range(2)]
        places = [
            np.clip(axis + shift, 0, size - 1).astype(int)
            for axis, shift, size in zip((rows, columns), shifts, truth.shape, strict=True)
        ]
        image = truth[places[0], places[1]]
        for identity in range(1, len(BALLS) + 1):
            if generator.random() < missed:
                image[image == identity] = 0
        if generator.random() < merged * len(BALLS):
            first, second = generator.choice(np.arange(1, len(BALLS) + 1), 2, replace=False)
            image[image == first] = second
        if generator.random() < extra:
            blob = cv2.circle(np.zeros_like(image), tuple(generator.integers(10, 110, 2).tolist()), 9, 1, -1)
            image[(blob > 0) & (image == 0)] = 5
        images.append(image)
    return images


def renumbered(images: list[np.ndarray], seed: int, share: float = 1.0) -> tuple[list[np.ndarray], list[int]]:
    """The numbers that occur in a photo, exchanged at random in some photos; and these photos."""
    generator, result, changed = np.random.default_rng(seed), [], []
    for view, image in enumerate(images):
        numbers = np.unique(image[image > 0])
        table = np.arange(256, dtype=np.uint8)
        if generator.random() < share:
            table[numbers] = generator.permutation(numbers)
            if (table[numbers] != numbers).any():
                changed.append(view)
        result.append(table[image])
    return result, changed


def instances(images: list[np.ndarray], match: ObjectMatch) -> np.ndarray:
    """(I, 2) of every instance that is a ball: which one, by most of its pixels, and the identity that it got."""
    pairs = []
    for image, truth, found in zip(images, TRUTH, match.identities, strict=True):
        assert found is not None
        for number in np.unique(image[image > 0]):
            own = image == number
            assert len(np.unique(found[own])) == 1, "an instance has one identity"
            pairs.append((np.bincount(truth[own]).argmax(), found[own][0]))
    table = np.array(pairs)
    return table[table[:, 0] > 0]


def consistent_share(pairs: np.ndarray) -> float:
    """Of the instances, those whose identity is the one that most instances of their ball have."""
    usual = {ball: np.bincount(pairs[pairs[:, 0] == ball, 1]).argmax() for ball in np.unique(pairs[:, 0])}
    assert len(set(usual.values())) == len(BALLS) and 0 not in usual.values(), "balls have different identities"
    return float(np.mean([usual[ball] == identity for ball, identity in pairs]))


@pytest.mark.seconds(3)
@pytest.mark.parametrize("seed", range(2))
def test_masks_numbered_anew_in_each_photo_become_consistent(seed: int) -> None:
    images, _ = renumbered(detected(seed), seed)
    match = match_objects(images, VIEWS)
    assert match.renumbered and match.count == len(BALLS) and match.same == []
    assert consistent_share(instances(images, match)) >= 0.98
    assert match.confidence > 0.8 and match.corrected == []
    assert match.shown == [
        sum(bool((image == identity).any()) for image in match.identities if image is not None)
        for identity in range(1, 5)
    ]
    assert "differently from photo to photo; matched by their hulls, they show 4 objects" in match.remarks([""] * 24)[0]


@pytest.mark.seconds(2)
def test_the_largest_object_comes_first_unless_numbers_are_kept() -> None:
    """Sizes are 1, 3, 2, 4. Kept numbers are those that most instances had."""
    images, _ = renumbered(TRUTH, 0)
    pairs = instances(images, match_objects(images, VIEWS, sphere=SPHERE))
    assert {(ball, identity) for ball, identity in pairs.tolist()} == {(1, 1), (2, 3), (3, 2), (4, 4)}
    mixed, _ = renumbered(TRUTH, 1, share=0.55)
    for image in mixed[::2]:  # in half of the photos, the next number
        image[image > 0] = image[image > 0] % 4 + 1
    match = match_objects(mixed, VIEWS, keep_names=True, sphere=SPHERE)
    pairs = instances(mixed, match)
    assert match.renumbered and match.count == 4 and consistent_share(pairs) >= 0.98


@pytest.mark.seconds(2)
def test_right_numbers_stay_as_they_are() -> None:
    """Whatever they are: 3, 7, 20 and 4, with gaps between."""
    table = np.array([0, 3, 7, 20, 4], np.uint8)
    images = [table[truth] for truth in TRUTH]
    match = match_objects([*images[:5], None, *images[6:]], VIEWS, sphere=SPHERE)
    assert not match.renumbered and match.corrected == match.same == [] and match.count == 20
    for view, (found, image) in enumerate(zip(match.identities, images, strict=True)):
        assert found is None if view == 5 else np.array_equal(found, image) and found.dtype == np.uint8  # type: ignore[union-attr]
    assert match.confidence > 0.9 and match.remarks([""] * 24) == []
    assert [place for place, photos in enumerate(match.shown, start=1) if photos] == [3, 4, 7, 20]


@pytest.mark.seconds(2)
@pytest.mark.parametrize("seed", range(2))
def test_numbers_swapped_in_some_photos_are_corrected_and_the_photos_named(seed: int) -> None:
    images, swapped = renumbered([truth.copy() for truth in TRUTH], seed, share=0.25)
    match = match_objects(images, VIEWS, sphere=SPHERE)
    assert 3 <= len(swapped) < 12 and not match.renumbered and match.corrected == swapped
    for found, truth in zip(match.identities, TRUTH, strict=True):
        assert np.array_equal(found, truth)
    names = [f"{view}.jpg" for view in range(24)]
    assert f"in {len(swapped)} photos, corrected by their hulls: {names[swapped[0]]}" in match.remarks(names)[0]


@pytest.mark.seconds(2)
def test_rough_masks_with_right_numbers_keep_them() -> None:
    images = detected(5)
    match = match_objects(images, VIEWS, sphere=SPHERE)
    pairs = instances(images, match)
    assert not match.renumbered and (pairs[:, 0] == pairs[:, 1]).mean() >= 0.98


@pytest.mark.seconds(2)
def test_an_object_of_few_photos_keeps_its_number() -> None:
    """Two photos are too few to tell it from an error, but numbers that are right elsewhere are believed."""
    images = [np.where((truth == 4) & (view not in (3, 4)), 0, truth) for view, truth in enumerate(TRUTH)]
    match = match_objects(images, VIEWS, sphere=SPHERE)
    assert match.corrected == [] and match.shown[3] == sum(bool((images[view] == 4).any()) for view in (3, 4))


@pytest.mark.seconds(2)
def test_numbers_too_small_to_be_looked_at_stay() -> None:
    """Single pixels of pictures that are made smaller, and the number of the photo without any mask."""
    images = [np.kron(truth, np.ones((4, 4), np.uint8)) for truth in TRUTH]
    images[3][0, 0] = 9
    match = match_objects(images, VIEWS, sphere=SPHERE)
    assert match.count == 9 and match.corrected == [] and np.array_equal(match.identities[3], images[3])


@pytest.mark.seconds(2)
def test_two_numbers_for_one_thing_are_reported() -> None:
    images = [np.where((truth == 2) & (view % 2 == 0), 5, truth) for view, truth in enumerate(TRUTH)]
    match = match_objects(images, VIEWS, keep_names=True, sphere=SPHERE)
    assert match.same == [(2, 5)] and match.count == 5


@pytest.mark.seconds(2)
def test_what_is_in_single_photos_is_no_object() -> None:
    """Blobs where nothing is; most of them get no identity, and none gets one of its own."""
    images, _ = renumbered(detected(7, missed=0, merged=0, extra=1.0), 7)
    match = match_objects(images, VIEWS, sphere=SPHERE)
    assert match.count == len(BALLS)


@pytest.mark.seconds(2)
def test_images_may_be_of_another_size_than_views() -> None:
    images, _ = renumbered(TRUTH[::2], 2)
    views = VIEWS.subset(range(0, 24, 2))
    large = [np.kron(image, np.ones((2, 2), np.uint8)) for image in images]
    match, small = match_objects(large, views, sphere=SPHERE), match_objects(images, views, sphere=SPHERE)
    for found, expected in zip(match.identities, small.identities, strict=True):
        assert np.array_equal(found, np.kron(expected, np.ones((2, 2), np.uint8)))


def test_one_image_for_each_view() -> None:
    with pytest.raises(ValueError, match="3 images of identities for 24 views"):
        match_objects(TRUTH[:3], VIEWS)
