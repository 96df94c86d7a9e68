"""The published forms of Selfment's steps, against values worked out by hand and scenes whose answer is known."""

import numpy as np
import pytest
import torch

from surface_sos_ns.masks.features import normalised
from surface_sos_ns.masks.methods import make_provider
from surface_sos_ns.masks.normalised_cut import FLOOR, binary_affinity, strongest_component
from surface_sos_ns.masks.patch_head import PatchHead, dice_loss, supervised_contrastive_loss
from surface_sos_ns.masks.patch_optimisation import PatchRules, neighbour_links, optimise_patches
from surface_sos_ns.masks.provider import MaskError
from surface_sos_ns.masks.segmentation_head import predict, train_head
from surface_sos_ns.masks.selfment import Selfment, cut_photos
from surface_sos_ns.masks.selfment_variant import PUBLISHED, SelfmentVariant
from tests.helpers.ball_photos import ball_photos

PHOTO_BY_PHOTO = PUBLISHED.patch_rules


def test_binary_affinity_by_hand():
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    # Cosines: 0.6, 0, -1; 0.8, -0.6; 0.
    alike = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(binary_affinity(vectors, 0.2), np.where(alike, np.float32(1), np.float32(FLOOR)))


def test_strongest_component_by_hand():
    side = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1]], bool)  # three; the second touches the first at a corner
    cut = np.array([[0.1, 0.2, 9, 9], [9, 9, -0.3, 0.1], [0.2, 9, 9, 0.1]])
    expected = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(strongest_component(side, cut), expected)
    nothing = np.zeros((2, 2), bool)
    np.testing.assert_array_equal(strongest_component(nothing, np.ones((2, 2))), nothing)


def test_component_of_the_strongest_entry_drops_what_lies_apart():
    truth = np.zeros((12, 16), bool)
    truth[3:9, 4:10] = True
    apart = np.zeros_like(truth)
    apart[3:5, 13:15] = True  # looks like the object
    generator = np.random.default_rng(0)
    grid = normalised(
        np.where((truth | apart)[..., None], [1.0, 0.1], [0.1, 1.0]) + 0.02 * generator.standard_normal((12, 16, 2))
    )
    near = np.where(truth, 1.0, np.where(apart, 0.5, -1.0)).astype(np.float32)
    (whole,) = cut_photos([grid], [near], [near])
    (component,) = cut_photos([grid], [near], [near], SelfmentVariant(strongest_component=True))
    np.testing.assert_array_equal(whole, truth | apart)
    np.testing.assert_array_equal(component, truth)


def test_means_of_a_photo_by_hand():
    grid = np.array([[[1, 0], [0.8, 0.6]], [[0, 1], [0, 1]]], np.float32)
    labels = np.array([[True, True], [False, False]])
    ours, theirs = np.array([0.9, 0.3]) / np.hypot(0.9, 0.3), np.array([0.0, 1.0])
    cosines = grid @ np.stack([ours, theirs]).T
    width = 1 / (2 * (1 - cosines[0, :, 0].mean()))  # the background's patches are all alike
    expected = np.clip(width * (cosines[..., 0] - cosines[..., 1]), -3, 3)
    found = optimise_patches([grid], [labels], rules=PatchRules(shared=False, coherence=0.0, passes=1))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_photos_do_not_share_their_means():
    """Two photos whose looks have changed places: shared prototypes cannot tell them apart."""
    row, column = np.mgrid[:20, :24]
    truth = np.hypot(row - 10, column - 12) < 6
    generator = np.random.default_rng(1)
    one, other = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    features = [
        normalised(np.where(truth[..., None], *looks) + 0.05 * generator.standard_normal((20, 24, 3)))
        for looks in ((one, other), (other, one))
    ]
    start = [truth ^ (generator.random(truth.shape) < 0.15) for _ in features]
    for grid in optimise_patches(features, start, rules=PHOTO_BY_PHOTO):
        np.testing.assert_array_equal(grid > 0, truth)
    shared = optimise_patches(features, start, rules=PatchRules(coherence=0.0))
    assert any(((grid > 0) != truth).mean() > 0.1 for grid in shared)


