"""Iterative Patch Optimisation: labels of patches that fit what the patches look like, and one another.

Each pass clusters the patches of either side, over all photos of the capture, into prototypes; the log-odds of a patch
say which side's prototypes explain it better (semantic consistency); they are averaged over neighbours that look alike
(spatial coherence), and their sign is the new label. It ends when few patches change sides. The published form, one
mean a side and photo and no neighbours, is there as well (:class:`PatchRules`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from surface_sos_ns.masks.provider import MaskError

__all__ = ["PatchRules", "Prototypes", "optimise_patches", "spread_over_neighbours"]

OBJECT_PROTOTYPES = 24
BACKGROUND_PROTOTYPES = 48
"""The background is the larger part of a capture and the more varied."""

MAX_CLUSTERED = 6000
"""Patches of one side that are clustered, at most, drawn from all photos."""

MAX_LOG_ODDS = 3.0
"""Bound of the log-odds that a patch gets from its appearance, so that one outlier does not outvote its neighbours."""


@dataclass(frozen=True)
class PatchRules:
    """How labels follow from what patches look like.

    Attributes:
        shared: prototypes of either side are clustered over all photos; else each photo has the mean of either side.
        coherence: share of a patch's log-odds that comes from its neighbours, 0 to under 1.
        passes: at most this many.
    """

    shared: bool = True
    coherence: float = 0.8
    passes: int = 10


@dataclass(frozen=True)
class Prototypes:
    """One side's patches as a mixture of equally wide clusters on the unit sphere (von Mises-Fisher).

    Attributes:
        centres: (K, D) float32 of length 1.
        shares: (K,) float32, adding up to one.
        concentration: the common width, as 1 / (1 - cosine).
    """

    centres: np.ndarray
    shares: np.ndarray
    concentration: float

    @staticmethod
    def cluster(vectors: np.ndarray, count: int, seed: int) -> Prototypes:
        """K-means of vectors (P, D) of length 1 into at most ``count`` prototypes."""
        from sklearn.cluster import KMeans

        count = max(1, min(count, len(vectors) // 4))
        found = KMeans(count, n_init=1, max_iter=25, random_state=seed).fit(vectors)
        centres = found.cluster_centers_
        centres = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
        within = 1 - np.einsum("pd,pd->p", vectors, centres[found.labels_])
        shares = np.bincount(found.labels_, minlength=count) / len(vectors)
        return Prototypes(
            centres.astype(np.float32), shares.astype(np.float32), 1 / max(2 * float(within.mean()), 1e-4)
        )

    def log_density(self, vectors: np.ndarray, concentration: float) -> np.ndarray:
        """(P,) log of the mixture's density at vectors (P, D), but for a constant that all mixtures share."""
        exponent = (vectors @ self.centres.T - 1) * np.float32(concentration)
        return np.log(np.exp(exponent) @ self.shares + 1e-12)


def optimise_patches(
    features: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    prior: Sequence[np.ndarray] | None = None,
    rules: PatchRules = PatchRules(),
    *,
    settled: float = 0.002,
    seed: int = 0,
) -> list[np.ndarray]:
    """Refines the patch labels of a capture.

    Args:
        features: N grids (h, w, D) of vectors of length 1.
        labels: N grids (h, w) bool to start from, True the object.
        prior: N grids (h, w) of log-odds that are added to those of the appearance, or None.
        rules: how the labels follow.
        settled: it ends when a smaller fraction of all patches changes sides.
        seed: of the sampling and clustering.

    Returns:
        N grids (h, w) float32 of log-odds, positive for the object.

    Raises:
        MaskError: one side has fewer than 8 patches, so there is nothing to cluster.
    """
    generator = np.random.default_rng(seed)
    appearance_of = partial(_shared_odds, generator=generator, seed=seed) if rules.shared else _photo_odds
    current = [np.asarray(grid, bool) for grid in labels]
    scores = [np.where(grid, MAX_LOG_ODDS, -MAX_LOG_ODDS).astype(np.float32) for grid in labels]
    offsets = [np.zeros(grid.shape, np.float32) for grid in current] if prior is None else prior
    links = [neighbour_links(grid) for grid in features] if rules.coherence else []
    count = sum(grid.size for grid in current)
    for _ in range(rules.passes):
        appearance = appearance_of(features, current)
        scores = [
            (np.clip(odds, -MAX_LOG_ODDS, MAX_LOG_ODDS) + offset).astype(np.float32)
            for odds, offset in zip(appearance, offsets, strict=True)
        ]
        if rules.coherence:
            scores = [
                spread_over_neighbours(odds, link, rules.coherence) for odds, link in zip(scores, links, strict=True)
            ]
        updated = [grid > 0 for grid in scores]
        ours = sum(int(grid.sum()) for grid in updated)
        if ours in (0, count):
            break
        changed = sum(int((new != old).sum()) for new, old in zip(updated, current, strict=True))
        current = updated
        if changed < settled * count:
            break
    return scores


