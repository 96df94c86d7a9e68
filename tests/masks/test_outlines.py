"""Outlines of coarse patches on the descriptor's finer ones."""

from pathlib import Path

import numpy as np

from surface_sos_ns.masks.outlines import refine_outlines
from surface_sos_ns.masks.patch_grid import enlarged
from surface_sos_ns.masks.provider import Photos
from tests.helpers.ball_photos import looking_at_origin


def discs() -> tuple[Photos, list[np.ndarray]]:
    """Three photos of a reddish disc on a greenish ground, with noise."""
    generator = np.random.default_rng(0)
    images, truths = [], []
    row, column = np.mgrid[:240, :320]
    for view in range(3):
        truth = np.hypot(row - 120, column - 140 - 20 * view) < 50
        colour = np.where(truth[..., None], [170, 80, 70], [90, 150, 90]) + 6 * generator.standard_normal((240, 320, 3))
        images.append(np.clip(colour, 0, 255).astype(np.uint8))
        truths.append(truth)
    return Photos(
        [Path(f"{view}.png") for view in range(3)], images, looking_at_origin(3, 320, 240), [(320, 240)] * 3
    ), truths


def shares(truth: np.ndarray, patch: int) -> np.ndarray:
    """Part of each patch of so many pixels that lies on the object."""
    return truth.reshape(240 // patch, patch, 320 // patch, patch).mean(axis=(1, 3))


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    return (mask & truth).sum() / (mask | truth).sum()


def test_coarse_outlines_follow_the_colours():
    photos, truths = discs()
    coarse = [6 * shares(truth, 20) - 3 for truth in truths]  # sure of whole patches only, as networks are
    for before, after, truth in zip(coarse, refine_outlines(photos, coarse), truths, strict=True):
        assert after.shape == (60, 80)
        assert overlap(enlarged(before, (240, 320)) > 0.5, truth) < 0.94
        assert overlap(enlarged(after, (240, 320)) > 0.5, truth) > 0.95


def test_colours_do_not_overrule_a_sure_network():
    photos, truths = discs()
    one_missing = [np.where(shares(truth, 20) > 0.5, 6.0, -6.0) for truth in truths]
    one_missing[0][:] = -6.0  # the network sees no object in the first photo, where there is the same disc
    after = refine_outlines(photos, one_missing)
    assert not (after[0] > 0).any()
    assert (after[1] > 0).any()


def test_patches_as_fine_as_the_descriptors_stay():
    photos, truths = discs()
    odds = [np.where(shares(truth, 4) > 0.5, 1.0, -1.0) for truth in truths]
    for before, after in zip(odds, refine_outlines(photos, odds), strict=True):
        assert after is before
