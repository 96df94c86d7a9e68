"""Pixels of strided patches: in the photo, evenly spaced, anywhere."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surface_sos_ns.sampling.patches import fitting_stride, patch_batch, patch_pixels


def test_the_papers_patch_spans_379_pixels() -> None:
    assert fitting_stride(379, 600, 64, 6) == 6
    assert fitting_stride(378, 600, 64, 6) == 5
    assert fitting_stride(600, 64, 64, 6) == 1
    assert fitting_stride(4000, 3000, 64, 6) == 6  # never larger than asked for


@pytest.mark.parametrize(("height", "width"), [(63, 600), (600, 63), (10, 10)])
def test_a_photo_that_is_too_small_is_named(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{width} x {height} pixels is too small.*64 pixels"):
        fitting_stride(height, width, 64, 6)
    with pytest.raises(ValueError, match="too small"):
        patch_pixels(height, width, 64, 6)


@pytest.mark.parametrize(("side", "stride"), [(1, 6), (0, 6), (64, 0)])
def test_a_patch_needs_a_side_and_a_stride(side: int, stride: int) -> None:
    with pytest.raises(ValueError, match=f"got {side} and {stride}"):
        fitting_stride(600, 600, side, stride)


@given(st.integers(2, 60), st.integers(2, 60), st.integers(2, 12), st.integers(1, 9), st.integers(0, 1000))
def test_the_stride_is_the_largest_that_fits(height: int, width: int, side: int, stride: int, seed: int) -> None:
    fitting = [s for s in range(1, stride + 1) if (side - 1) * s < min(height, width)]
    if not fitting:
        with pytest.raises(ValueError, match="too small"):
            patch_pixels(height, width, side, stride)
        return
    assert fitting_stride(height, width, side, stride) == max(fitting)
    pixels = patch_pixels(height, width, side, stride, torch.Generator().manual_seed(seed))
    assert pixels.shape == (side * side, 2) and pixels.dtype == torch.int64
    assert pixels.min() >= 0 and pixels[:, 0].max() < height and pixels[:, 1].max() < width
    grid = pixels.view(side, side, 2)
    steps = torch.tensor([max(fitting), 0])
    assert (grid.diff(dim=0) == steps).all() and (grid.diff(dim=1) == steps.flip(0)).all()


def test_every_place_is_as_likely_as_any_other() -> None:
    """A patch of 3 x 3 pixels at stride 2 spans 5; in 7 x 6 pixels it has 3 x 2 places."""
    generator = torch.Generator().manual_seed(0)
    count = 3000
    corners = Counter(tuple(patch_pixels(7, 6, 3, 2, generator)[0].tolist()) for _ in range(count))
    assert set(corners) == {(row, column) for row in range(3) for column in range(2)}
    expected = count / 6
    chi_square = sum((seen - expected) ** 2 / expected for seen in corners.values())
    assert chi_square < 20.5  # 99.9 % quantile at 5 degrees of freedom


def test_a_batch_has_patches_of_different_photos_of_their_own_sizes() -> None:
    sizes = [(40, 50), (8, 9), (30, 12), (9, 100)]
    seen = set()
    for seed in range(30):
        batch = patch_batch(sizes, 3, 8, 4, torch.Generator().manual_seed(seed))
        assert batch.shape == (3, 64, 3)
        photos = batch[:, 0, 0].tolist()
        assert len(set(photos)) == 3
        seen.update(photos)
        for photo, patch in zip(photos, batch, strict=True):
            assert (patch[:, 0] == photo).all()
            assert (patch[:, 1:] < torch.tensor(sizes[photo])).all() and (patch >= 0).all()
            assert int(patch[1, 2] - patch[0, 2]) == {0: 4, 1: 1, 2: 1, 3: 1}[photo]
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize(("photos", "patches"), [(1, 1), (1, 2), (4, 1), (4, 5)])
def test_a_batch_needs_two_photos_and_no_more_patches_than_photos(photos: int, patches: int) -> None:
    with pytest.raises(ValueError, match=f"{patches} patches.*{photos}, the number of photos"):
        patch_batch([(20, 20)] * photos, patches, 4, 2)
