"""The object prior: what is known of the object before training (bounding sphere, visual hull, masks, points)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.capture.bounds import find_object_sphere
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.cut_off import mostly_whole
from surface_sos_ns.capture.hull import VisualHull, main_components
from surface_sos_ns.capture.hull_projection import project_hull
from surface_sos_ns.capture.hull_voting import binary_masks, vote_hull
from surface_sos_ns.capture.mask_colours import corrected_by_colours
from surface_sos_ns.capture.mask_outlines import moved_outlines
from surface_sos_ns.capture.object_hulls import hull_identities
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.support_plane import cut_at_plane, find_support_plane
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.files import write_arrays

__all__ = ["GIVEN", "LOW_CONFIDENCE", "ObjectPrior", "build_object_prior"]

GIVEN = "coarse masks"
"""`ObjectPrior.source` of masks that came with the capture."""
CORRECTED = "coarse masks, corrected by the photos' colours"
"""The same where they were corrected by colours, see `capture.mask_colours`."""
MOVED = "coarse masks, their outlines moved"
"""The same where outlines were too wide or too narrow all around, see `capture.mask_outlines`."""
LOW_CONFIDENCE = 0.5
"""Mean IoU of the masks with the hull's projection below which the object was probably not found."""

PLANE_UNCERTAINTY = 0.02
"""Depth below the support plane down to which the hull is kept, object radii: the error of plane and hull."""
SILHOUETTE_SIZE = 160
"""Longer side, in pixels, of the silhouettes that are compared with and without the part below the support plane."""
MIN_SILHOUETTE_AREA = 0.98
"""Fraction of the silhouettes' area, mean over the views, that has to remain for the plane to be used."""

FORMAT = 1
"""Version of the files that `ObjectPrior.save` writes."""


