"""Partitions of a surface to start from: the losses of parts have many minima, so where one starts matters.

Several clusterings are made, and the one with the least loss is taken. Those that merge neighbours step by step follow
the surface, and their parts are connected. K-means does not look at neighbours.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from surface_sos_ns.models.parts.surface import Surface
from surface_sos_ns.training.parts import PartObjective, part_centres, part_losses

POSITION_WEIGHTS = (0.0, 0.5, 1.0)
"""Factors of the positions, object radii, that are clustered together with the features."""
LINKAGES = ("ward", "average")
"""What decides which neighbours are merged next."""
SMALLEST_SHARE = 0.01
"""Share of the surface below which a cluster is a speck and no part."""


def best_start(
    surface: Surface, features: np.ndarray, parts: int, objective: PartObjective, seed: int = 0
) -> np.ndarray:
    """The clustering (P,) int64, 0 to K - 1, of a surface that has the least loss.

    Args:
        surface: P points.
        features: (P, D), none negative.
        parts: K.
        objective: weights of the losses.
        seed: of K-means.
    """
    found = clusterings(surface, features, parts, objective, seed)
    return min(found, key=lambda labels: loss_of(surface, features, labels, parts, objective)).astype(np.int64)


def loss_of(surface: Surface, features: np.ndarray, labels: np.ndarray, parts: int, objective: PartObjective) -> float:
    """The loss of labels (P,), 0 to K - 1, with the basis that fits them best; arguments as of `best_start`."""
    points, pairs, weights = (torch.as_tensor(array) for array in (surface.points, surface.pairs, surface.weights))
    values = torch.as_tensor(features, dtype=torch.float32)
    shares = F.one_hot(torch.as_tensor(labels).long(), parts).float()
    losses = part_losses(objective, shares, points, values, part_centres(shares, values), pairs, weights)
    return float(sum(losses.values()))


def with_no_part_empty(
    surface: Surface, features: np.ndarray, labels: np.ndarray, parts: int, objective: PartObjective, seed: int = 0
) -> np.ndarray:
    """Labels (P,) in which each empty part has become one half of another part, the one with the least loss.

    Args:
        surface, features, parts, objective, seed: as of `best_start`.
        labels: (P,) 0 to K - 1.

    Returns:
        (P,); parts stay empty where no part can be divided into two that are no specks.
    """
    for empty in np.setdiff1d(np.arange(parts), labels):
        found = list(_divided(surface, features, labels, empty, seed))
        if found:
            labels = min(found, key=lambda divided: loss_of(surface, features, divided, parts, objective))
    return labels


def _divided(surface: Surface, features: np.ndarray, labels: np.ndarray, empty: int, seed: int) -> Iterator[np.ndarray]:
    """Labels in which one part is divided in two by features and positions; one half gets `empty`: for each part."""
    from sklearn.cluster import KMeans

    smallest = SMALLEST_SHARE * len(labels)
    for part in np.unique(labels):
        members = np.flatnonzero(labels == part)
        if len(members) < 2 * smallest:
            continue
        for weight in POSITION_WEIGHTS:
            values = np.concatenate([features[members], weight * surface.points[members]], axis=1)
            half = members[KMeans(2, n_init=2, random_state=seed).fit_predict(values) == 1]
            if smallest <= len(half) <= len(members) - smallest:
                divided = labels.copy()
                divided[half] = empty
                yield divided


def clusterings(
    surface: Surface, features: np.ndarray, parts: int, objective: PartObjective, seed: int
) -> Iterator[np.ndarray]:
    """Labels (P,) of several clusterings of the surface, by features and positions."""
    from sklearn.cluster import KMeans

    for weight in POSITION_WEIGHTS:
        if objective.semantics <= 0 and weight <= 0:
            continue
        values = np.concatenate([features * (objective.semantics > 0), weight * surface.points], axis=1)
        yield KMeans(parts, n_init=1, random_state=seed).fit_predict(values)
        if objective.coherence > 0:  # otherwise borders cost nothing, and parts need not be connected
            for linkage in LINKAGES:
                found = merged_neighbours(surface, values, parts, linkage)
                if found is not None:
                    yield found


def merged_neighbours(surface: Surface, values: np.ndarray, parts: int, linkage: str) -> np.ndarray | None:
    """Labels (P,) of K parts that arise where neighbours are merged, the most alike first.

    It is stopped as soon as K parts are left that are no specks (`SMALLEST_SHARE`); specks join what they border on.
    None where there are never so many.

    Args:
        surface: P points.
        values: (P, D).
        parts: K.
        linkage: of scikit-learn's AgglomerativeClustering.
    """
    from sklearn.cluster import AgglomerativeClustering

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a surface of several pieces, which it connects
        clustering = AgglomerativeClustering(1, connectivity=surface.graph > 0, linkage=linkage, compute_full_tree=True)
        tree = clustering.fit(values).children_
    count = len(values)
    smallest = SMALLEST_SHARE * count
    sizes = np.ones(2 * count - 1, dtype=np.int64)
    for merge, (first, second) in enumerate(tree):
        sizes[count + merge] = sizes[first] + sizes[second]
    # Backwards, from one cluster to many: split until K parts are no specks.
    clusters = {2 * count - 2}
    for merge in range(count - 2, -1, -1):
        if sum(sizes[cluster] >= smallest for cluster in clusters) >= parts:
            break
        clusters.remove(count + merge)
        clusters.update(tree[merge].tolist())
    else:
        return None
    labels = np.full(count, -1)
    large = sorted(cluster for cluster in clusters if sizes[cluster] >= smallest)
    for label, cluster in enumerate(large):
        labels[_leaves(tree, cluster, count)] = label
    return joined(surface, labels, len(large))


def _leaves(tree: np.ndarray, cluster: int, count: int) -> list[int]:
    """The points of a cluster of a tree of merges (P - 1, 2), in which clusters follow the P points."""
    found, open_ = [], [cluster]
    while open_:
        node = open_.pop()
        if node < count:
            found.append(node)
        else:
            open_.extend(tree[node - count].tolist())
    return found


def joined(surface: Surface, labels: np.ndarray, parts: int) -> np.ndarray:
    """Labels (P,) with those that are -1 replaced by what they border on, from the borders inwards.

    What borders on nothing, a loose piece, gets the label of the nearest point.
    """
    labels, graph = labels.copy(), surface.graph
    while (missing := labels < 0).any():
        votes = graph[missing][:, ~missing] @ np.eye(parts)[labels[~missing]]
        reached = votes.sum(1) > 0
        if not reached.any():
            return _nearest(surface.points, labels)
        labels[np.flatnonzero(missing)[reached]] = votes[reached].argmax(1)
    return labels


def _nearest(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels (P,) with those that are -1 replaced by that of the nearest point."""
    from scipy.spatial import cKDTree

    known = labels >= 0
    _, nearest = cKDTree(points[known]).query(points)
    return labels[known][nearest]