def _shared_odds(
    features: Sequence[np.ndarray], labels: Sequence[np.ndarray], *, generator: np.random.Generator, seed: int
) -> list[np.ndarray]:
    """N grids (h, w) of log-odds by prototypes that all photos share."""
    flat = np.concatenate([grid.reshape(-1, grid.shape[-1]) for grid in features])
    current = np.concatenate([grid.ravel() for grid in labels])
    sides = []
    for side, count in ((current, OBJECT_PROTOTYPES), (~current, BACKGROUND_PROTOTYPES)):
        members = np.flatnonzero(side)
        if len(members) < 8:
            raise MaskError(
                f"One side of the cut has {len(members)} patches in all photos together; expected 8 at least."
            )
        if len(members) > MAX_CLUSTERED:
            members = np.sort(generator.choice(members, MAX_CLUSTERED, replace=False))
        sides.append(Prototypes.cluster(flat[members], count, seed))
    width = min(side.concentration for side in sides)
    odds = sides[0].log_density(flat, width) - sides[1].log_density(flat, width)
    ends = np.cumsum([grid.size for grid in labels])[:-1]
    return [part.reshape(grid.shape) for part, grid in zip(np.split(odds, ends), labels, strict=True)]


def _photo_odds(features: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """N grids (h, w) of log-odds by the mean of either side, photo by photo; those of the labels where one is empty."""
    result = []
    for grid, label in zip(features, labels, strict=True):
        if label.all() or not label.any():
            result.append(np.where(label, MAX_LOG_ODDS, -MAX_LOG_ODDS).astype(np.float32))
            continue
        means = np.stack([grid[label].mean(axis=0), grid[~label].mean(axis=0)])
        cosines = grid @ (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)).T
        within = 1 - np.where(label, cosines[..., 0], cosines[..., 1])  # the wider side's width holds for both
        width = 1 / max(2 * float(max(within[label].mean(), within[~label].mean())), 1e-4)
        result.append(width * (cosines[..., 0] - cosines[..., 1]))
    return result


def neighbour_links(features: np.ndarray) -> np.ndarray:
    """(4, h, w) how alike a patch and its neighbour right, below, below right and below left are, in [0, 1].

    0 where there is no such neighbour. The scale is the mean difference of neighbours in the photo.
    """
    height, width = features.shape[:2]
    distance = np.full((4, height, width), np.inf, np.float32)
    distance[0, :, :-1] = 1 - np.einsum("hwd,hwd->hw", features[:, :-1], features[:, 1:])
    distance[1, :-1] = 1 - np.einsum("hwd,hwd->hw", features[:-1], features[1:])
    distance[2, :-1, :-1] = 1 - np.einsum("hwd,hwd->hw", features[:-1, :-1], features[1:, 1:])
    distance[3, :-1, 1:] = 1 - np.einsum("hwd,hwd->hw", features[:-1, 1:], features[1:, :-1])
    finite = np.isfinite(distance)
    scale = max(float(distance[finite].mean()) if finite.any() else 1.0, 1e-6)
    return np.exp(-np.maximum(distance, 0) / scale).astype(np.float32)


def spread_over_neighbours(odds: np.ndarray, links: np.ndarray, coherence: float = 0.8, rounds: int = 12) -> np.ndarray:
    """Log-odds averaged over neighbours that look alike: a random walk that restarts with ``1 - coherence``.

    Args:
        odds: (h, w).
        links: (4, h, w) of :func:`neighbour_links`.
        coherence: part of the result that comes from the neighbours, 0 to under 1.
        rounds: steps of the walk.

    Returns:
        (h, w) float32. A constant stays that constant.
    """
    height, width = odds.shape
    # a patch, its neighbour, by slices: right, below, below right, below left
    pairs = [
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ((slice(None, -1), slice(None, -1)), (slice(1, None), slice(1, None))),
        ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))),
    ]
    total = np.full((height, width), 1e-6, np.float32)
    for link, (here, there) in zip(links, pairs, strict=True):
        total[here] += link[here]
        total[there] += link[here]
    result = odds.astype(np.float32)
    for _ in range(rounds):
        gathered = np.float32(1e-6) * result
        for link, (here, there) in zip(links, pairs, strict=True):
            gathered[here] += link[here] * result[there]
            gathered[there] += link[here] * result[here]
        result = (1 - coherence) * odds + coherence * gathered / total
    return result.astype(np.float32)