@dataclass(frozen=True)
class ObjectPrior:
    """What is known of the object before training, from masks and sparse points.

    Attributes:
        sphere: bounding sphere, world frame; defines the object frame.
        hull: soft visual hull m^P, object frame.
        masks: N coarse masks (H, W) float32 in [0, 1]; None where a view has none.
        points: sparse points, world frame, or None.
        confidence: mean IoU of the masks with the hull's projection, in [0, 1].
        source: of the masks: `GIVEN`, `CORRECTED`, `MOVED`, or the method that made them, such as "masks by selfment".
        objects: names of several objects, in the order of their identities, which are 1 to K; empty for one.
        identities: N images (H, W) uint8, which of several objects each mask shows, 0 for none; empty for one object.
        hull_identity: (R, R, R) uint8 in 1 to K, whose hull it is; None with one object.
        repaired: views whose mask says nothing where many masks are wrong in the same way, see `piece_repair`.
        remarks: what was decided there, a sentence each.
    """

    sphere: ObjectSphere
    hull: VisualHull
    masks: list[np.ndarray | None]
    points: SparsePoints | None
    confidence: float
    source: str
    objects: tuple[str, ...] = ()
    identities: Sequence[np.ndarray | None] = ()
    hull_identity: np.ndarray | None = None
    repaired: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def masks_given(self) -> bool:
        """Whether the capture came with the masks, corrected or not."""
        return self.source in (GIVEN, CORRECTED, MOVED)

    @property
    def masks_at_hand(self) -> bool:
        """Whether the masks are the capture's own as they stand, which a capture has at the full size."""
        return self.source == GIVEN

    def diameters(self) -> dict[str, float]:
        """Of several objects the diameter of a ball of each one's volume in the hull, object radii, by name."""
        if self.hull_identity is None:
            return {}
        inside = self.hull.probability >= 0.5
        counts = np.bincount(self.hull_identity[inside], minlength=len(self.objects) + 1)[1:]
        volumes = counts * (2 / self.hull.resolution) ** 3
        return dict(zip(self.objects, np.cbrt(6 / np.pi * volumes).tolist(), strict=True))

    def initial_hull(self, slack: float) -> VisualHull:
        """The hull that training starts from.

        Its level is lowered by ``slack`` (see `VisualHull.relaxed`). If the masks were not given by the user, small
        components are removed (see `main_components`).
        """
        hull = self.hull.relaxed(slack)
        if self.masks_given:
            return hull
        if self.hull_identity is None:
            return main_components(hull)
        each = [self._main_components_of(hull, identity) for identity in range(1, len(self.objects) + 1)]
        return replace(hull, probability=np.maximum.reduce(each))

    def _main_components_of(self, hull: VisualHull, identity: int) -> np.ndarray:
        """(R, R, R) probability of one object's hull without its small components; 0 elsewhere."""
        own = np.where(self.hull_identity == identity, hull.probability, 0).astype(np.float32)
        return main_components(replace(hull, probability=own)).probability

    def save(self, path: Path) -> None:
        """Writes one ``.npz`` file, atomically. Probabilities are stored as float16, masks in 8 bits.

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
            "repaired": list(self.repaired),
            "remarks": list(self.remarks),
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
        if self.objects:
            assert self.hull_identity is not None
            description["objects"] = list(self.objects)
            arrays["description"] = np.frombuffer(json.dumps(description).encode(), dtype=np.uint8)
            arrays["hull_identity"] = self.hull_identity
            arrays |= {f"identity_{i}": image for i, image in enumerate(self.identities) if image is not None}
        if self.points is not None:
            arrays |= {"xyz": self.points.xyz, "rgb": self.points.rgb, "track_length": self.points.track_length}
            if self.points.visibility is not None:
                arrays["visibility"] = self.points.visibility
        write_arrays(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> ObjectPrior:
        """Reads what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            CaptureError: the file is damaged or of another format; without it the prior is computed again.
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
                VisualHull(
                    arrays["probability"].astype(np.float32),
                    arrays["view_weights"],
                    description["agreement"],
                    description["level"],
                ),
                masks,
                points,
                description["confidence"],
                description["source"],
                tuple(description.get("objects", ())),
                [arrays.get(f"identity_{i}") for i in range(len(masks))] if "hull_identity" in arrays else (),
                arrays.get("hull_identity"),
                tuple(description.get("repaired", ())),
                tuple(description.get("remarks", ())),
            )
        except FileNotFoundError:
            raise
        except Exception as error:  # numpy, zipfile and json raise many types; each means a damaged file
            raise CaptureError(
                f"The cached object prior {path} cannot be read ({error}). Delete it; training then computes it again, "
                "and a report does without it."
            ) from error


