"""A photo cut in two: the normalised cut of its patches (Shi and Malik, 2000)."""

from __future__ import annotations

import numpy as np

__all__ = [
    "affinity",
    "binary_affinity",
    "cut_eigenvectors",
    "object_side",
    "second_eigenvector",
    "strongest_component",
]

FLOOR = 1e-5
"""Smallest affinity of two patches: keeps the graph connected, so that the normalised cut is defined."""


def affinity(features: np.ndarray, sharpness: float = 4.0) -> np.ndarray:
    """How alike patches are.

    ``exp(-sharpness * (1 - cosine) / m)`` with m the mean of ``1 - cosine`` over all pairs, which makes one sharpness
    do for networks and descriptors alike: their cosines spread differently.

    Args:
        features: (P, D) vectors of length 1.
        sharpness: the larger, the fewer patches count as alike.

    Returns:
        (P, P) float32 symmetric, in (0, 1].
    """
    distance = np.maximum(1 - features @ features.T, 0)
    spread = max(float(distance.mean()), 1e-6)
    weights = np.exp(distance * np.float32(-sharpness / spread))
    return np.maximum(weights, np.float32(FLOOR))


def binary_affinity(features: np.ndarray, threshold: float = 0.2) -> np.ndarray:
    """Whether patches are alike, as TokenCut and Selfment have it.

    Args:
        features: (P, D) vectors of length 1.
        threshold: cosine above which two patches are alike.

    Returns:
        (P, P) float32 symmetric: 1 for patches that are alike, `FLOOR` for others.
    """
    return np.where(features @ features.T > threshold, np.float32(1), np.float32(FLOOR))


def second_eigenvector(weights: np.ndarray) -> np.ndarray:
    """The relaxed normalised cut: y of the second smallest eigenvalue in ``(D - W) y = lambda D y``.

    Args:
        weights: (P, P) symmetric affinities W, not negative; D is the diagonal matrix of their row sums. P > 2.

    Returns:
        (P,) float64, its weighted mean ``sum(D y)`` zero and ``y' D y`` one; the sign is arbitrary. Patches that belong
        together have similar values.

    Raises:
        ValueError: a patch has no affinity to any.
    """
    return cut_eigenvectors(weights, 1)[0]


def cut_eigenvectors(weights: np.ndarray, count: int) -> list[np.ndarray]:
    """`second_eigenvector` and the next ones, by increasing eigenvalue: finer cuts of the photo.

    Args:
        weights: (P, P) as there.
        count: how many, under P - 1.

    Raises:
        ValueError: a patch has no affinity to any.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    degree = weights.sum(axis=1, dtype=np.float64)
    if not (degree > 0).all():
        raise ValueError("A patch has no affinity to any other; the normalised cut needs a connected graph.")
    root = np.sqrt(degree)
    # With z = D^(1/2) y the problem is the standard one of the largest eigenvalues of D^(-1/2) W D^(-1/2).
    symmetric = weights / root[:, None] / root[None, :]
    start = np.linspace(1, 2, len(degree))  # fixed, so that the result is deterministic
    try:
        values, vectors = eigsh(symmetric, k=count + 1, which="LA", v0=start, tol=1e-6, maxiter=500)
    except ArpackNoConvergence:
        values, vectors = np.linalg.eigh(symmetric)
    return [vectors[:, index] / root for index in np.argsort(values)[::-1][1 : count + 1]]


def object_side(cut: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Splits a cut in two and says which side is the object.

    Both of the usual thresholds of the eigenvector are tried, its weighted mean (zero) and Otsu's, and either side of
    both: the object is the side that fits the prior best (correlation).

    Args:
        cut: (P,) eigenvector.
        prior: (P,) how likely each patch is the object's, before looking at its neighbours; any scale.

    Returns:
        (P,) bool.
    """
    from skimage.filters import threshold_otsu

    best, score = np.zeros(len(cut), bool), -np.inf
    for level in (0.0, float(threshold_otsu(cut)) if np.ptp(cut) > 0 else 0.0):
        side = cut > level
        if side.all() or not side.any():
            continue
        fit = float(np.corrcoef(side, prior)[0, 1])
        for candidate, value in ((side, fit), (~side, -fit)):
            if value > score:
                best, score = candidate, value
    return best


def strongest_component(side: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """The connected component of one side of a cut that holds its strongest patch, as in TokenCut and Selfment.

    Args:
        side: (h, w) bool.
        cut: (h, w) eigenvector; its strongest entry is the largest by magnitude.

    Returns:
        (h, w) bool: patches of `side` that share edges with one another, up to the strongest of them.
    """
    from scipy.ndimage import label

    if not side.any():
        return side
    components, _ = label(side)
    return components == components.flat[np.argmax(np.where(side, np.abs(cut), -1))]
