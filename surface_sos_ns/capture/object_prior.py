"""Everything training starts from: the object's sphere, the voted hull, the masks and the sparse points."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.capture.bounds import find_object_sphere
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.hull import VoteGrid, main_body, project_hull, vote_hull
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.support import above, find_support_plane
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.files import write_arrays

__all__ = ["GIVEN", "LOW_CONFIDENCE", "ObjectPrior", "build_object_prior"]

GIVEN = "coarse masks"
"""Source of masks that came with the capture."""
LOW_CONFIDENCE = 0.5
"""Mean IoU of masks and vote below which the object was probably not found."""

SUNK = 0.02
"""How far beneath the plane that carries it an object may reach, in object radii: neither is known better."""
CHECKED_SIDE = 160
"""Longer side of the pictures, pixels, in which it is checked that the plane takes nothing away that can be seen."""
STILL_SHOWN = 0.98
"""Part of the hull's pixels that has to stay, in the mean over the views."""

FORMAT = 1


@dataclass(frozen=True)
class ObjectPrior:
    """What photos, masks and points say about the object before training, world frame.

    Attributes:
        sphere: the object's sphere; defines the object frame.
        hull: soft visual hull m^P in the object frame.
        masks: N coarse masks (H, W) float32 in [0, 1]; None where a view has none.
        points: sparse points, or None.
        confidence: mean IoU of the masks with the hull's projection, in [0, 1].
        source: `GIVEN`, or what made them where the capture has none: "masks by selfment", "masks by prior".
    """

    sphere: ObjectSphere
    hull: VoteGrid
    masks: list[np.ndarray | None]
    points: SparsePoints | None
    confidence: float
    source: str

    @property
    def masks_given(self) -> bool:
        """Whether the capture came with the masks."""
        return self.source == GIVEN

    def first_hull(self, slack: float) -> VoteGrid:
        """The hull that training starts from: with a level lowered by `slack`, see :meth:`VoteGrid.relaxed`.

        Only its main body where nobody vouches for the masks.
        """
        hull = self.hull.relaxed(slack)
        return hull if self.masks_given else main_body(hull)

    def save(self, path: Path) -> None:
        """Writes one ``.npz``, whole or not at all. Masks are kept in 8 bits.

        Raises:
            WriteError: it cannot be written.
        """
        path = Path(path)
        description = {
            "format": FORMAT,
            "sphere_source": self.sphere.source,
            "radius": self.sphere.radius,
            "agreement": self.hull.agreement,
            "level": self.hull.level,
            "confidence": self.confidence,
            "source": self.source,
            "masks": len(self.masks),
            "points": self.points is not None,
            "visibility": self.points is not None and self.points.visibility is not None,
        }
        arrays: dict[str, np.ndarray] = {
            "description": np.frombuffer(json.dumps(description).encode(), dtype=np.uint8),
            "centre": self.sphere.centre,
            "probability": self.hull.probability.astype(np.float16),
            "view_weights": self.hull.view_weights,
        }
        for index, mask in enumerate(self.masks):
            if mask is not None:
                arrays[f"mask_{index}"] = np.rint(np.asarray(mask, np.float32) * 255).astype(np.uint8)
        if self.points is not None:
            arrays |= {"xyz": self.points.xyz, "rgb": self.points.rgb, "track_length": self.points.track_length}
            if self.points.visibility is not None:
                arrays["visibility"] = self.points.visibility
        write_arrays(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> ObjectPrior:
        """Reads what :meth:`save` wrote.

        Raises:
            FileNotFoundError: when there is no such file.
            CaptureError: the file is damaged or of another format; delete it to compute the prior again.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            description = json.loads(arrays["description"].tobytes().decode())
            _check_stored(description, arrays)
            points = None
            if description["points"]:
                visibility = arrays["visibility"] if description["visibility"] else None
                points = SparsePoints(arrays["xyz"], arrays["rgb"], arrays["track_length"], visibility)
            masks: list[np.ndarray | None] = [
                arrays[f"mask_{index}"].astype(np.float32) / 255 if f"mask_{index}" in arrays else None
                for index in range(description["masks"])
            ]
            return cls(
                ObjectSphere(arrays["centre"], description["radius"], description["sphere_source"]),
                VoteGrid(
                    arrays["probability"].astype(np.float32),
                    arrays["view_weights"],
                    description["agreement"],
                    description["level"],
                ),
                masks,
                points,
                description["confidence"],
                description["source"],
            )
        except FileNotFoundError:
            raise
        except Exception as error:  # zip, json and key errors all mean the same to the reader of the message
            raise CaptureError(
                f"The cached object prior {path} cannot be read ({error}). Delete it; training then computes it again, "
                "and a report does without it."
            ) from error


def _check_stored(description: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Raises a ValueError where what a file holds is not what `ObjectPrior.save` writes."""

    def require(holds: bool, message: str) -> None:
        if not holds:
            raise ValueError(message)

    require(description["format"] == FORMAT, f"format {description['format']}, expected {FORMAT}")
    for name in ("radius", "agreement", "level", "confidence"):
        number = description[name]
        require(isinstance(number, float) and np.isfinite(number), f"its {name} is {number!r}, expected a number")
    for name in ("sphere_source", "source"):
        require(isinstance(description[name], str), f"its {name} is no text")
    hull, weights = arrays["probability"], arrays["view_weights"]
    require(hull.ndim == 3 and len(set(hull.shape)) == 1, f"its hull has the shape {hull.shape}, expected a cube")
    require(weights.ndim == 1, f"its weights of views have the shape {weights.shape}, expected a row")
    for name in ("probability", "view_weights", "centre"):
        numbers = arrays[name]
        require(numbers.dtype.kind == "f" and bool(np.isfinite(numbers).all()), f"its {name} holds no finite numbers")
    require(description["masks"] == len(weights), f"it has {description['masks']} masks and {len(weights)} weights")
    for index in range(len(weights)):
        mask = arrays.get(f"mask_{index}")
        require(mask is None or (mask.ndim == 2 and mask.dtype == np.uint8), f"its mask {index} is no grey picture")


def build_object_prior(
    views: Views,
    masks: Sequence[np.ndarray | None],
    points: SparsePoints | None = None,
    *,
    object_point: Sequence[float] | np.ndarray | None = None,
    object_radius: float | None = None,
    resolution: int = 128,
    source: str = GIVEN,
    progress: Callable[[str], None] | None = None,
) -> ObjectPrior:
    """Finds the object of a capture in its masks: the sphere comes from them and the hull is their vote.

    Args:
        views: N views, world frame.
        masks: N coarse masks (H, W) of the views' sizes, bool or 0..1 float, None where a view has none.
        points: sparse points, world frame, or None (see :func:`capture.triangulation.triangulate_points`).
        object_point: (3,) a point on the object named by the user, world frame.
        object_radius: radius named by the user, world units.
        resolution: voxels along an edge of the hull's grid.
        source: where the masks are from, for :attr:`ObjectPrior.source`.
        progress: called with one line per stage.

    Raises:
        ValueError: when masks and views do not match.
        CaptureError: when nothing is seen in common (the message says what to do).
    """
    if len(masks) != len(views):
        raise ValueError(f"There are {len(masks)} masks for {len(views)} views; give one mask, or None, per view.")
    near = None if object_point is None else np.asarray(object_point, dtype=np.float64)
    if near is not None and (near.shape != (3,) or not np.isfinite(near).all()):
        raise CaptureError(f"The object point is {object_point}; expected three finite numbers (world coordinates).")
    if object_radius is not None and not object_radius > 0:
        raise CaptureError(f"The object radius is {object_radius}; expected a positive number.")
    if progress:
        progress(f"finding the object from the {source}")
    sphere = _named_sphere(near, object_radius) or find_object_sphere(views, masks, points, near=near)
    if object_radius is not None:
        sphere = ObjectSphere(sphere.centre, object_radius, f"{sphere.source}, radius given")
    hull = vote_hull(views, masks, sphere, resolution, progress=progress)
    if points is not None:
        hull = _down_to_support(hull, sphere, views, points)
    kept = [None if mask is None else np.asarray(mask, np.float32) for mask in masks]
    return ObjectPrior(sphere, hull, kept, points, hull.agreement, source)


def _down_to_support(hull: VoteGrid, sphere: ObjectSphere, views: Views, points: SparsePoints) -> VoteGrid:
    """The hull without what lies beneath the plane that carries the object.

    Beneath the object, out of sight, silhouettes of cameras above leave a cone of it. What photos show of the object
    does not change with it; where it does, this plane is not what the object stands on, and the hull stays as it is.
    """
    plane = find_support_plane(views.centres(), points.xyz, sphere)
    standing = above(hull, sphere, plane, -SUNK * sphere.radius)
    if standing is hull:
        return hull
    small = views.scaled(min(1.0, CHECKED_SIDE / float(max(views.width.max(), views.height.max()))))
    shown = [[np.count_nonzero(image > 0.5) for image in project_hull(one, sphere, small)] for one in (hull, standing)]
    kept = [after / before for before, after in zip(*shown, strict=True) if before]
    return standing if np.mean(kept) >= STILL_SHOWN else hull


def _named_sphere(point: np.ndarray | None, radius: float | None) -> ObjectSphere | None:
    """The sphere a user named completely, or None."""
    if point is None or radius is None:
        return None
    return ObjectSphere(point, radius, "named by the user")
