"""Metrics of parts of an object: against the true parts, between views, and of the pieces that a part consists of.

Parts have identities from 1; 0 stands for no part: the background, or a part that is not known. Identities need not be
the same as those of the truth: NMI and ARI do not depend on how parts are numbered.
"""

from __future__ import annotations

import numpy as np

__all__ = ["face_labels", "labels_at", "part_metrics", "pieces_per_part", "view_agreement"]

SPECK_SHARE = 0.01
"""Connected pieces below this share of their part's area are not counted."""


def part_metrics(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How well found parts agree with the true ones, on pixels or on points.

    Only entries where both identities are above 0 are compared. parts_share says how much of the truth that leaves out;
    the mask metrics say whether the object itself is found.

    Args:
        found, truth: integer identities of one shape, such as (H, W) or (N,).

    Returns:
        parts_nmi: mutual information over the mean of the two entropies. parts_ari: adjusted Rand index. Both are 1 for
        equal partitions; NaN where nothing is compared. parts_share: share of the entries with a true part that have a
        found one; NaN where there is no true part.

    Raises:
        ValueError: the shapes differ.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    compared = _both(found, truth)
    true = int(np.count_nonzero(truth > 0))
    share = np.count_nonzero(compared) / true if true else float("nan")
    if not compared.any():
        return {"parts_nmi": float("nan"), "parts_ari": float("nan"), "parts_share": share}
    a, b = truth[compared], found[compared]
    return {
        "parts_nmi": float(normalized_mutual_info_score(a, b)),
        "parts_ari": float(adjusted_rand_score(a, b)),
        "parts_share": share,
    }


def view_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Share of surface points that have the same part in two views.

    Args:
        first, second: (N,) integer identities of the same N points as seen by either view. Points that have none (0) in
            one of the views are left out.

    Returns:
        The share; NaN where no point has a part in both views.

    Raises:
        ValueError: the shapes differ.
    """
    compared = _both(first, second)
    return float((first == second)[compared].mean()) if compared.any() else float("nan")


def pieces_per_part(vertices: np.ndarray, faces: np.ndarray, labels: np.ndarray) -> dict[int, int]:
    """Number of connected pieces of each part on a triangle mesh.

    Faces of a part are connected where they share an edge; vertices at exactly the same place count as one. Surfaces
    that pass through each other without a common edge are not connected. Pieces under 1 % of their part's area are left
    out: specks.

    Args:
        vertices: (V, 3).
        faces: (F, 3) vertex indices.
        labels: (F,) identities of the faces, see `face_labels`; faces of part 0 are ignored.

    Returns:
        For each part that has faces, in ascending order, the number of its pieces.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    places = np.unique(vertices, axis=0, return_inverse=True)[1].reshape(-1)[faces]
    edges = np.sort(places[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    owner = np.repeat(np.arange(len(faces)), 3)
    # Faces at one edge and of one part are neighbours in this order, each is joined to the next.
    order = np.lexsort((labels[owner], edges[:, 1], edges[:, 0]))
    edges, owner = edges[order], owner[order]
    joined = (edges[1:] == edges[:-1]).all(axis=1) & (labels[owner[1:]] == labels[owner[:-1]])
    links = (owner[:-1][joined], owner[1:][joined])
    graph = coo_matrix((np.ones(len(links[0]), bool), links), shape=(len(faces), len(faces)))
    piece = connected_components(graph, directed=False)[1]
    area = _face_areas(vertices, faces)
    counts = {}
    for part in np.unique(labels[labels > 0]):
        areas = np.bincount(piece[labels == part], area[labels == part])
        counts[int(part)] = int(np.count_nonzero(areas[areas > 0] >= SPECK_SHARE * areas.sum()))
    return counts


def face_labels(faces: np.ndarray, vertex_labels: np.ndarray) -> np.ndarray:
    """(F,) identity of each face: that of most of its corners; of the first where all three differ.

    Args:
        faces: (F, 3) vertex indices.
        vertex_labels: (V,) identities of the vertices.
    """
    a, b, c = vertex_labels[faces].T
    return np.where(b == c, b, a)


def labels_at(
    points: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    labels: np.ndarray,
    max_distance: float = float("inf"),
    samples: int = 400_000,
    seed: int = 0,
) -> np.ndarray:
    """The part of a mesh, such as the true one, that is nearest to each point.

    Nearest among points drawn evenly over the mesh, so a boundary between parts is found to about their spacing,
    sqrt(area / samples).

    Args:
        points: (N, 3), in the frame of the mesh.
        vertices: (V, 3).
        faces: (F, 3) vertex indices.
        labels: (F,) identities of the faces.
        max_distance: points farther from the mesh have no part; in the mesh's units.
        samples: number of points drawn.
        seed: equal seeds give equal results.

    Returns:
        (N,) identities, 0 for points that are too far away.
    """
    import trimesh
    from scipy.spatial import cKDTree
    from trimesh.sample import sample_surface

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    places, chosen = sample_surface(mesh, samples, seed=seed)[:2]
    distance, nearest = cKDTree(places).query(points)
    return np.where(distance <= max_distance, labels[chosen[nearest]], 0)


def _both(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where both have a part.

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"identities must have one shape, got {first.shape} and {second.shape}")
    return (first > 0) & (second > 0)


def _face_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
