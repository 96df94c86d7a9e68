"""Finds the object in a capture before training: its sphere, the voted hull, the masks to start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.identity_files import resized_identities
from surface_sos_ns.capture.names import listed
from surface_sos_ns.capture.object_names import default_object_names
from surface_sos_ns.plugin.console import say, warn
from surface_sos_ns.plugin.dataparser import ObjectHint
from surface_sos_ns.plugin.dataset import PixelCache, SurfaceSOSDataset
from surface_sos_ns.utils.image_io import resized

if TYPE_CHECKING:  # capture/ brings scipy and more, which no command needs before training
    from surface_sos_ns.capture.light import LightEvidence
    from surface_sos_ns.capture.object_prior import ObjectPrior
    from surface_sos_ns.capture.points import SparsePoints
    from surface_sos_ns.capture.room import StandingRoom
    from surface_sos_ns.capture.sphere import ObjectSphere
    from surface_sos_ns.capture.transforms import Transforms
    from surface_sos_ns.capture.views import Views

__all__ = ["ObjectSearch"]

LEAST_IOU, DOUBTFUL_IOU = 0.35, 0.6
"""IoU of given masks with their hull under which they cannot belong to these poses, and under which it is doubtful."""
CHECK_OFF = "--pipeline.datamanager.check-poses False"

ROOM_MARGIN = 0.02
"""Pixels around the projected hull that are not taken for the room behind the object, over the photo's longer side."""


