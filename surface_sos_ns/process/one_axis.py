"""Poses of a camera that stands before an object which turns about one axis: an angle a photo, and what all share.

Incremental mapping gives each photo a pose of six numbers. Few features on a smooth object determine them poorly: they
drift along the turn, and the axis tilts. On a turntable five of the six are the same in all photos. With the axis fixed
in the camera's frame the pixel of a point :math:`X` in photo :math:`i` is that of

.. math:: R(a, \\theta_i) \\, (R_0 X - q) + t,

where :math:`R(a, \\theta)` turns by an angle about the unit vector :math:`a`. Angles, axis, place and focal length are
fitted together with all points, by Levenberg and Marquardt's method with the points eliminated (Triggs et al., Bundle
adjustment, 2000, section 6) and Cauchy's weights, whose width is narrowed step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.spatial.transform import Rotation

__all__ = ["Observations", "OneAxis", "fit_one_axis", "start_one_axis", "triangulated"]

MOST_STEPS = 60
"""Of Levenberg and Marquardt's method, for each width."""
LEAST_GAIN = 1e-6
"""Fall of the cost, as a share of it, below which a width is done with."""
MOST_DAMPING = 1e6
"""No step that lowers the cost was found."""
COMPARED = 6
"""Photos are compared with those up to a turn over this many photos away, to find the axis."""


@dataclass(frozen=True)
class Observations:
    """Points seen in photos: M of them, of P points in N photos.

    Attributes:
        photo, point: (M,) int, which is seen where.
        places: (M, 2) where, in the picture plane at distance 1 (x right, y down), without the lens' distortion.
        focal: pixels that a unit of the picture plane has.
    """

    photo: np.ndarray
    point: np.ndarray
    places: np.ndarray
    focal: float

    def kept(self, which: np.ndarray) -> Observations:
        """Those of `which` (M,) bool."""
        return Observations(self.photo[which], self.point[which], self.places[which], self.focal)


