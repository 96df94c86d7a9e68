"""Selfment without cameras: which part of a single photo is the object, and the masks of made-up photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surface_sos_ns.masks.features import normalised
from surface_sos_ns.masks.normalised_cut import affinity, cut_eigenvectors, second_eigenvector
from surface_sos_ns.masks.object_candidates import CutParts, find_object
from surface_sos_ns.masks.provider import PlainPhotos
from surface_sos_ns.masks.single_images import SelfmentWithoutPoses, keep_pieces, segment
from tests.helpers.ball_views import iou

SHAPE = (18, 24)


def box(top: int, left: int, height: int, width: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def grid(*regions: np.ndarray, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Features of patches: an own direction for each region, the last one given winning, and for the rest."""
    which = np.zeros(regions[0].shape, int)
    for number, region in enumerate(regions, 1):
        which[region] = number
    directions = np.eye(8)[which]
    return normalised(directions + np.random.default_rng(seed).normal(0, noise, directions.shape))


# ------------------------------------------------------------------------------------------------ which part it is


def test_cuts_of_parts_are_those_of_the_definition() -> None:
    """Shi and Malik, 2000: cut(A, B) / assoc(A, V) + cut(A, B) / assoc(B, V)."""
    random = np.random.default_rng(0).random((6, 6))
    weights = (random + random.T).astype(np.float32)
    parts = np.array([[[1, 1, 0], [0, 0, 0]], [[0, 1, 0], [1, 0, 1]]], bool)
    expected = []
    for part in parts.reshape(2, 6):
        across = weights[np.ix_(part, ~part)].sum()
        expected.append(across / weights[part].sum() + across / weights[~part].sum())
    np.testing.assert_allclose(CutParts(parts, weights).cuts, expected, rtol=1e-5)


def test_the_first_eigenvector_is_the_second_of_the_whole_graph() -> None:
    weights = affinity(grid(box(4, 6, 6, 8)).reshape(-1, 8))
    first, second = cut_eigenvectors(weights, 2)
    expected = second_eigenvector(weights)
    np.testing.assert_allclose(first * np.sign(first @ expected), expected, atol=1e-4)
    degree = weights.sum(axis=1)
    assert abs(np.sum(degree * first * second)) < 1e-3, "orthogonal in the graph's inner product"


def test_a_part_about_the_middle_is_the_object() -> None:
    truth = box(5, 8, 8, 9)
    found = find_object(grid(truth))
    assert found is not None
    np.testing.assert_array_equal(found, truth)


def test_wall_and_floor_are_no_object_even_where_they_are_the_best_cut() -> None:
    floor, thing = box(10, 0, 8, 24), box(7, 9, 6, 6)
    features = grid(floor, thing)
    first = np.sign(second_eigenvector(affinity(features.reshape(-1, 8)))).reshape(SHAPE)
    assert max(iou(first > 0, floor & ~thing), iou(first < 0, floor & ~thing)) > 0.8, (
        "the best cut is that of the floor"
    )
    found = find_object(features)
    assert found is not None and iou(found, thing) > 0.9


def test_of_two_things_the_one_in_the_middle_is_the_object() -> None:
    central, aside = box(6, 9, 6, 6), box(1, 0, 6, 5)
    found = find_object(grid(central | aside))  # of one kind
    assert found is not None
    np.testing.assert_array_equal(found, central)


def test_large_grids_come_back_at_their_size() -> None:
    truth = box(16, 32, 20, 28, (51, 97))
    found = find_object(grid(truth))
    assert found is not None and found.shape == truth.shape
    assert iou(found, truth) > 0.95


@pytest.mark.parametrize("shape", [(6, 8), (1, 9), (1, 2), (1, 1)])
def test_a_photo_of_one_appearance_is_no_error(shape: tuple[int, int]) -> None:
    """Whatever its size, down to a single patch."""
    same = np.zeros((*shape, 8), np.float32)
    same[..., 0] = 1
    found = find_object(same)
    assert found is None or found.shape == shape


# ------------------------------------------------------------------------------------------------- what is kept


def test_pieces_that_have_nothing_of_the_object_are_dropped() -> None:
    main, touched, other = box(2, 2, 6, 6), box(2, 10, 6, 3), box(12, 16, 4, 4)
    odds = np.where(main | touched | other, 2.0, -1.0).astype(np.float32)
    part = main | box(2, 10, 2, 3)  # 36 and 6 patches
    kept = keep_pieces(odds, part)
    np.testing.assert_array_equal(kept > 0, main | touched)
    np.testing.assert_array_equal(kept[other], -2.0)
    np.testing.assert_array_equal(kept[~other], odds[~other])
    assert not (keep_pieces(odds, box(17, 0, 1, 1)) > 0).any(), "a part that is nowhere in it"


@pytest.mark.seconds(4)
@pytest.mark.parametrize("shared", [True, False])
def test_a_ragged_part_becomes_the_whole_object(shared: bool) -> None:
    truths = [box(5, 6 + index, 8, 9) for index in range(4)]
    features = [grid(truth, noise=0.2, seed=index) for index, truth in enumerate(truths)]
    parts = [truth & (np.random.default_rng(index).random(SHAPE) < 0.6) for index, truth in enumerate(truths)]
    for odds, truth, part in zip(segment(features, parts, shared=shared), truths, parts, strict=True):
        assert iou(part, truth) < 0.7
        assert iou(odds > 0, truth) > 0.95


# ---------------------------------------------------------------------------------------------------- whole photos


def made_up_photo(index: int, colour: tuple[int, int, int], ground: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """A disc of a colour near the middle of a noisy ground (90, 120, 3), and where it is."""
    random = np.random.default_rng(index)
    row, column = np.mgrid[:90, :120]
    truth = np.hypot(row - 45 - 4 * index, column - 55 - 5 * index) < 22
    image = np.where(truth[..., None], colour, ground) + random.normal(0, 8, (90, 120, 3))
    return np.clip(image, 0, 255).astype(np.uint8), truth


def plain(images: list[np.ndarray]) -> PlainPhotos:
    files = [Path(f"{index}.png") for index in range(len(images))]
    return PlainPhotos(files, images, [(image.shape[1], image.shape[0]) for image in images])


RED, BLUE, GREEN = (200, 40, 30), (30, 60, 190), (50, 140, 60)


@pytest.mark.seconds(6)
def test_photos_of_different_things() -> None:
    """With the descriptor; what is the object in one photo is the ground in another."""
    made = [made_up_photo(index, *colours) for index, colours in enumerate([(RED, GREEN), (GREEN, RED), (BLUE, RED)])]
    provider = SelfmentWithoutPoses("descriptor")
    provider.check()
    found = provider.plain_masks(plain([image for image, _ in made]), lambda words: None)
    for mask, (_, truth), confidence in zip(found.masks, made, found.confidence, strict=True):
        assert mask is not None and mask.shape == truth.shape
        assert iou(mask > 0.5, truth) > 0.9
        assert 0.5 < confidence <= 1


@pytest.mark.seconds(6)
def test_a_single_photo_and_one_of_one_colour() -> None:
    image, truth = made_up_photo(0, RED, GREEN)
    provider = SelfmentWithoutPoses("descriptor")
    alone = provider.plain_masks(plain([image]), lambda words: None)
    assert alone.masks[0] is not None and iou(alone.masks[0] > 0.5, truth) > 0.9
    both = provider.plain_masks(plain([image, np.full((40, 30, 3), 90, np.uint8)]), lambda words: None)
    assert both.masks[0] is not None and iou(both.masks[0] > 0.5, truth) > 0.9