@dataclass(frozen=True)
class ObjectSearch:
    """The photos, masks and poses of a capture, in which the object is looked for."""

    dataset: SurfaceSOSDataset
    """The training photos."""
    cache: PixelCache
    """The same photos, and the capture's masks."""
    capture: Transforms
    """Poses as they stand in transforms.json."""
    image_size: int
    """Longer side, in pixels, of the photos that are looked at; larger ones are made smaller."""
    check_poses: bool
    """Stop where the poses cannot be those of the photos, or where masks and poses do not fit."""
    repair_masks: bool = True
    """Look for what many of the capture's masks have wrong in the same way, see `capture.piece_repair`."""

    def find(self, views: Views, folder: Path | None, sphere: ObjectSphere | None = None) -> ObjectPrior:
        """The object's sphere, the voted hull and the masks to start from, world frame.

        Args:
            views: of the training photos, world frame.
            folder: keeps triangulated points, which take long to find; None keeps nothing.
            sphere: that the object is in, world frame, in place of what the user said of it and of one that is found.

        Raises:
            CaptureError: poses, or masks and poses, do not fit the photos.
            UserError: nothing can be found; the message says what to do.
        """
        from surface_sos_ns.capture.cut_off import cut_off_remark
        from surface_sos_ns.capture.object_prior import GIVEN, LOW_CONFIDENCE, build_object_prior
        from surface_sos_ns.capture.piece_repair import repair_masks, say_decisions

        small, images, points = self._photos_and_points(views, folder)
        given = map(self.cache.mask, range(len(self.cache)))  # one at a time: all of them are larger than all photos
        masks = [
            None if mask is None else resized(mask, *size) for mask, size in zip(given, small.sizes(), strict=True)
        ]
        point, radius = self._hint() if sphere is None else (sphere.centre, sphere.radius)
        has_masks = any(mask is not None and bool((mask >= 0.5).any()) for mask in masks)
        origin = GIVEN
        names = self.dataset.object_names
        identities: list[np.ndarray | None] = []
        if not has_masks:
            masks, identities, origin = self._find_masks(images, small, points, point, radius)
        elif names:
            identities = self._matched(self._identities(small), small, names)
            masks = [
                mask if mask is None or identity is None else mask * (identity > 0)
                for mask, identity in zip(masks, identities, strict=True)
            ]
        remark = cut_off_remark(masks, [Path(name).name for name in self.dataset.metadata["file_paths"]])
        if remark is not None:
            say(remark)
        build = partial(
            build_object_prior,
            small,
            points=points,
            object_point=point,
            object_radius=radius,
            source=origin,
            objects=names if identities else (),
            identities=identities,
            photos=images,
            progress=say,
        )
        prior = build(masks)
        if has_masks:
            self._check_masks(prior)
            if self.repair_masks and not names:
                repaired = repair_masks(small, masks, images, points, prior.sphere)
                say_decisions(repaired.decisions, say, warn)
                if repaired.changed:
                    prior = build(repaired.masks, photos=None)  # colours cannot settle what the masks disagree on
                remarks = tuple(decision.sentence() for decision in repaired.decisions)
                prior = replace(prior, repaired=repaired.changed, remarks=remarks)
        elif prior.confidence < LOW_CONFIDENCE:
            say(
                f"the object is uncertain (masks and vote agree at IoU {prior.confidence:.2f} only): "
                "please give coarse masks, or name a point on the object"
            )
        return prior

    def _identities(self, views: Views) -> list[np.ndarray | None]:
        """Which of several objects the masks show, at the size of the views."""
        given = [self.cache.identity(view) for view in range(len(self.cache))]
        return [
            None if image is None else resized_identities(image, *size)
            for image, size in zip(given, views.sizes(), strict=True)
        ]

    def _matched(
        self, identities: list[np.ndarray | None], views: Views, names: Sequence[str]
    ) -> list[np.ndarray | None]:
        """Identities that mean the same object in every photo.

        Raises:
            CaptureError: matching finds another number of objects than there are names, an object is in fewer than two
                photos, or two names have the same object.
        """
        from surface_sos_ns.capture.object_matching import match_objects

        given = tuple(names) != default_object_names(len(names))
        found = match_objects(identities, views, keep_names=given, progress=say)
        for remark in found.remarks(self.dataset.metadata["file_paths"]):
            warn(remark)
        if found.renumbered and found.count != len(names):
            raise CaptureError(
                f"{self.capture.source}: the coarse masks have {len(names)} numbers, which mean different objects from "
                f"photo to photo; matched by their hulls they show {found.count} objects. Number them alike first: "
                "surface-sos masks --method folder --objects --overwrite --source FOLDER, with a copy of these masks."
            )
        shown = {} if found.renumbered else dict(zip(names, found.shown, strict=True))
        lost = [name for name, views in shown.items() if views < 2]
        if lost:
            raise CaptureError(
                f"{self.capture.source}: no two training photos have a coarse mask of {listed(lost)} where the other "
                "photos' masks say that it is. Mark it in more photos, or leave it out of the masks."
            )
        if found.same:
            one, two = (names[identity - 1] for identity in found.same[0])
            raise CaptureError(
                f"{self.capture.source}: the coarse masks of {one} and {two} are of one thing: their hulls overlap by "
                "more than 0.8. Leave one of them out."
            )
        return found.identities

    def surroundings(self, views: Views, folder: Path | None) -> tuple[ObjectSphere, SparsePoints | None]:
        """The sphere that the cameras look at, and sparse points, world frame; masks are not looked at.

        Args:
            views, folder: as for `find`.

        Raises:
            CaptureError: poses do not fit the photos, or cameras see nothing in common.
        """
        from surface_sos_ns.capture.bounds import find_object_sphere
        from surface_sos_ns.capture.sphere import ObjectSphere

        small, _, points = self._photos_and_points(views, folder)
        point, radius = self._hint()
        sphere = find_object_sphere(small, None, points, point)
        return sphere if radius is None else ObjectSphere(sphere.centre, radius, sphere.source), points

    def _hint(self) -> tuple[np.ndarray | None, float | None]:
        """A point on the object and its radius, as far as the user has given them, world frame."""
        hint: ObjectHint = self.dataset.metadata.get("object_hint") or ObjectHint(None, None)
        return None if hint.point is None else np.array(hint.point), hint.radius

    def light(self, views: Views, points: SparsePoints | None) -> LightEvidence:
        """Whether the light changes from photo to photo.

        Args:
            views: of the training photos, world frame.
            points: sparse points, world frame, the capture's or those that `find` has triangulated.
        """
        from surface_sos_ns.capture.light import light_changes

        small, images = self._small_photos(views)
        return light_changes(images, small, points)

    def room(self, views: Views, prior: ObjectPrior) -> StandingRoom | None:
        """The room, if it stands still before the camera while the object turns; see `capture.room`.

        Args:
            views: of the training photos, world frame.
            prior: what was found of the object.
        """
        from surface_sos_ns.capture.hull_projection import outline_band, project_hull
        from surface_sos_ns.capture.room import standing_room

        small, images = self._small_photos(views)
        covered = [np.asarray(image) > 0.3 for image in project_hull(prior.hull, prior.sphere, small)]
        margin = ROOM_MARGIN * float(max(small.width.max(), small.height.max()))
        return standing_room(images, small, [image | outline_band(image, margin) for image in covered])

    def _small_photos(self, views: Views) -> tuple[Views, list[np.ndarray]]:
        """The views and photos at the size that is looked at."""
        factor = min(1.0, self.image_size / int(max(views.width.max(), views.height.max())))
        small = views.scaled(factor) if factor < 1 else views
        return small, [resized(self.cache.image(view), *size) for view, size in enumerate(small.sizes())]

    def _photos_and_points(
        self, views: Views, folder: Path | None
    ) -> tuple[Views, list[np.ndarray], SparsePoints | None]:
        """The views and photos at the size that is looked at, and sparse points: the capture's, else triangulated.

        Raises:
            CaptureError: poses do not fit the photos.
        """
        from surface_sos_ns.capture.points_file import first_fitting_points

        metadata = self.dataset.metadata
        small, images = self._small_photos(views)
        points, remarks = first_fitting_points(metadata["points_files"], views, metadata["file_paths"])
        for remark in remarks:
            warn(remark)
        if self.check_poses:
            self._check_poses(images)
        return small, images, self._triangulated(images, small, folder) if points is None else points

    def _triangulated(self, images: list[np.ndarray], views: Views, folder: Path | None) -> SparsePoints | None:
        """Points from the photos' features, kept in a folder; None where too few could be made."""
        from surface_sos_ns.capture.triangulation import triangulate_points

        kept = None if folder is None else Path(folder) / "sparse_points.npz"
        points, remarks = triangulate_points(images, views, kept, progress=say)
        for remark in remarks:
            warn(remark)
        return points

    def _check_poses(self, images: list[np.ndarray]) -> None:
        """Compare the poses, as they stand in transforms.json, with the features of the training photos.

        Raises:
            CaptureError: another reading of the file explains the features clearly better.
        """
        from surface_sos_ns.capture.pose_check import CAUSES, pose_fit

        source, place = self.capture.source, {path: index for index, path in enumerate(self.capture.file_paths)}
        used = [place[path] for path in self.dataset.metadata["file_paths"]]
        fit = pose_fit(images, self.capture.views.subset(used))
        if fit is not None and fit.hypothesis is not None:
            raise CaptureError(
                f"{source}: photos and poses do not fit. Of {fit.matches} features matched between photos "
                f"{fit.inlier_ratio:.0%} lie where the poses say, and {fit.best_inlier_ratio:.0%} would if this is so: "
                f"{fit.hypothesis}. "
                f"To go on with the file as it is: {CHECK_OFF}."
            )
        if fit is not None and fit.doubtful:
            warn(
                f"{source}: photos and poses hardly fit: of {fit.matches} features matched between photos "
                f"{fit.inlier_ratio:.0%} lie where the poses say. Likely causes, in this order: {CAUSES}."
            )

    def _check_masks(self, prior: ObjectPrior) -> None:
        """Compare the capture's masks with each other by its poses.

        Raises:
            CaptureError: they agree at an IoU below `LEAST_IOU`, and `check_poses` is set.
        """
        from surface_sos_ns.capture.pose_check import CAUSES

        words = (
            f"masks and poses {{}}: projected into the photos, what the masks say together agrees with them at IoU "
            f"{prior.confidence:.2f} (good masks: 0.8 or more). Likely causes, in this order: {CAUSES}."
        )
        if self.check_poses and prior.confidence < LEAST_IOU:
            raise CaptureError(
                f"{self.capture.source}: {words.format('do not fit')} "
                f"To go on all the same: {CHECK_OFF}; without these masks: "
                "--pipeline.datamanager.dataparser.coarse-masks none."
            )
        if prior.confidence < DOUBTFUL_IOU:
            warn(words.format("hardly fit") + " Masks that are very noisy look like this, too; training repairs those.")

    def _find_masks(
        self,
        images: list[np.ndarray],
        views: Views,
        points: SparsePoints | None,
        near: np.ndarray | None,
        radius: float | None,
    ) -> tuple[list[np.ndarray | None], list[np.ndarray | None], str]:
        """Masks of a capture that brings none, identities where several objects are looked for, and what made them."""
        from surface_sos_ns.masks.auto import Auto
        from surface_sos_ns.masks.provider import Photos
        from surface_sos_ns.masks.salient_objects import salient_objects

        photos = Photos(self.dataset.image_filenames, images, views, views.sizes(), points, near, radius)
        names = self.dataset.object_names
        if names:
            say(f"no masks: looking for the {len(names)} things that stand out most")
            several = salient_objects(photos, len(names), names, say)
            for remark in several.remarks:
                say(f"no masks: {remark}")
            return list(several.masks), list(several.identities), "masks of the things that stand out most"
        say("no masks: looking for the object (surface-sos masks --features descriptor)")
        # The descriptor: the start of a training must not depend on what can be downloaded.
        provider = Auto(features="descriptor")
        provider.check()
        found = provider.masks(photos, say)
        for remark in found.remarks:
            say(f"no masks: {remark}")
        return list(found.masks), [], f"masks by {provider.chosen.name}"