@dataclass(frozen=True)
class OneAxis:
    """N poses before an object that turns about one axis. Camera frame: x right, y down, z forward.

    Attributes:
        axis: (3,) unit vector, camera frame.
        angles: (N,) radians.
        start: (3, 3) rotation from the object's frame to the camera's at angle 0.
        centre: (3,) a point on the axis, object frame, turned by `start`.
        place: (3,) the same point, camera frame.
        zoom: focal length over the one that the observations were made with.
    """

    axis: np.ndarray
    angles: np.ndarray
    start: np.ndarray
    centre: np.ndarray
    place: np.ndarray
    zoom: float = 1.0

    def turns(self) -> np.ndarray:
        """(N, 3, 3) rotations about the axis."""
        return Rotation.from_rotvec(np.outer(self.angles, self.axis)).as_matrix()

    def poses(self) -> np.ndarray:
        """(N, 3, 4) from the object's frame to the camera's."""
        turns = self.turns()
        return np.concatenate([turns @ self.start, (self.place - turns @ self.centre)[..., None]], axis=2)

    def errors(self, seen: Observations, points: np.ndarray) -> np.ndarray:
        """(M, 2) reprojection errors in pixels of points (P, 3), object frame; infinite behind the camera."""
        poses = self.poses()[seen.photo]
        local = np.einsum("mij,mj->mi", poses[..., :3], points[seen.point]) + poses[..., 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            error = seen.focal * (self.zoom * local[:, :2] / local[:, 2:] - seen.places)
        return np.where(local[:, 2:] > 0, error, np.inf)


def start_one_axis(poses: np.ndarray) -> OneAxis:
    """The turn about one axis that is closest to free poses (N, 3, 4), object frame to camera frame, in order.

    Raises:
        ValueError: there are fewer than three, or they do not turn.
    """
    rotations, translations = poses[..., :3], poses[..., 3]
    count = len(poses)
    if count < 3:
        raise ValueError(f"There are {count} poses; three are the least.")
    steps = [
        Rotation.from_matrix(rotations[far] @ rotations[near].T).as_rotvec()
        for near in range(count)
        for far in range(near + 1, min(count, near + max(2, count // COMPARED)))
    ]
    vectors = np.array(steps)
    spread, directions = np.linalg.eigh(vectors.T @ vectors)
    if spread[-1] < 1e-8 * len(vectors):
        raise ValueError("The poses do not turn.")
    axis = directions[:, -1] * (np.sign((vectors @ directions[:, -1]).sum()) or 1.0)
    start, angles = rotations[0], np.zeros(count)
    for _ in range(10):
        relative = rotations @ start.T
        along = np.einsum("i,nij,j->n", axis, relative, axis)
        cosines = np.einsum("nii->n", relative) - along
        sines = np.einsum("nij,ij->n", relative, _cross_matrix(axis))
        angles = np.arctan2(sines, cosines)
        turns = Rotation.from_rotvec(np.outer(angles, axis)).as_matrix()
        left, _, right = np.linalg.svd(np.einsum("nji,njk->ik", turns, rotations))
        start = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    equations = np.concatenate([np.concatenate([np.eye(3), -turn], axis=1) for turn in turns])
    solution = np.linalg.lstsq(equations, translations.ravel(), rcond=1e-6)[0]
    return OneAxis(axis, angles, start, solution[3:], solution[:3])


def triangulated(model: OneAxis, seen: Observations, points: int) -> np.ndarray:
    """(P, 3) places of the points, object frame, by linear triangulation; nan where that has no solution.

    Args:
        model: the poses.
        seen: at least two observations of each point.
        points: P.
    """
    poses = model.poses()[seen.photo]
    flat = seen.places / model.zoom
    rows = flat[..., None] * poses[:, None, 2] - poses[:, :2]  # (M, 2, 4)
    normal = np.zeros((points, 4, 4))
    np.add.at(normal, seen.point, np.einsum("mki,mkj->mij", rows, rows))
    homogeneous = np.linalg.eigh(normal)[1][..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return homogeneous[:, :3] / homogeneous[:, 3:]


def fit_one_axis(
    model: OneAxis, seen: Observations, points: np.ndarray, widths: Sequence[float]
) -> tuple[OneAxis, np.ndarray]:
    """The turn and the points with the least robust reprojection error.

    Args:
        model: to start from.
        seen: the observations.
        points: (P, 3) to start from, object frame, before the cameras.
        widths: pixels at which an observation counts half as much as an exact one, one after the other.

    Returns:
        The fit, and the points (P, 3).
    """
    for width in widths:
        model, points = _fit(model, seen, points, width)
    return model, points


def _fit(model: OneAxis, seen: Observations, points: np.ndarray, width: float) -> tuple[OneAxis, np.ndarray]:
    cost, damping = _cost(model, seen, points, width), 1e-3
    for _ in range(MOST_STEPS):
        equations = _equations(model, seen, points, width)
        while damping < MOST_DAMPING:
            shared, moved = equations.step(damping)
            candidate, places = _moved(model, shared), points + moved @ model.start
            lower = _cost(candidate, seen, places, width)
            if lower < cost:
                damping = max(damping / 5, 1e-9)
                break
            damping *= 4
        else:
            return model, points
        finished = cost - lower < LEAST_GAIN * cost
        model, points, cost = candidate, places, lower
        if finished:
            break
    return model, points


def _cost(model: OneAxis, seen: Observations, points: np.ndarray, width: float) -> float:
    squared = (model.errors(seen, points) ** 2).sum(axis=1)
    return float(np.log1p(np.minimum(squared, 1e12) / width**2).sum())


@dataclass(frozen=True)
class _Equations:
    """Normal equations of a step: what photos share (C unknowns), and each point (3)."""

    shared: np.ndarray  # (C, C)
    mixed: sparse.csr_matrix  # (C, 3 P)
    own: np.ndarray  # (P, 3, 3)
    shared_slope: np.ndarray  # (C,)
    own_slope: np.ndarray  # (P, 3)

    def step(self, damping: float) -> tuple[np.ndarray, np.ndarray]:
        """Changes of what is shared (C,), and of the points (P, 3)."""
        size = np.einsum("pii->p", self.own) / 3
        inverse = np.linalg.inv(self.own + (damping * size + 1e-12)[:, None, None] * np.eye(3))
        count = len(inverse)
        blocks = sparse.bsr_matrix((inverse, np.arange(count), np.arange(count + 1)), shape=(3 * count, 3 * count))
        carried = self.mixed @ blocks
        damped = self.shared + np.diag(damping * np.diag(self.shared) + 1e-9) - (carried @ self.mixed.T).toarray()
        shared = np.linalg.solve(damped, carried @ self.own_slope.ravel() - self.shared_slope)
        rest = self.own_slope + (self.mixed.T @ shared).reshape(-1, 3)
        return shared, -np.einsum("pij,pj->pi", inverse, rest)


def _equations(model: OneAxis, seen: Observations, points: np.ndarray, width: float) -> _Equations:
    """At a model; points move in the frame that `OneAxis.start` turns to.

    Unknowns in the order of `_moved`: the axis (2), the place (3), the zoom (1), the angles (N).
    """
    turns = model.turns()[seen.photo]
    centred = (points @ model.start.T - model.centre)[seen.point]
    turned = np.einsum("mij,mj->mi", turns, centred)
    local = turned + model.place
    scale = seen.focal * model.zoom / local[:, 2]
    to_pixels = np.zeros((len(local), 2, 3))
    to_pixels[:, 0, 0] = to_pixels[:, 1, 1] = scale
    to_pixels[:, :, 2] = -scale[:, None] * local[:, :2] / local[:, 2:]
    error = model.errors(seen, points)
    weight = np.sqrt(1 / (1 + (error**2).sum(axis=1) / width**2))
    weight[local[:, 2] <= 0] = 0.0
    error = np.where(weight[:, None] > 0, error, 0.0) * weight[:, None]
    to_pixels *= weight[:, None, None]
    angle = model.angles[seen.photo]
    tilts = [_tilted(model.axis, angle, across, centred) for across in _across(model.axis)]
    common = np.stack(
        [
            *(np.einsum("mij,mj->mi", to_pixels, tilt) for tilt in tilts),
            *np.moveaxis(to_pixels, 2, 0),
            weight[:, None] * seen.focal * local[:, :2] / local[:, 2:],
        ],
        axis=-1,
    )  # (M, 2, 6)
    by_angle = np.einsum("mij,mj->mi", to_pixels, np.cross(model.axis, turned))
    by_angle[seen.photo == 0] = 0.0  # the first angle is fixed: only differences of angles matter
    slopes = np.concatenate([common, by_angle[..., None]], axis=2)
    columns = np.concatenate([np.tile(np.arange(6), (len(local), 1)), 6 + seen.photo[:, None]], axis=1)
    shared = _rows_of(slopes, columns, 6 + len(model.angles))
    of_points = to_pixels @ turns
    own = _rows_of(of_points, 3 * seen.point[:, None] + np.arange(3), 3 * len(points))
    diagonal = np.zeros((len(points), 3, 3))
    np.add.at(diagonal, seen.point, np.einsum("mki,mkj->mij", of_points, of_points))
    return _Equations(
        (shared.T @ shared).toarray(),
        (shared.T @ own).tocsr(),
        diagonal,
        shared.T @ error.ravel(),
        (own.T @ error.ravel()).reshape(-1, 3),
    )


def _rows_of(slopes: np.ndarray, columns: np.ndarray, width: int) -> sparse.csr_matrix:
    """(2 M, width) from the slopes (M, 2, K) of both coordinates by the unknowns in the columns (M, K)."""
    rows = np.broadcast_to(np.arange(2 * len(slopes)).reshape(-1, 2, 1), slopes.shape)
    columns = np.broadcast_to(columns[:, None], slopes.shape)
    return sparse.csr_matrix((slopes.ravel(), (rows.ravel(), columns.ravel())), shape=(2 * len(slopes), width))


def _moved(model: OneAxis, change: np.ndarray) -> OneAxis:
    """A model after a step."""
    across = _across(model.axis)
    axis = model.axis + change[0] * across[0] + change[1] * across[1]
    return replace(
        model,
        axis=axis / np.linalg.norm(axis),
        angles=model.angles + change[6:],
        place=model.place + change[2:5],
        zoom=model.zoom + float(change[5]),
    )


def _across(axis: np.ndarray) -> np.ndarray:
    """(2, 3) unit vectors at right angles to a unit vector and to each other."""
    return np.linalg.svd(axis[None])[2][1:]


def _cross_matrix(vector: np.ndarray) -> np.ndarray:
    """(3, 3) whose product with a vector is the cross product of both."""
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def _tilted(axis: np.ndarray, angle: np.ndarray, towards: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(M, 3) how vectors (M, 3), turned by angles (M,) about an axis, move where the axis tilts towards another one.

    The derivative of Rodrigues' formula: v cos + (a x v) sin + a (a . v) (1 - cos).
    """
    sine, rest = np.sin(angle)[:, None], 1 - np.cos(angle)[:, None]
    along, side = vectors @ axis, vectors @ towards
    return np.cross(towards, vectors) * sine + (towards * along[:, None] + axis * side[:, None]) * rest
