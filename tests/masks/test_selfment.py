"""Selfment's stages, each against hand-made input whose answer is known, and all of them on a made-up capture."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.linalg
import torch

from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from surface_sos_ns.masks.centre_prior import distance_from_object, rarity_elsewhere
from surface_sos_ns.masks.features import ColourTexture, normalised
from surface_sos_ns.masks.normalised_cut import affinity, object_side, second_eigenvector
from surface_sos_ns.masks.patch_grid import doubled, enlarged, halved
from surface_sos_ns.masks.patch_optimisation import (
    PatchRules,
    neighbour_links,
    optimise_patches,
    spread_over_neighbours,
)
from surface_sos_ns.masks.patch_vote import near_place, refine_by_vote, refine_until_agreed
from surface_sos_ns.masks.place import object_place
from surface_sos_ns.masks.provider import MaskError, Photos
from surface_sos_ns.masks.segmentation_head import (
    contrastive_loss,
    predict,
    region_consistency_loss,
    train_head,
)
from surface_sos_ns.masks.selfment import Selfment, cut_photos
from surface_sos_ns.utils.image_io import read_image
from tests.helpers.ball_photos import ball_photos
from tests.helpers.ball_views import iou
from tests.helpers.truth import load_capture

# ------------------------------------------------------------------------------------------------ normalised cut


def test_two_cliques_joined_weakly_are_split_exactly():
    side = np.arange(30) < 11
    weights = np.where(side[:, None] == side[None, :], 1.0, 0.01)
    order = np.random.default_rng(0).permutation(30)
    cut = second_eigenvector(weights[np.ix_(order, order)])
    signs = np.sign(cut) * np.sign(cut[side[order]][0])
    np.testing.assert_array_equal(signs, np.where(side[order], 1, -1))
    np.testing.assert_array_equal(object_side(cut, side[order].astype(float)), side[order])
    np.testing.assert_array_equal(object_side(cut, -side[order].astype(float)), ~side[order])


def test_second_eigenvector_is_that_of_the_generalised_problem():
    random = np.random.default_rng(1).random((40, 40))
    weights = random + random.T
    degree = np.diag(weights.sum(axis=1))
    values, vectors = scipy.linalg.eigh(degree - weights, degree)  # normalised so that y' D y = 1
    cut = second_eigenvector(weights)
    np.testing.assert_allclose(cut * np.sign(cut @ vectors[:, 1]), vectors[:, 1], atol=1e-5)
    assert cut @ (degree - weights) @ cut == pytest.approx(values[1], abs=1e-6)
    assert cut @ degree @ cut == pytest.approx(1)
    assert degree.diagonal() @ cut == pytest.approx(0, abs=1e-6)


def test_patch_without_affinity_is_an_error():
    weights = np.ones((4, 4))
    weights[2] = weights[:, 2] = 0
    with pytest.raises(ValueError, match="no affinity"):
        second_eigenvector(weights)


def test_affinity_by_hand():
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    # 1 - cosine: 0.4, 1, 0.2 off the diagonal; their mean over all nine pairs is 3.2 / 9.
    expected = np.exp(-2 * np.array([[0, 0.4, 1], [0.4, 0, 0.2], [1, 0.2, 0]]) / (3.2 / 9))
    np.testing.assert_allclose(affinity(vectors, 2.0), expected, rtol=1e-5)


def test_cut_of_large_grids_comes_back_at_their_size():
    truth = np.zeros((51, 97), bool)
    truth[16:36, 32:60] = True  # whole blocks of four, as the grid is halved twice
    grid = np.where(truth[..., None], [1.0, 0.1], [0.1, 1.0]).astype(np.float32)
    near = np.where(truth, 1.0, -1.0).astype(np.float32)
    (side,) = cut_photos([normalised(grid)], [near], [near])
    np.testing.assert_array_equal(side, truth)


# --------------------------------------------------------------------------------- Iterative Patch Optimisation


def two_looks(truth: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Features of a grid whose object and background look different, but for noise."""
    centre = np.where(truth[..., None], np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    return normalised(centre + noise * np.random.default_rng(seed).standard_normal((*truth.shape, 3)))


def disc(rows: int = 24, columns: int = 30, radius: float = 7.0) -> np.ndarray:
    row, column = np.mgrid[:rows, :columns]
    return np.hypot(row - rows / 2, column - columns / 2) < radius


def test_isolated_wrong_patches_are_flipped_and_the_object_stays():
    truth = disc()
    features = [two_looks(truth, 0.1, seed) for seed in range(3)]
    generator = np.random.default_rng(7)
    start = [truth ^ (generator.random(truth.shape) < 0.15) for _ in features]
    for grid in optimise_patches(features, start):
        np.testing.assert_array_equal(grid > 0, truth)


def test_other_photos_correct_one_that_is_all_wrong():
    truth = disc()
    features = [two_looks(truth, 0.1, seed) for seed in range(5)]
    start = [truth] * 4 + [~truth]
    np.testing.assert_array_equal(optimise_patches(features, start)[4] > 0, truth)


def test_odd_patch_goes_with_its_neighbours_only_if_they_are_coherent():
    truth = disc()
    looks = truth.copy()
    looks[12, 15] = False  # one patch in the middle that looks like the background, a little
    features = two_looks(truth, 0.05, 0)
    features[12, 15] = normalised(np.array([0.62, 0.78, 0.0]))
    assert optimise_patches([features], [looks])[0][12, 15] > 0
    assert optimise_patches([features], [looks], rules=PatchRules(coherence=0.0))[0][12, 15] < 0


def test_prior_decides_where_looks_do_not():
    truth = disc()
    twin = np.zeros_like(truth)
    twin[:4, :4] = True  # looks like the object and lies elsewhere
    features = [two_looks(truth | twin, 0.1, 0)]
    prior = [np.where(twin, -6.0, 0.0)]
    assert (optimise_patches(features, [truth])[0] > 0)[twin].all()
    np.testing.assert_array_equal(optimise_patches(features, [truth], prior)[0] > 0, truth)


def test_one_side_without_patches_is_an_error():
    with pytest.raises(ValueError, match="0 patches"):
        optimise_patches([two_looks(disc(), 0.1, 0)], [np.zeros((24, 30), bool)])


def test_spreading_by_hand():
    links = np.zeros((4, 1, 3), np.float32)
    links[0, 0, :2] = [1.0, 0.0]  # the first two patches are linked, the third is alone
    spread = spread_over_neighbours(np.array([[1.0, -1.0, 5.0]]), links, coherence=0.5, rounds=1)
    np.testing.assert_allclose(spread, [[0.0, 0.0, 5.0]], atol=1e-4)
    everywhere = np.ones((4, 5, 6), np.float32)
    np.testing.assert_allclose(spread_over_neighbours(np.full((5, 6), 2.0), everywhere), 2.0, atol=1e-4)


def test_links_end_at_edges():
    grid = np.zeros((4, 6, 2), np.float32)
    grid[:, :3, 0] = 1
    grid[:, 3:, 1] = 1
    links = neighbour_links(grid)
    np.testing.assert_array_equal(links[0, :, 5], 0)  # nothing to the right
    assert (links[0, :, [0, 1, 3, 4]] > 0.99).all()
    assert (links[0, :, 2] < 0.05).all()


# ----------------------------------------------------------------------------------------------------------- vote


@pytest.mark.seconds(8)
@pytest.mark.parametrize("taken_along, held", [(12, "several"), (6, "one")])
def test_another_vote_is_held_while_masks_disagree_with_the_last(taken_along: int, held: str):
    """The floor around the ball is taken for a part of it, in all photos or in half of them."""
    photos, truths = ball_photos()
    features = ColourTexture().features(photos.images)

    def patches(mask: np.ndarray) -> np.ndarray:
        return cv2.resize(mask.astype(np.float32), features[0].shape[1::-1], interpolation=cv2.INTER_AREA) > 0.5

    row, column = np.mgrid[:72, :96] + 0.5
    odds = []
    for view, truth in enumerate(truths):
        rays = photos.views.rays(view, np.stack([column.ravel(), row.ravel()], axis=-1))
        start = photos.views.centres()[view]
        down = (-0.35 - start[2]) / rays[:, 2]
        floor = (np.hypot(*(start + rays * down[:, None])[:, :2].T) < 0.5) & (down > 0)
        odds.append(np.where(patches(truth | floor.reshape(72, 96) & (view < taken_along)), 3.0, -3.0))
    sphere = ObjectSphere(np.zeros(3), 0.8)
    near = near_place(distance_from_object(photos, sphere, features))
    _, one = refine_by_vote(photos, features, odds, near, sphere)
    _, last = refine_until_agreed(photos, features, odds, near, sphere)
    wanted = [patches(truth) for truth in truths]
    overlap = [
        np.mean([iou(grid > 0, mask) for grid, mask in zip(grids, wanted, strict=True)]) for grids in (one, last)
    ]
    if held == "one":
        np.testing.assert_array_equal(last, one)
        assert overlap[0] > 0.85
    else:
        assert overlap[1] > overlap[0] + 0.05


# ---------------------------------------------------------------------------------------------------------- head


def test_contrastive_loss_by_hand():
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    labels = torch.tensor([True, False, False])
    # Means: object (1, 0); background (0.3, 0.9), of length sqrt(0.9).
    background = np.array([0.3, 0.9]) / np.sqrt(0.9)
    losses = []
    for vector, ours in zip(embeddings.numpy(), labels.numpy(), strict=True):
        to_object, to_background = np.exp(vector @ [1, 0] / 0.5), np.exp(vector @ background / 0.5)
        losses.append(-np.log((to_object if ours else to_background) / (to_object + to_background)))
    assert contrastive_loss(embeddings, labels, 0.5).item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert contrastive_loss(embeddings, torch.tensor([True] * 3)).item() == 0


def test_region_consistency_loss_by_hand():
    probability = torch.tensor([[[0.0, 1.0], [0.5, 1.0]]])
    right = torch.tensor([[[0.2], [1.0]]])
    below = torch.tensor([[[1.0, 0.5]]])
    # right: 0.2 * 1 + 1 * 0.25, below: 1 * 0.25 + 0.5 * 0; four pairs
    assert region_consistency_loss(probability, right, below).item() == pytest.approx(0.7 / 4)


def texture_capture(photos: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features of two looks, object and background, each a mixture of two that only together tell the sides apart."""
    generator = np.random.default_rng(3)
    grids, truths = [], []
    for _ in range(photos):
        truth = disc(radius=5 + 4 * generator.random())
        first = generator.random(truth.shape) < 0.5
        second = first ^ truth  # exclusive or: no single entry says which side it is
        grid = np.stack([first, second, np.ones_like(first)], axis=-1) * 2.0 - 1
        grids.append(normalised(grid + 0.2 * generator.standard_normal(grid.shape)))
        truths.append(truth)
    return grids, truths


@pytest.mark.seconds(5)
def test_head_learns_and_generalises_from_noisy_masks():
    grids, truths = texture_capture(7)
    generator = np.random.default_rng(5)
    noisy = [np.where(generator.random(truth.shape) < 0.1, ~truth, truth).astype(float) for truth in truths]
    links = [neighbour_links(grid) for grid in grids]
    head = train_head(grids[:6], noisy[:6], links[:6], steps=200, batch=4)
    held_out = predict(head, grids[6]) > 0
    assert (held_out == truths[6]).mean() > 0.97
    first, second = (train_head(grids[:6], noisy[:6], links[:6], steps=5, batch=4) for _ in range(2))
    np.testing.assert_array_equal(predict(first, grids[6]), predict(second, grids[6]))


# --------------------------------------------------------------------------------------------------- the capture


def test_distance_from_object_by_hand():
    photos, _ = ball_photos(4)
    sphere = object_place(photos).sphere
    np.testing.assert_allclose(sphere.centre, 0, atol=1e-6)
    (grid, *_) = distance_from_object(photos, ObjectSphere(np.zeros(3), 0.5), [np.zeros((72, 96))] * 4)
    # A ray through a pixel u to the right of the middle passes the centre at 3 sin(atan(u / 100)).
    assert grid[36, 78] == pytest.approx(3 * np.sin(np.arctan(np.hypot(30.5, 0.5) / 100)) / 0.5, rel=1e-4)


def test_rarity_counts_the_ring_where_a_cluster_is_most_frequent():
    distance = np.concatenate([np.zeros(100), np.full(100, 0.6), np.full(200, 2.0)])[None]
    clusters = np.zeros((1, 400), int)
    clusters[0, :50] = 1  # half of the patches at the place
    clusters[0, 100:110] = 1  # a tenth of the nearest ring, none far away
    table = rarity_elsewhere([clusters], [distance])
    ring = np.exp(-0.5 * (0.6 / 0.25) ** 2)  # weight at the place of a patch of the ring, beside 1 in the middle
    here = (50 + 10 * ring) / (100 + 100 * ring)
    expected = np.log([(1 - here + 1e-3) / (1 + 1e-3), (here + 1e-3) / (0.1 + 1e-3)])
    np.testing.assert_allclose(table, expected, rtol=1e-4)


def test_halving_and_doubling():
    grid = np.arange(15.0).reshape(3, 5)
    small = halved(grid)
    np.testing.assert_allclose(small, [[3, 5, 6.5], [10.5, 12.5, 14]])
    assert doubled(small, (3, 5)).shape == (3, 5)
    np.testing.assert_allclose(doubled(small, (3, 5))[:2, :2], 3)
    np.testing.assert_allclose(enlarged(np.full((2, 2), np.log(3.0)), (5, 7)), 0.75, atol=1e-6)


@pytest.fixture(scope="module")
def ball():
    photos, truths = ball_photos()
    lines: list[str] = []
    return photos, truths, Selfment("descriptor").masks(photos, lines.append), lines


@pytest.mark.seconds(5)
def test_ball_is_found_and_its_twin_is_not(ball):
    _, truths, found, lines = ball
    overlaps = []
    for mask, truth in zip(found.masks, truths, strict=True):
        assert mask is not None and mask.shape == truth.shape and mask.dtype == np.float32
        overlaps.append((truth & (mask > 0.5)).sum() / (truth | (mask > 0.5)).sum())
    assert min(overlaps) > 0.8
    assert (found.confidence > 0.6).all() and (found.confidence <= 1).all()
    assert any("colour and texture" in line for line in lines)


@pytest.mark.seconds(4)
def test_equal_seeds_give_equal_masks(ball):
    photos, _, found, _ = ball
    again = Selfment("descriptor").masks(photos, lambda line: None)
    for one, other in zip(found.masks, again.masks, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found.confidence, again.confidence)


def test_cameras_that_look_at_nothing_in_common():
    photos, _ = ball_photos(4)
    away = photos.views.camera_to_world.copy()
    away[:, :, :3] *= np.array([-1, 1, -1])  # turned round
    views = Views(away, *(getattr(photos.views, name) for name in ("fx", "fy", "cx", "cy", "width", "height")))
    with pytest.raises(MaskError, match="do not look at anything in common"):
        Selfment("descriptor").masks(Photos(photos.files, photos.images, views, photos.sizes), lambda line: None)


@pytest.mark.seconds(10)
def test_a_third_of_the_demo_reaches_the_bar(demo_capture: Path):
    frames = json.loads((demo_capture / "transforms.json").read_text())["frames"]
    chosen = list(range(0, len(frames), 3))
    views, _, truth = load_capture(demo_capture)
    files = [demo_capture / frames[index]["file_path"] for index in chosen]
    photos = Photos(files, [read_image(file) for file in files], views.subset(chosen), [(100, 75)] * len(files))
    found = Selfment("descriptor").masks(photos, lambda line: None)
    overlaps = []
    for index, mask in zip(chosen, found.masks, strict=True):
        assert mask is not None
        overlaps.append(iou(cv2.resize(mask, (100, 75)) > 0.5, truth[index]))
    assert np.mean(overlaps) > 0.72