def _check_stored(description: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Raises a ValueError if the content of a file is not what `ObjectPrior.save` writes."""

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
    for view in description.get("repaired", ()):
        require(isinstance(view, int) and f"mask_{view}" in arrays, f"its repaired mask {view} is not there")
    require(all(isinstance(text, str) for text in description.get("remarks", ())), "its remarks are no text")
    objects = description.get("objects", [])
    require(bool(objects) == ("hull_identity" in arrays), "its names of objects and its identities do not fit")
    for index in range(-1, len(weights) if objects else -1):
        image = arrays["hull_identity"] if index < 0 else arrays.get(f"identity_{index}")
        fits = image is None or (image.dtype == np.uint8 and image.max(initial=0) <= len(objects))
        require(fits, f"its identities go beyond the {len(objects)} objects")
    if objects:
        require(arrays["hull_identity"].shape == hull.shape, "the identities of its hull have another shape")


def build_object_prior(
    views: Views,
    masks: Sequence[np.ndarray | None],
    points: SparsePoints | None = None,
    *,
    object_point: Sequence[float] | np.ndarray | None = None,
    object_radius: float | None = None,
    resolution: int = 128,
    source: str = GIVEN,
    objects: Sequence[str] = (),
    identities: Sequence[np.ndarray | None] = (),
    photos: Sequence[np.ndarray] | None = None,
    progress: Callable[[str], None] | None = None,
) -> ObjectPrior:
    """Estimates bounding sphere and visual hull of a capture's object from its masks.

    Args:
        views: N views, world frame.
        masks: N coarse masks (H, W) of the views' sizes, bool or 0..1 float, None where a view has none.
        points: sparse points, world frame, or None (see :func:`capture.triangulation.triangulate_points`).
        object_point: (3,) a point on the object that the user gave, world frame, or None.
        object_radius: radius that the user gave, world units, or None.
        resolution: voxels along an edge of the hull's grid.
        source: of the masks, for `ObjectPrior.source`.
        objects, identities: of several objects, see `ObjectPrior`; the masks are of all of them together.
        photos: N photos (H, W, 3) uint8 of the views' sizes, by whose colours masks of one object are corrected where
            these tell enough, see `capture.mask_colours`; None leaves the masks as they are.
        progress: called with one line per stage.

    Raises:
        ValueError: masks and views do not match in number or size.
        CaptureError: point or radius are not finite numbers, or the masks do not agree on an object.
    """
    if len(masks) != len(views):
        raise ValueError(f"There are {len(masks)} masks for {len(views)} views; give one mask, or None, per view.")
    point = None if object_point is None else np.asarray(object_point, dtype=np.float64)
    if point is not None and (point.shape != (3,) or not np.isfinite(point).all()):
        raise CaptureError(f"The object point is {object_point}; expected three finite numbers (world coordinates).")
    if object_radius is not None and not object_radius > 0:
        raise CaptureError(f"The object radius is {object_radius}; expected a positive number.")
    if progress:
        progress(f"finding the object from the {source}")
    several = bool(objects)
    sphere = _given_sphere(point, object_radius) or find_object_sphere(views, masks, points, point, several=several)
    if object_radius is not None:
        sphere = ObjectSphere(sphere.centre, object_radius, f"{sphere.source}, radius given")
    if photos is not None and not several:
        corrected = corrected_by_colours(views, photos, masks, sphere, progress)
        if corrected is not None:
            masks, source = corrected, CORRECTED if source == GIVEN else source
    hull = vote_hull(views, masks, sphere, resolution, progress=progress)
    if not several and not mostly_whole(binary_masks(views, masks)):
        moved = moved_outlines(views, masks, hull, sphere, progress)
        if moved is not None:
            masks, source = moved, MOVED if source == GIVEN else source
            hull = vote_hull(views, masks, sphere, resolution, progress=progress)
    if points is not None:
        hull = _cut_at_support_plane(hull, sphere, views, points)
    kept = [None if mask is None else np.asarray(mask, np.float32) for mask in masks]
    owner = hull_identities(views, identities, sphere, hull, len(objects)) if objects else None
    return ObjectPrior(sphere, hull, kept, points, hull.agreement, source, tuple(objects), list(identities), owner)


def _cut_at_support_plane(hull: VisualHull, sphere: ObjectSphere, views: Views, points: SparsePoints) -> VisualHull:
    """The hull without its part below the support plane.

    Cameras above the plane cannot carve the space below the object, so a cone of the hull remains there. Removing it
    does not change the silhouettes. If they shrink, the plane is not the support plane, and the hull stays as it is.
    """
    plane = find_support_plane(views.centres(), points.xyz, sphere)
    cut = cut_at_plane(hull, sphere, plane, -PLANE_UNCERTAINTY * sphere.radius)
    if cut is hull:
        return hull
    small = views.scaled(min(1.0, SILHOUETTE_SIZE / float(max(views.width.max(), views.height.max()))))
    areas = [[np.count_nonzero(image > 0.5) for image in project_hull(one, sphere, small)] for one in (hull, cut)]
    kept = [after / before for before, after in zip(*areas, strict=True) if before]
    return cut if np.mean(kept) >= MIN_SILHOUETTE_AREA else hull


def _given_sphere(point: np.ndarray | None, radius: float | None) -> ObjectSphere | None:
    """The sphere of a point and a radius that the user gave; None if one is missing."""
    if point is None or radius is None:
        return None
    return ObjectSphere(point, radius, "named by the user")
