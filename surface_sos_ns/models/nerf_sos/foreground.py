"""Which cluster of pixels is the object: by the class token of a vision transformer, or by its place in the photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

__all__ = ["Places", "foreground_by_place", "foreground_by_token", "places"]


def foreground_by_token(features: Tensor, tokens: Tensor, pixels: Tensor) -> int:
    """The cluster whose patches are most like the class token, which sums up what a photo shows.

    Args:
        features: (V, K, D) mean patch features of the clusters in each of V photos; anything where there are none.
        tokens: (V, D) class tokens of the photos.
        pixels: (V, K) how many pixels a cluster has in each photo.

    Returns:
        The number of the cluster with the largest mean cosine over its pixels.

    Raises:
        ValueError: no cluster has pixels.
    """
    cosines = torch.where(pixels > 0, cosine_similarity(features, tokens[:, None], dim=-1), 0.0)
    return _best((cosines * pixels).sum(0) / pixels.sum(0), pixels.sum(0) > 0)


class Places(NamedTuple):
    """Where the pixels of K clusters lie in the photos."""

    distance: Tensor  # (K,) mean distance from the picture's centre, 0 there and 1 in its corners
    border: Tensor  # (K,) share of the pixels along the pictures' borders that belong to the cluster
    pixels: Tensor  # (K,) int64 number of pixels


def places(labels: Sequence[Tensor], count: int) -> Places:
    """Places of `count` clusters in V photos, pooled, of their label maps (H, W) int64 of any sizes."""
    distance, border, pixels = torch.zeros(3, count, dtype=torch.float64)
    for label in labels:
        flat = label.flatten().cpu()
        row, column = (torch.linspace(-1, 1, length, dtype=torch.float64) for length in label.shape)
        away = torch.hypot(row[:, None], column) / 2**0.5
        edge = torch.zeros(label.shape, dtype=torch.bool)
        edge[[0, -1]] = edge[:, [0, -1]] = True
        distance += torch.bincount(flat, away.flatten(), count)
        border += torch.bincount(flat[edge.flatten()], minlength=count)
        pixels += torch.bincount(flat, minlength=count)
    return Places(distance / pixels, border / border.sum(), pixels.long())


def foreground_by_place(place: Places) -> int:
    """The cluster that lies nearest to the pictures' centres and touches their borders least.

    A capture is taken around its object: that stays in the middle, while the surroundings reach the border.

    Returns:
        The number of the cluster with the smallest sum of distance and border share.

    Raises:
        ValueError: no cluster has pixels.
    """
    return _best(-(place.distance + place.border), place.pixels > 0)


def _best(score: Tensor, exists: Tensor) -> int:
    """The number of the cluster with the highest score (K,), of those that exist (K,) bool."""
    if not exists.any():
        raise ValueError("No pixels belong to any cluster.")
    return int(torch.where(exists, score, -torch.inf).argmax())
