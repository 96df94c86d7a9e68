"""Masks corrected by the photos' colours: a ball whose true outline is known, in colours that tell it or do not."""

from __future__ import annotations

import numpy as np
import pytest

from surface_sos_ns.capture.mask_colours import MOST_DENIED, corrected_by_colours, split_by_colours
from surface_sos_ns.capture.object_prior import CORRECTED, GIVEN, build_object_prior
from surface_sos_ns.capture.sphere import ObjectSphere
from tests.helpers.ball_views import CENTRE, RADIUS, iou, ring, sphere_masks

VIEWS = ring(12, target=CENTRE)
TRUTH = sphere_masks(VIEWS, CENTRE, RADIUS)
SPHERE = ObjectSphere(np.array(CENTRE), 1.2 * RADIUS)
SHIFTED = [np.roll(mask, 4, axis=1) for mask in TRUTH]
"""All masks wrong in the same way: they miss a sickle of the ball, and cover one of what is beside it."""
RED, GREEN = (200, 60, 40), (40, 120, 50)


def photos(inside: tuple[int, ...] = RED, outside: tuple[int, ...] = GREEN, spread: float = 8.0) -> list[np.ndarray]:
    """Photos of the ball, with noise of a standard deviation of `spread` levels."""
    random = np.random.default_rng(0)
    clean = [np.where(mask[..., None], inside, outside) for mask in TRUTH]
    return [np.clip(image + random.normal(0, spread, image.shape), 0, 255).astype(np.uint8) for image in clean]


def test_what_all_masks_get_wrong_is_corrected() -> None:
    said: list[str] = []
    found = corrected_by_colours(VIEWS, photos(), SHIFTED, SPHERE, said.append)
    assert found is not None and len(said) == 1 and "colours alone tell the object" in said[0]
    for mask, shifted, true in zip(found, SHIFTED, TRUTH, strict=True):
        assert mask is not None and mask.dtype == np.float32
        assert iou(shifted, true) < 0.9 < 0.96 < iou(mask > 0.5, true)


def test_where_the_light_differs_each_photo_is_corrected_by_its_own_colours() -> None:
    """In every other photo the ball has the colours of the others' surroundings: together they tell nothing."""
    plain, swapped = photos(), photos(GREEN, RED)
    images = [(plain, swapped)[view % 2][view] for view in range(len(plain))]
    assert not split_by_colours(images, SHIFTED).clear
    said: list[str] = []
    found = corrected_by_colours(VIEWS, images, SHIFTED, SPHERE, said.append)
    assert found is not None and "in each photo, by its own colours" in said[0]
    assert min(iou(np.asarray(mask) > 0.5, true) for mask, true in zip(found, TRUTH, strict=True)) > 0.94


def test_a_photo_whose_colours_tell_little_keeps_its_mask() -> None:
    images = [(photos(), photos(GREEN, RED))[view % 2][view] for view in range(len(TRUTH))]
    images[3] = photos(spread=60.0, outside=(170, 70, 50))[3]
    found = corrected_by_colours(VIEWS, images, SHIFTED, SPHERE)
    assert found is not None and found[3] is not None and (found[3] == SHIFTED[3]).all()
    assert found[4] is not None and iou(found[4] > 0.5, TRUTH[4]) > 0.94


def test_views_without_a_mask_stay_without_one() -> None:
    empty = np.zeros_like(TRUTH[0])
    found = corrected_by_colours(VIEWS, photos(), [None, empty, *SHIFTED[2:]], SPHERE)
    assert found is not None and found[0] is None and found[1] is not None and not found[1].any()
    assert found[2] is not None and iou(found[2] > 0.5, TRUTH[2]) > 0.96


@pytest.mark.parametrize(
    ("colours", "masks"),
    [
        pytest.param({"inside": GREEN}, SHIFTED, id="an object in the colours of its surroundings"),
        pytest.param({"spread": 60.0}, SHIFTED, id="colours that overlap"),
        pytest.param({}, TRUTH, id="masks that are right already"),
        pytest.param({}, [None] * 10 + SHIFTED[:2], id="two masks"),
    ],
)
def test_masks_stay_where_colours_tell_nothing_new(colours: dict, masks: list) -> None:
    assert corrected_by_colours(VIEWS, photos(**colours), masks, SPHERE) is None


def test_an_object_that_is_partly_of_the_colour_of_its_surroundings_keeps_that_part() -> None:
    """The ball's lower third is green: colours part red and green very well, and yet the masks are right."""
    images = photos()
    for image, mask in zip(images, TRUTH, strict=True):
        rows = np.nonzero(mask.any(axis=1))[0]
        lowest = np.arange(len(mask)) > np.quantile(rows, 0.67)
        part = lowest[:, None] & mask
        image[part] = image[~mask][: np.count_nonzero(part)]
    split = split_by_colours(images, TRUTH)
    assert split.denied > MOST_DENIED and not split.clear
    assert corrected_by_colours(VIEWS, images, SHIFTED, SPHERE) is None


def test_a_spot_in_the_middle_is_no_hole() -> None:
    images = photos()
    for image, mask in zip(images, TRUTH, strict=True):
        row, column = (int(np.mean(axis)) for axis in np.nonzero(mask))
        image[row - 2 : row + 3, column - 2 : column + 3] = image[:5, :5]
    found = corrected_by_colours(VIEWS, images, SHIFTED, SPHERE)
    assert found is not None
    assert min(iou(np.asarray(mask) > 0.5, true) for mask, true in zip(found, TRUTH, strict=True)) > 0.95


def test_colours_that_the_hull_contradicts_have_no_say() -> None:
    """Next to the ball something of its colour lies, elsewhere in every photo: no place in space explains it."""
    images = photos()
    random = np.random.default_rng(1)
    for image, mask in zip(images, TRUTH, strict=True):
        rows, columns = np.nonzero(mask)
        top, left = rows.min() - 9, int(random.integers(columns.min(), columns.max() - 30))
        image[top : top + 8, left : left + 30] = image[mask][:240].reshape(8, 30, 3)
    assert split_by_colours(images, TRUTH).added > 0.02
    assert corrected_by_colours(VIEWS, images, TRUTH, SPHERE) is None


def test_training_starts_from_the_corrected_masks() -> None:
    images = photos()
    named = {"object_point": SPHERE.centre, "object_radius": SPHERE.radius, "resolution": 32}
    corrected, plain = (build_object_prior(VIEWS, SHIFTED, photos=given, **named) for given in (images, None))
    assert (corrected.source, plain.source) == (CORRECTED, GIVEN)
    assert corrected.masks_given and not corrected.masks_at_hand and plain.masks_at_hand
    assert corrected.confidence > plain.confidence
    assert corrected.masks[0] is not None and iou(corrected.masks[0] > 0.5, TRUTH[0]) > 0.96
