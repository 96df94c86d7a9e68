"""Which cluster is the object, in photos whose object is known."""

from __future__ import annotations

import math

import pytest
import torch

from surface_sos_ns.models.nerf_sos.foreground import Places, foreground_by_place, foreground_by_token, places


def test_the_class_token_names_the_cluster_that_is_like_it() -> None:
    x, y = torch.eye(2)
    features = torch.stack([torch.stack([5 * x, 0.1 * y]), torch.stack([x, x + y])])
    tokens = torch.stack([0.2 * y, 3 * (x + y)])
    assert foreground_by_token(features, tokens, torch.ones(2, 2)) == 1
    assert foreground_by_token(features.flip(1), tokens, torch.ones(2, 2)) == 0


def test_photos_count_by_the_pixels_of_a_cluster_in_them() -> None:
    x, y = torch.eye(2)
    features = torch.stack([torch.stack([x, y]), torch.stack([y, x])])
    tokens = torch.stack([x, x])  # photo 0 speaks for cluster 0, photo 1 for cluster 1
    assert foreground_by_token(features, tokens, torch.tensor([[9.0, 9.0], [1.0, 1.0]])) == 0
    assert foreground_by_token(features, tokens, torch.tensor([[1.0, 1.0], [9.0, 9.0]])) == 1


def test_a_cluster_that_a_photo_does_not_show_has_no_say_there() -> None:
    x, y = torch.eye(2)
    features = torch.stack([torch.stack([x, torch.full((2,), math.nan)]), torch.stack([0.5 * x, x + y])])
    tokens = torch.stack([x, y])
    # means: cluster 0 (10 * 1 + 10 * 0) / 20, cluster 1 cos 45 degrees
    assert foreground_by_token(features, tokens, torch.tensor([[10.0, 0.0], [10.0, 10.0]])) == 1
    # without the second photo cluster 1 is nowhere
    assert foreground_by_token(features[:1], tokens[:1], torch.tensor([[10.0, 0.0]])) == 0
    with pytest.raises(ValueError, match="No pixels"):
        foreground_by_token(features, tokens, torch.zeros(2, 2))


def test_places_by_hand() -> None:
    """3 x 5 pixels, the middle one of cluster 1 and the left column of cluster 2."""
    label = torch.zeros(3, 5, dtype=torch.long)
    label[1, 2], label[:, 0] = 1, 2
    found = places([label], 4)
    assert found.pixels.tolist() == [11, 1, 3, 0]
    assert found.border.tolist() == pytest.approx([9 / 12, 0.0, 3 / 12, 0.0])
    assert float(found.distance[1]) == 0.0
    assert float(found.distance[2]) == pytest.approx((1 + 1 + 1 / math.sqrt(2)) / 3)  # two corners, one mid-side


def test_photos_of_different_sizes_are_pooled() -> None:
    wide, tall = torch.zeros(2, 8, dtype=torch.long), torch.ones(9, 2, dtype=torch.long)
    found = places([wide, tall], 2)
    assert found.pixels.tolist() == [16, 18]
    assert found.border.tolist() == pytest.approx([16 / 34, 18 / 34])


@pytest.mark.parametrize("object_number", [0, 1, 2])
def test_the_object_in_the_middle_is_the_foreground(object_number: int) -> None:
    """A disc off the centre that touches the border, on a table, before a wall; whatever the clusters' numbers."""
    row, column = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    disc = torch.hypot(row - 35.0, column - 45.0) < 25
    table = (row > 30) & ~disc
    others = [number for number in range(3) if number != object_number]
    label = torch.full((60, 80), others[0])
    label[table], label[disc] = others[1], object_number
    assert places([label], 3).border[object_number] > 0
    assert foreground_by_place(places([label], 3)) == object_number


def test_clusters_without_pixels_are_no_foreground() -> None:
    label = torch.zeros(6, 6, dtype=torch.long)
    assert foreground_by_place(places([label], 2)) == 0
    nowhere = Places(torch.full((2,), math.nan), torch.zeros(2), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="No pixels"):
        foreground_by_place(nowhere)
