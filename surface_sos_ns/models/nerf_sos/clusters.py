"""The object and its surroundings as clusters of rendered segmentation codes, found once over all views (NeRF-SOS).

Codes are normalised, as in the losses that train them. Clusters are numbered by the share of pixels that they have, the
largest first, so that a number means the same in all views and for every seed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

__all__ = ["Clusters", "fit_clusters"]

RESTARTS = 10
"""Starts of K-means, of which the best is kept."""


class Clusters(nn.Module):
    """K clusters of codes, and which of them is the object; empty until a fitted state is loaded.

    Args:
        count: K, at least 2.
        channels: C of the codes.

    Attributes:
        centres: (K, C) means of the codes' directions.
        shares: (K,) of the pixels, descending, adding up to 1.
        foreground: () int64, the number of the object's cluster; -1 until it is chosen.

    Raises:
        ValueError: there are fewer than two clusters.
    """

    centres: Tensor
    shares: Tensor
    foreground: Tensor

    def __init__(self, count: int, channels: int) -> None:
        super().__init__()
        if count < 2:
            raise ValueError(f"An object and its surroundings are 2 clusters at least, got {count}.")
        self.register_buffer("centres", torch.zeros(count, channels))
        self.register_buffer("shares", torch.zeros(count))
        self.register_buffer("foreground", torch.tensor(-1))

    @property
    def fitted(self) -> bool:
        """Whether there are centres."""
        return bool(self.shares.any())

    def labels(self, codes: Tensor) -> Tensor:
        """(...) int64 number of the nearest cluster of codes (..., C)."""
        return self._squared_distances(codes).argmin(-1)

    def membership(self, codes: Tensor) -> Tensor:
        """Soft membership (..., K) of codes (..., C), adding up to 1: that of fuzzy c-means, exponent 2.

        It is in proportion to 1 / d^2, d the distance from a cluster's centre: 1 at the centre, 1 / 2 half-way between
        two when others are far.
        """
        return torch.softmax(-self._squared_distances(codes).clamp(min=1e-12).log(), -1)

    def alpha(self, codes: Tensor) -> Tensor:
        """Soft membership (...) of codes (..., C) in the object's cluster, against the nearest other one.

        It is over 1 / 2 where the object's cluster is the nearest, however many clusters there are.

        Raises:
            ValueError: the object's cluster has not been chosen.
        """
        if self.foreground < 0:
            raise ValueError("Which cluster is the foreground has not been chosen.")
        membership = self.membership(codes)
        own = membership[..., self.foreground]
        others = membership.index_fill(-1, self.foreground.reshape(1), 0.0).amax(-1)
        return own / (own + others)

    def _squared_distances(self, codes: Tensor) -> Tensor:
        return (normalize(codes, dim=-1)[..., None, :] - self.centres).square().sum(-1)


def fit_clusters(codes: Tensor, weights: Tensor | None, count: int, seed: int) -> Clusters:
    """K-means over the codes of all views.

    Args:
        codes: (N, C) rendered segmentation codes.
        weights: (N,) how many pixels each stands for, or how opaque its ray is; None for 1 each.
        count: K, at least 2.
        seed: of the starts. It matters only where clusters are hardly separate; the order of the codes never does.

    Returns:
        The clusters, on the CPU; which of them is the foreground is not chosen yet.

    Raises:
        ValueError: fewer than two clusters are asked for, codes are not finite, or there are fewer different codes than
            clusters, as after a collapse of the training.
    """
    from sklearn.cluster import KMeans

    clusters = Clusters(count, codes.shape[-1])
    if not codes.isfinite().all():
        raise ValueError("Segmentation codes are not finite.")
    directions = normalize(codes.detach().double(), dim=-1).cpu().numpy()
    weight = np.ones(len(codes)) if weights is None else weights.detach().double().cpu().numpy()
    order = np.lexsort((weight, *directions.T))
    directions, weight = directions[order], weight[order]
    different = len(np.unique(directions.round(6), axis=0))
    if different < count:
        raise ValueError(f"There are {different} different segmentation codes, too few for {count} clusters.")

    found = KMeans(count, n_init=RESTARTS, random_state=seed).fit(directions, sample_weight=weight)
    shares = np.bincount(found.labels_, weight, count) / weight.sum()
    ranking = np.lexsort((*found.cluster_centers_.T, -shares))
    clusters.centres.copy_(torch.from_numpy(found.cluster_centers_[ranking]))
    clusters.shares.copy_(torch.from_numpy(shares[ranking]))
    return clusters
