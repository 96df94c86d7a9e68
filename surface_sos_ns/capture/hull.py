"""The soft visual hull m^P: an occupancy probability on a voxel grid, voted from coarse masks (`hull_voting`).

The paper calls m^P a probability map (text of eq. 4) and does not say how it is made. All arrays are in the object
frame, ``p_obj = (p_world - centre) / radius``; the grid covers [-1, 1]^3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.checks import CaptureError

__all__ = ["VOTE_SOFTNESS", "VisualHull", "dominant_component", "main_components", "voxel_centres"]

VOTE_SOFTNESS = 0.05
"""Scale of the logistic that turns vote fractions into probabilities: a fraction of the votes, 2 of 40 views."""

MIN_COMPONENT_VOLUME = 0.25
"""Smallest component that `main_components` keeps, as a fraction of the largest one's volume."""
MAX_GAP = 0.08
"""Largest gap within one component, object radii. Thin parts may be interrupted in the vote."""


@dataclass(frozen=True)
class VisualHull:
    """A soft visual hull on a voxel grid over [-1, 1]^3 of the object frame.

    Attributes:
        probability: (R, R, R) float32 in [0, 1], index [x, y, z]: occupancy at the voxel centres. The hull is where it
            is 0.5 or more.
        view_weights: (N,) float32 in [0, 1], weight of each view's mask in the vote, from its IoU with the hull's
            projection; 0 for empty or missing masks.
        agreement: mean IoU of the non-empty masks with the hull's projection, in [0, 1].
        level: the fraction of votes that maps to a probability of 0.5.
    """

    probability: np.ndarray
    view_weights: np.ndarray
    agreement: float
    level: float = 0.8

    @property
    def resolution(self) -> int:
        """R, voxels along an edge of the grid."""
        return self.probability.shape[0]

    def relaxed(self, votes: float) -> VisualHull:
        """The same votes with a decision level lowered by ``votes``, a fraction of the votes in [0, 1].

        The larger hull misses less of the object and holds more free space. Training starts from it, because the
        colour loss removes surplus volume more easily than it adds missing volume.
        """
        probability = np.clip(self.probability, 1e-6, 1 - 1e-6)
        odds = probability / (1 - probability) * np.exp(votes / VOTE_SOFTNESS)
        return replace(self, probability=(odds / (1 + odds)).astype(np.float32), level=self.level - votes)

    def signed_distance(self, level: float = 0.5) -> np.ndarray:
        """(R, R, R) float32 signed distance to the surface ``probability = level``, negative inside, in object radii.

        Euclidean distance transforms of both sides, with the surface half a voxel from the voxel centres next to it,
        smoothed by a Gaussian with a standard deviation of one voxel.

        Raises:
            CaptureError: no voxel, or every voxel, lies inside, so that there is no surface.
        """
        inside = self.probability >= level
        if not inside.any() or inside.all():
            state = "no voxel" if not inside.any() else "every voxel"
            raise CaptureError(
                f"The voted hull has no surface: {state} reaches the probability {level}. "
                "Check the coarse masks and the object's centre and radius."
            )
        # Both are distances to the nearest voxel centre of the other side; the surface lies half a voxel before it.
        outer = ndimage.distance_transform_edt(~inside).astype(np.float32)
        inner = ndimage.distance_transform_edt(inside).astype(np.float32)
        distance = np.where(inside, 0.5 - inner, outer - 0.5)
        distance = ndimage.gaussian_filter(distance, sigma=1.0, mode="nearest")
        return (distance * (2.0 / self.resolution)).astype(np.float32)


def main_components(hull: VisualHull) -> VisualHull:
    """The hull without its small connected components.

    Unsupervised masks may include other things, such as furniture at the border of a few photos, which become small
    separate components. A user's own masks may show several objects on purpose, so this is not for them.

    Components less than `MAX_GAP` apart count as one. Those of at least `MIN_COMPONENT_VOLUME` are kept, and each voxel
    goes with the component nearest to it. The hull itself is returned if nothing is removed.
    """
    inside, neighbours = hull.probability >= 0.5, np.ones((3, 3, 3))
    grown = ndimage.binary_dilation(inside, neighbours, iterations=max(1, round(MAX_GAP / 4 * hull.resolution)))
    components, count = ndimage.label(grown, neighbours)
    if count < 2:
        return hull
    volumes = np.bincount(components[inside], minlength=count + 1)[1:]
    kept = np.concatenate([[False], volumes >= MIN_COMPONENT_VOLUME * volumes.max()])
    if kept[1:].all():
        return hull
    nearest = ndimage.distance_transform_edt(components == 0, return_distances=False, return_indices=True)
    belongs = kept[components[tuple(nearest)]]
    return replace(hull, probability=np.where(belongs, hull.probability, 0).astype(np.float32))


def dominant_component(inside: np.ndarray, values: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The connected component of ``inside`` (R, R, R) with the largest sum of ``values``.

    Values are weighted by a Gaussian around ``centre`` (3,), object frame, with a standard deviation of 0.3.
    """
    labels, count = ndimage.label(inside)
    if count <= 1:
        return inside
    axis = voxel_centres(inside.shape[0])
    squared = sum(((axis - centre[i]) ** 2).reshape([-1 if j == i else 1 for j in range(3)]) for i in range(3))
    weight = ndimage.sum_labels(values * np.exp(-squared / 0.18), labels, np.arange(1, count + 1))
    return labels == 1 + int(np.argmax(weight))


def voxel_centres(resolution: int) -> np.ndarray:
    """(R,) coordinates along one axis of the voxel centres that tile [-1, 1]."""
    return (np.arange(resolution, dtype=np.float32) + 0.5) * (2.0 / resolution) - 1.0
