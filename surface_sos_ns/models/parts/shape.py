"""Thickness of the object at points of its surface: it tells a handle from a body, whatever their colours.

Thickness is the diameter of the largest ball inside the object that holds the point (local thickness, Hildebrand &
Ruegsegger 1997), in the object's filled shape: a vessel is as thick as it is wide, not as its wall.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage

DIRECTIONS = 96
"""Directions from which the silhouettes are taken that fill the shape."""
RESOLUTION = 96
"""Cells per axis of the filled shape, if the solid has as many."""
RADII = 24
"""Number of radii of the balls that are tried."""
NEARLY_EQUAL = 1.5
"""Ratio of the radii of two neighbouring cells up to which they belong to one body."""
RAISED = 2.0
"""Factor by which a cell's radius is raised at most, to that of the body it belongs to."""
BINS = np.geomspace(0.02, 0.5, 8)
"""Radii, in object radii, at which the features of thickness are centred."""


def filled_shape(solid: np.ndarray, resolution: int) -> np.ndarray:
    """What is inside the silhouettes of a solid from all sides: cavities and the insides of vessels are filled.

    Args:
        solid: (N, N, N) bool, cells of the cube [-1, 1]^3, indexed [x, y, z].
        resolution: cells R per axis of the result, N at most for silhouettes without gaps.

    Returns:
        (R, R, R) bool.
    """
    points = _centres(np.argwhere(solid), len(solid))
    cells = _centres(np.argwhere(np.ones((resolution,) * 3, dtype=bool)), resolution)
    inside = np.ones(len(cells), dtype=bool)
    for direction in _half_sphere(DIRECTIONS):
        plane = _plane(direction)
        side = int(1.8 * resolution)  # the cube's diagonal

        def pixels(positions: np.ndarray, plane: np.ndarray = plane, side: int = side) -> tuple[np.ndarray, ...]:
            found = ((positions @ plane + np.sqrt(3.0)) * (0.5 * resolution)).astype(np.int64)
            return tuple(np.clip(found, 0, side - 1).T)

        silhouette = np.zeros((side, side), dtype=bool)
        silhouette[pixels(points)] = True
        silhouette = ndimage.binary_closing(silhouette)
        left = np.flatnonzero(inside)
        inside[left] = silhouette[pixels(cells[left])]
    return inside.reshape((resolution,) * 3)


def local_thickness(solid: np.ndarray) -> np.ndarray:
    """Radius of the largest ball in a solid that holds each cell, in cells; 0 outside.

    Args:
        solid: (N, N, N) bool.
    """
    distance = ndimage.distance_transform_edt(solid)
    radius = np.zeros_like(distance)
    if not solid.any():
        return radius
    for ball in np.geomspace(distance.max(), min(0.7, distance.max()), RADII):
        covered = ndimage.distance_transform_edt(distance < ball) <= ball
        radius[solid & covered & (radius == 0)] = ball
    return radius


def body_thickness(radius: np.ndarray) -> np.ndarray:
    """Local thickness in which rims and corners of a body are as thick as its middle.

    No ball of the body's size fits into a corner; there the radii shrink gradually. Where a handle leaves a body they
    shrink abruptly. So each cell takes the largest radius that can be reached from it over neighbours with nearly
    equal ones (`NEARLY_EQUAL`), up to `RAISED` times its own.

    Args:
        radius: (N, N, N) of `local_thickness`, 0 outside.

    Returns:
        (N, N, N), 0 outside.
    """
    cells = np.argwhere(radius > 0)
    number = np.full(np.array(radius.shape) + 2, -1)  # of each cell, with a border of cells outside
    number[tuple((cells + 1).T)] = np.arange(len(cells))
    own = radius[tuple(cells.T)]
    pairs = []
    for step in itertools.product((-1, 0, 1), repeat=3):
        if step > (0, 0, 0):
            neighbour = number[tuple((cells + 1 + step).T)]
            pairs.append(np.stack([np.flatnonzero(neighbour >= 0), neighbour[neighbour >= 0]]))
    first, second = np.concatenate(pairs, axis=1)
    ratio = own[first] / own[second]
    alike = (ratio <= NEARLY_EQUAL) & (ratio >= 1 / NEARLY_EQUAL)
    first, second = first[alike], second[alike]
    raised, before = own.copy(), np.zeros_like(own)
    while (raised != before).any():
        before = raised.copy()
        np.maximum.at(raised, first, before[second])
        np.maximum.at(raised, second, before[first])
        raised = np.minimum(raised, RAISED * own)
    result = np.zeros_like(radius)
    result[tuple(cells.T)] = raised
    return result


def thickness_at(solid: np.ndarray, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Half the thickness (P,), object radii, of the filled shape of a solid at points of its surface.

    Args:
        solid: (N, N, N) bool, cells of the object cube.
        points: (P, 3) on its surface, object frame.
        normals: (P, 3) unit, outwards.
    """
    filled = filled_shape(solid, min(RESOLUTION, len(solid)))
    count = len(filled)
    # the greatest of the neighbouring cells: those that the surface cuts may lie outside
    radius = ndimage.grey_dilation(body_thickness(local_thickness(filled)), size=3)
    cell = 2.0 / count
    index = np.clip(((points - cell * normals + 1.0) / cell).astype(np.int64), 0, count - 1)
    return np.maximum(radius[tuple(index.T)], 0.5) * cell


def thickness_features(radius: np.ndarray) -> np.ndarray:
    """Radii (P,), object radii, as vectors (P, B) of length 1 without negative entries: near ones have alike vectors.

    Each entry is a Gaussian, in the logarithm of the radius, about one of `BINS`.
    """
    centres = np.log(BINS)
    position = np.clip(np.log(radius), centres[0], centres[-1])
    values = np.exp(-0.5 * ((position[:, None] - centres) / (centres[1] - centres[0])) ** 2)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _centres(index: np.ndarray, count: int) -> np.ndarray:
    """Centres (P, 3) float32 in [-1, 1]^3 of cells (P, 3) of a grid with `count` cells per axis."""
    return ((index + 0.5) * (2.0 / count) - 1.0).astype(np.float32)


def _half_sphere(count: int) -> np.ndarray:
    """(count, 3) unit directions spread evenly over half a sphere."""
    index = np.arange(count) + 0.5
    height, turn = 1 - index / count, np.pi * (1 + 5**0.5) * index
    across = np.sqrt(1 - height**2)
    return np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=1)


def _plane(direction: np.ndarray) -> np.ndarray:
    """(3, 2) orthonormal axes of the plane square to a unit direction (3,)."""
    first = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first)], axis=1).astype(np.float32)
