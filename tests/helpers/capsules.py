"""Silhouettes of balls swept along a line, and pictures that show a part of them only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from surface_sos_ns.capture.views import Views


@dataclass(frozen=True)
class Capsule:
    """All points at most `radius` from the line between two points."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float

    def distance(self, points: np.ndarray) -> np.ndarray:
        """(P,) distance of points (P, 3) from its surface, negative inside."""
        start, along = np.array(self.start), np.array(self.end) - np.array(self.start)
        part = np.clip((points - start) @ along / max(float(along @ along), 1e-12), 0, 1)
        return np.linalg.norm(points - start - part[:, None] * along, axis=1) - self.radius

    def mask(self, views: Views, index: int) -> np.ndarray:
        """(H, W) bool silhouette: rays whose distance from the line is at most the radius."""
        height, width = int(views.height[index]), int(views.width[index])
        rows, columns = np.mgrid[:height, :width]
        rays = views.rays(index, np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=-1))
        eye = views.centres()[index]
        nearest = np.full(len(rays), np.inf)
        for part in np.linspace(0, 1, 40):  # balls along the line, closer to each other than pixels
            to_centre = np.array(self.start) * (1 - part) + np.array(self.end) * part - eye
            along = rays @ to_centre
            squared = np.where(along > 0, (to_centre**2).sum() - along**2, np.inf)
            nearest = np.minimum(nearest, squared)
        return (nearest <= self.radius**2).reshape(height, width)


def masks_of(capsules: Sequence[Capsule], views: Views) -> list[np.ndarray]:
    """N masks (H, W) bool of several capsules together."""
    return [np.any([one.mask(views, index) for one in capsules], axis=0) for index in range(len(views))]


def cropped_above(views: Views, capsule: Capsule, whole: Sequence[int]) -> Views:
    """The views with pictures that end above all of a capsule, but for those at `whole`."""
    height = views.height.copy()
    ends = np.linspace(capsule.start, capsule.end, 20)
    for index in range(len(views)):
        if index not in whole:
            uv, depth = views.project_one(index, ends)
            height[index] = max(20, int((uv[:, 1] - capsule.radius * views.fy[index] / depth).min()) - 1)
    return replace(views, height=np.minimum(height, views.height))
