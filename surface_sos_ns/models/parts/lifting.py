"""Features of photos, lifted to points of the object's surface that the photos show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from surface_sos_ns.capture.views import Views
from surface_sos_ns.clean_plate.shadow import blocked
from surface_sos_ns.models.surface_sos.frame import ObjectFrame

GRAZING = 0.05
"""Cosine between normal and line of sight below which a point counts as hidden."""
CLEARANCE = 1.5
"""Cells by which lines of sight start off the surface, so that it does not hide itself."""
DIMENSIONS = 12
"""Principal components of the features that are kept."""


class Obstacles(NamedTuple):
    """Other solids that block lines of sight."""

    solid: Tensor  # (N, N, N) bool, cells of a cube
    frame: ObjectFrame  # in which the cube is [-1, 1]^3


class Lifted(NamedTuple):
    """Features of P surface points."""

    features: np.ndarray  # (P, D) weighted mean over the photos that show a point; 0 where none does
    seen: np.ndarray  # (P,) sum of the weights


@torch.no_grad()
def view_weights(
    points: Tensor,
    normals: Tensor,
    solid: Tensor,
    frame: ObjectFrame,
    views: Views,
    index: int,
    obstacles: Obstacles | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """How well a photo shows points of the surface, and where.

    Args:
        points, normals: (P, 3) object frame, normals unit and outwards.
        solid: (N, N, N) bool, cells of the object cube inside the object.
        frame: of the object.
        views: of all photos, world frame.
        index: of the photo.
        obstacles: other objects.

    Returns:
        weights (P,): the cosine between normal and line of sight; 0 where the point is hidden or outside the picture.
        uv (P, 2): where the point is in the picture, in pixels.
    """
    camera = frame.points(torch.as_tensor(views.centres()[index][None], dtype=torch.float32))[0].to(points)
    directions = F.normalize(camera - points, dim=-1)
    weights = (directions * normals).sum(-1)
    facing = (weights > GRAZING).nonzero()[:, 0]
    starts = points[facing] + normals[facing] * (CLEARANCE * 2.0 / len(solid))
    hidden = blocked(solid, starts, directions[facing])
    if obstacles is not None:
        hidden |= blocked(obstacles.solid, obstacles.frame.points(frame.to_world(starts)), directions[facing])
    shown = torch.zeros_like(weights)
    shown[facing[~hidden]] = weights[facing[~hidden]]
    uv, depth = views.project_one(index, frame.to_world(points).double().cpu().numpy())
    inside = (depth > 0) & (uv >= 0).all(1) & (uv[:, 0] <= views.width[index]) & (uv[:, 1] <= views.height[index])
    return shown.numpy() * inside, uv


def lift(
    points: np.ndarray,
    normals: np.ndarray,
    solid: np.ndarray,
    frame: ObjectFrame,
    views: Views,
    grids: Sequence[np.ndarray],
    obstacles: Obstacles | None = None,
) -> Lifted:
    """Mean of the photos' features at points of the surface, by how well each photo shows them.

    Args:
        points, normals: (P, 3) object frame, normals unit and outwards.
        solid: (N, N, N) bool, cells of the object cube inside the object.
        frame: of the object.
        views: of V photos, world frame.
        grids: V grids (h, w, D) of features that tile the photos.
        obstacles: other objects.
    """
    places, directions, cells = (torch.as_tensor(array) for array in (points, normals, solid))
    total, seen = np.zeros((len(points), grids[0].shape[-1]), dtype=np.float64), np.zeros(len(points))
    for index, grid in enumerate(grids):
        weights, uv = view_weights(places, directions, cells, frame, views, index, obstacles)
        at = np.flatnonzero(weights)
        size = np.array([views.width[index], views.height[index]])
        where = torch.as_tensor(uv[at] / size * 2 - 1, dtype=torch.float32)[None, None]
        image = torch.as_tensor(grid).permute(2, 0, 1)[None]
        found = F.grid_sample(image, where, align_corners=False, padding_mode="border")[0, :, 0].T.numpy()
        total[at] += found * weights[at, None]
        seen[at] += weights[at]
    return Lifted(total / np.maximum(seen, 1e-9)[:, None], seen)


def without_signs(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Features as vectors without negative entries, as a non-negative basis needs them.

    Of the principal components the positive and the negative parts, one after the other; the mean of the squared
    lengths is 1.

    Args:
        features: (P, D).
        known: (P,) bool, which points have features; the others get 0.

    Returns:
        (P, 2 min(`DIMENSIONS`, D)) float32.
    """
    from sklearn.decomposition import PCA

    kept = min(DIMENSIONS, features.shape[1], int(known.sum()))
    result = np.zeros((len(features), 2 * kept), dtype=np.float32)
    if not kept:
        return result
    values = PCA(kept, svd_solver="full").fit_transform(features[known])
    values /= max(np.sqrt(np.mean(np.sum(values**2, axis=1))), 1e-9)
    result[known] = np.concatenate([np.maximum(values, 0), np.maximum(-values, 0)], axis=1)
    return result
