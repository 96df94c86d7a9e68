"""Points drawn evenly on the object's surface, with their neighbours: what parts are learned on. Object frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import trimesh
    from scipy.sparse import csr_matrix

NEIGHBOURS = 8
"""Nearest points that may be neighbours of a point."""
CREASE_SCALE = 0.3
"""Concavity of a crease at which the weight of a pair falls to 1 / e: (n1 - n2) . d, with d the unit vector from the
first point to the second. Parts meet in creases."""
FACING = -0.2
"""Cosine of two normals below which points are on different sides of a thin wall, and no neighbours."""


class Surface(NamedTuple):
    """P points of a surface, object frame."""

    points: np.ndarray  # (P, 3) float32, drawn evenly by area
    normals: np.ndarray  # (P, 3) float32, unit, outwards
    pairs: np.ndarray  # (E, 2) int64, neighbours, each pair once
    weights: np.ndarray  # (E,) float32 in (0, 1], lower across concave creases

    @property
    def graph(self) -> csr_matrix:
        """(P, P) symmetric matrix of the weights of pairs."""
        from scipy.sparse import csr_matrix

        first, second = self.pairs.T
        half = csr_matrix((self.weights, (first, second)), shape=(len(self.points),) * 2)
        return half + half.T

    def spread(self, values: np.ndarray, known: np.ndarray, distance: float) -> np.ndarray:
        """Values averaged over the surface around each point, so that points without a value get one too.

        Args:
            values: (P, D).
            known: (P,) in [0, 1], how much each value counts.
            distance: standard deviation of the average, object radii, along the surface.

        Returns:
            (P, D); 0 where nothing known is near.
        """
        from scipy.sparse import diags

        graph = self.graph
        degree = np.asarray(graph.sum(1)).ravel()
        walk = diags(1.0 / np.maximum(degree, 1e-9)) @ graph
        first, second = self.pairs.T
        step = np.sqrt(np.mean(np.sum((self.points[first] - self.points[second]) ** 2, axis=1)))
        amount = known.astype(np.float64)[:, None]
        total = values * amount
        for _ in range(max(1, round(2 * (distance / step) ** 2))):  # a lazy random walk: each step keeps half
            total, amount = 0.5 * (total + walk @ total), 0.5 * (amount + walk @ amount)
        return total / np.maximum(amount, 1e-6)


def surface_of(points: np.ndarray, normals: np.ndarray) -> Surface:
    """Points (P, 3) of a surface with unit normals (P, 3), and which of them are neighbours."""
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBOURS + 1, len(points))
    _, nearest = NearestNeighbors(n_neighbors=count).fit(points).kneighbors(points)
    pairs = np.stack([np.repeat(np.arange(len(points)), count - 1), nearest[:, 1:].ravel()], axis=1)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    first, second = pairs.T
    pairs = pairs[np.einsum("ed,ed->e", normals[first], normals[second]) > FACING]
    first, second = pairs.T
    across = points[second] - points[first]
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    # Of a concave crease the normals of either side lean towards the other.
    crease = np.maximum(0.0, np.einsum("ed,ed->e", normals[first] - normals[second], across))
    return Surface(
        points.astype(np.float32),
        normals.astype(np.float32),
        pairs.astype(np.int64),
        np.exp(-crease / CREASE_SCALE).astype(np.float32),
    )


def draw_points(mesh: trimesh.Trimesh, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 3) drawn evenly on a mesh, in its frame, and the normals (P, 3) of the faces they lie on."""
    import trimesh

    points, faces = trimesh.sample.sample_surface(mesh, count, seed=seed)
    return np.asarray(points), np.asarray(mesh.face_normals[faces])