def test_photo_without_object_keeps_its_labels():
    grid = normalised(np.random.default_rng(2).standard_normal((5, 6, 3)))
    labels = [np.zeros((5, 6), bool), np.arange(30).reshape(5, 6) < 12]
    found = optimise_patches([grid, grid], labels, rules=PHOTO_BY_PHOTO)
    assert not (found[0] > 0).any()


def test_dice_loss_by_hand():
    probability = torch.tensor([[[1.0, 0.5], [0.0, 0.0]], [[0.2, 0.0], [0.0, 0.0]]])
    wanted = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    # (2 * 1.5 + 1) / (1.5 + 2 + 1), and 1 / (0.2 + 0 + 1) for the grid without object
    assert dice_loss(probability, wanted).item() == pytest.approx(1 - (4 / 4.5 + 1 / 1.2) / 2, rel=1e-6)
    assert dice_loss(wanted, wanted).item() == pytest.approx(0)


def test_supervised_contrastive_loss_by_hand():
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    labels = torch.tensor([True, True, False])  # the third has no partner and does not count
    cosine = {(0, 1): 0.6, (0, 2): 0.0, (1, 2): 0.8}
    power = {pair: np.exp(value / 0.5) for pair, value in cosine.items()}
    first = -np.log(power[0, 1] / (power[0, 1] + power[0, 2]))
    second = -np.log(power[0, 1] / (power[0, 1] + power[1, 2]))
    loss = supervised_contrastive_loss(embeddings, labels, 0.5)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-5)
    assert supervised_contrastive_loss(embeddings[:1], labels[:1]).item() == 0


def test_supervised_contrastive_loss_has_finite_gradients():
    vectors = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    supervised_contrastive_loss(torch.nn.functional.normalize(vectors, dim=1), torch.arange(6) < 3).backward()
    assert vectors.grad is not None and torch.isfinite(vectors.grad).all() and vectors.grad.abs().sum() > 0


@pytest.mark.seconds(5)
def test_published_head_learns_what_single_entries_do_not_tell():
    generator = np.random.default_rng(3)
    grids, truths = [], []
    for _ in range(5):
        truth = generator.random((16, 18)) < 0.3
        first = generator.random(truth.shape) < 0.5
        looks = np.stack([first, first ^ truth, np.ones_like(first)], axis=-1) * 2.0 - 1  # exclusive or
        grids.append(normalised(looks + 0.2 * generator.standard_normal(looks.shape)))
        truths.append(truth)
    noisy = [np.where(generator.random(truth.shape) < 0.1, ~truth, truth).astype(float) for truth in truths]
    links = [neighbour_links(grid) for grid in grids]
    head = train_head(grids[:4], noisy[:4], links[:4], kind=PatchHead, steps=200, batch=4)
    assert ((predict(head, grids[4]) > 0) == truths[4]).mean() > 0.97


@pytest.mark.seconds(5)
def test_published_variant_finds_the_ball():
    photos, truths = ball_photos()
    found = make_provider("selfment", {"features": "descriptor", "variant": "published"}).masks(photos, lambda _: None)
    for mask, truth in zip(found.masks, truths, strict=True):
        assert mask is not None
        assert (truth & (mask > 0.5)).sum() / (truth | (mask > 0.5)).sum() > 0.7


def test_variants_have_names():
    assert Selfment("descriptor", variant="published").variant is PUBLISHED
    with pytest.raises(MaskError, match="is called other; expected one of capture, published"):
        Selfment("descriptor", variant="other")
    with pytest.raises(MaskError, match="--variant belongs to --method selfment"):
        make_provider("prior", {"variant": "published"})
