"""The centre prior: which patches lie near the object's place, and which appearance is found there.

A capture is taken around its object, so the object stays in the middle while the surroundings change. A single photo
does not tell that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.masks.features import PatchFeatures
from surface_sos_ns.masks.provider import Photos, Progress

__all__ = ["cluster_patches", "describe", "distance_from_object", "rarity_elsewhere"]

CENTRE_SPREAD = 0.25
"""Spread (standard deviation) of the weight of patches at the object's place, in radii of its sphere."""

RINGS = (0.5, 0.8, 1.2)
"""Inner radii of the rings around the place, in radii of the sphere, that the centre is compared with. The sphere is
larger than the object, and the table under an object fills several rings: an appearance that is frequent in any ring is
not the object's alone."""

MAX_LOG_RATIO = 3.0
"""Bound of the log ratio of frequencies: beyond it the counts are too small to be reliable."""

MAX_CLUSTERED = 20_000
"""Patches that are clustered, at most, drawn from all photos."""


def describe(features: PatchFeatures, photos: Photos, progress: Progress) -> list[np.ndarray]:
    """Features (h, w, D) of all photos."""
    grids = features.features(photos.images, progress)
    rows, columns = grids[0].shape[:2]
    progress(f"features: {features.name}, {columns} x {rows} patches a photo")
    return grids


def distance_from_object(photos: Photos, sphere: ObjectSphere, grids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Per photo and patch how far the ray through the patch passes the sphere's centre.

    Args:
        photos: N photos.
        sphere: the object's place.
        grids: N grids (h, w, ...) of patches that tile the photos.

    Returns:
        N grids (h, w) float32, in radii of the sphere: under 1 the ray meets the sphere.
    """
    views, result = photos.views, []
    for view, (rows, columns) in enumerate(grid.shape[:2] for grid in grids):
        row, column = np.mgrid[:rows, :columns] + 0.5
        uv = np.stack([column * views.width[view] / columns, row * views.height[view] / rows], axis=-1)
        rays = views.rays(view, uv.reshape(-1, 2))
        sight = sphere.centre - views.centres()[view]
        along = np.maximum(rays @ sight, 0)
        away = np.linalg.norm(rays * along[:, None] - sight, axis=1) / sphere.radius
        result.append(away.reshape(rows, columns).astype(np.float32))
    return result


def cluster_patches(
    features: Sequence[np.ndarray], distances: Sequence[np.ndarray], count: int, seed: int
) -> list[np.ndarray]:
    """K-means over the patches of all photos together; half of the sample comes from near the object's place.

    Args:
        features: N grids (h, w, D).
        distances: N grids (h, w) of :func:`distance_from_object`.
        count: number of clusters.
        seed: of sampling and clustering.

    Returns:
        N grids (h, w) of cluster indices.
    """
    from sklearn.cluster import KMeans

    flat = np.concatenate([grid.reshape(-1, grid.shape[-1]) for grid in features])
    central = _centrality(np.concatenate([grid.ravel() for grid in distances]))
    chance = 0.5 * central / central.sum() + 0.5 / len(flat)
    size = min(len(flat), MAX_CLUSTERED)
    drawn = np.random.default_rng(seed).choice(len(flat), size, replace=False, p=chance / chance.sum())
    clusters = KMeans(min(count, size), n_init=1, max_iter=25, random_state=seed).fit(flat[np.sort(drawn)])
    ends = np.cumsum([grid.shape[0] * grid.shape[1] for grid in features])[:-1]
    parts = np.split(clusters.predict(flat), ends)
    return [part.reshape(grid.shape[:2]) for part, grid in zip(parts, features, strict=True)]


def rarity_elsewhere(clusters: Sequence[np.ndarray], distances: Sequence[np.ndarray]) -> np.ndarray:
    """Of every cluster, how much more frequent it is at the object's place than in any ring around it.

    Args:
        clusters: N grids (h, w) of indices from 0.
        distances: N grids (h, w) of :func:`distance_from_object`.

    Returns:
        (K,) float32 log ratios of frequencies, within +-3; zero where there are no surroundings to compare with.
    """
    index = np.concatenate([grid.ravel() for grid in clusters])
    distance = np.concatenate([grid.ravel() for grid in distances])
    count = int(index.max()) + 1
    central = _centrality(distance)
    here = np.bincount(index, central, count) / central.sum()
    around = np.zeros(count)
    for inner, outer in zip(RINGS, (*RINGS[1:], np.inf), strict=True):
        ring = (distance > inner) & (distance <= outer)
        if ring.sum() > 0.01 * len(distance):
            around = np.maximum(around, np.bincount(index, ring, count) / ring.sum())
    if not around.any():
        return np.zeros(count, np.float32)
    return np.clip(np.log((here + 1e-3) / (around + 1e-3)), -MAX_LOG_RATIO, MAX_LOG_RATIO).astype(np.float32)


def _centrality(distance: np.ndarray) -> np.ndarray:
    """Weights of patches by their distance from the object's place, float64; never all zero."""
    nearest = float(distance.min())  # a named sphere may be so small that no patch lies at its middle
    return np.exp(-0.5 * ((distance.astype(np.float64) - min(nearest, CENTRE_SPREAD)) / CENTRE_SPREAD) ** 2)
