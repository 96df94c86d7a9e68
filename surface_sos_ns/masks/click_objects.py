"""Clicks on several objects: each point belongs to one of them, and counts against the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from surface_sos_ns.capture.hull_projection import project_hull
from surface_sos_ns.masks.click import RED, ClickSession
from surface_sos_ns.masks.identity_images import merge_objects
from surface_sos_ns.masks.points_to_masks import ClickedMasks, ClickedPoint, mask_of_clicks, masks_from_clicks
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos
from surface_sos_ns.utils.identity_colours import identity_bytes
from surface_sos_ns.utils.text import as_code

__all__ = ["ClickedObjects", "ObjectClickSession", "clicks_on", "merge_clicked", "objects_from_clicks"]

FEWEST_PHOTOS = 2
"""Photos in which every object has to be clicked."""


@dataclass(frozen=True)
class ClickedObjects:
    """Masks of several objects from clicks.

    Attributes:
        masks: N masks (H, W) float32 0/1 of all objects; None where none was found.
        identities: N images (H, W) uint8; None where there is no mask.
        agreement: (N,) mean over the objects of the IoU of mask and projected hull; 0 where there is no mask.
        each: of every object, in the order of the identities.
    """

    masks: list[np.ndarray | None]
    identities: list[np.ndarray | None]
    agreement: np.ndarray
    each: list[ClickedMasks]


def clicks_on(clicks: Sequence[ClickedPoint], identity: int) -> list[ClickedPoint]:
    """What clicks say about one object: its own, and the positive ones of others as negative ones."""
    ours = [click for click in clicks if click.identity == identity]
    return ours + [replace(click, positive=False) for click in clicks if click.identity != identity and click.positive]


def objects_from_clicks(
    photos: Photos,
    clicks: Sequence[ClickedPoint],
    names: Sequence[str],
    progress: Callable[[str], None] | None = None,
) -> ClickedObjects:
    """Masks of several objects in all photos from clicks in a few.

    Args:
        photos: of the whole capture.
        clicks: with identities, in pixels of the photos' images.
        names: of the objects.
        progress: called with one line per stage.

    Raises:
        MaskError: an object is clicked in fewer than two photos, or clicks are not on one object.
    """
    few = []
    for identity, name in enumerate(names, start=1):
        count = len({click.view for click in clicks if click.positive and click.identity == identity})
        if count < FEWEST_PHOTOS:
            few.append(f"{name} in {count}")
    if few:
        raise MaskError(
            f"Click every object in {FEWEST_PHOTOS} photos at least, better three, from different sides; so far "
            f"{', '.join(few)}."
        )
    each = []
    for identity, name in enumerate(names, start=1):

        def named(line: str, name: str = name) -> None:
            if progress is not None:
                progress(f"{name}: {line}")

        try:
            each.append(
                masks_from_clicks(
                    photos.images, photos.views, clicks_on(clicks, identity), photos.points, progress=named
                )
            )
        except ValueError as error:
            raise MaskError(f"{name}: {error}") from error
    return merge_clicked(photos, each)


def merge_clicked(photos: Photos, each: list[ClickedMasks]) -> ClickedObjects:
    """Gives each pixel that several objects claim to the one whose hull is there, and of several the nearest.

    Args:
        photos: of the whole capture.
        each: of K objects.
    """
    masks: list[np.ndarray | None] = []
    identities: list[np.ndarray | None] = []
    centres = photos.views.centres()
    for view in range(len(photos)):
        claims = [one.masks[view] for one in each]
        mask, owner = merge_objects(claims)
        masks.append(mask)
        identities.append(owner)
        claimed = [claim for claim in claims if claim is not None]
        if mask is None or owner is None or not (np.sum(claimed, axis=0) > 1).any():
            continue
        farthest_first = np.argsort([-np.linalg.norm(one.sphere.centre - centres[view]) for one in each]).tolist()
        at = photos.views.subset([view])
        for index in farthest_first:
            claim = claims[index]
            if claim is not None:
                inside = project_hull(each[index].hull, each[index].sphere, at)[0] >= 0.5
                owner[(claim >= 0.5) & inside] = index + 1
    agreement = np.stack([one.agreement for one in each])
    found = np.array([[mask is not None for mask in one.masks] for one in each])
    mean = (agreement * found).sum(axis=0) / np.maximum(found.sum(axis=0), 1)
    return ClickedObjects(masks, identities, mean, each)


class ObjectClickSession(ClickSession):
    """What was clicked so far on several objects; see :class:`ClickSession`.

    Attributes:
        names: of the objects.
        identity: of the object that the next clicks are for.
        objects: what :meth:`propagate` found last; points may have been clicked since.
    """

    def __init__(self, photos: Photos, names: Sequence[str]) -> None:
        super().__init__(photos)
        self.names = tuple(names)
        self.identity = 1
        self.objects: ClickedObjects | None = None
        self._colours = identity_bytes(len(names))
        self._shown_objects: dict[int, np.ndarray] = {}

    def choose(self, identity: int) -> None:
        """The next clicks are for another object."""
        if 1 <= identity <= len(self.names):
            self.identity = identity

    def click(self, view: int, x: float, y: float, positive: bool) -> None:
        """Adds a point of the chosen object."""
        before = len(self.points)
        super().click(view, x, y, positive)
        if len(self.points) > before:
            self.points[-1] = replace(self.points[-1], identity=self.identity)

    def propagate(self, progress: Callable[[str], None]) -> ClickedObjects:
        """Masks of all objects in all photos.

        Raises:
            MaskError: clicks are missing or contradict each other; the message says what to do.
        """
        if self.objects is None or self._stale:
            self.objects = objects_from_clicks(self.photos, self.points, self.names, progress)
            self._stale = False
            self._shown_objects.clear()
        return self.objects

    def coarse_masks(self) -> CoarseMasks:
        assert self.objects is not None
        found, remarks = self.objects, self._remarks("one of the objects", self.objects.masks)
        return CoarseMasks(found.masks, found.agreement, remarks, found.identities, self.names)

    def identities(self, view: int) -> np.ndarray | None:
        """(H, W) uint8: which objects a photo shows at the moment; None where nothing is known yet."""
        before = None if self.objects is None else self.objects.identities[view]
        here = [point for point in self.points if point.view == view]
        if not here or (self.objects is not None and not self._stale):
            return before
        if view not in self._shown_objects:
            masks: list[np.ndarray | None] = []
            for identity in range(1, len(self.names) + 1):
                known = None if before is None or not (before == identity).any() else before == identity
                clicked = any(point.identity == identity for point in here)
                corrected = mask_of_clicks(self.photos.images[view], clicks_on(here, identity), known)
                masks.append(corrected.astype(np.float32) if clicked or known is not None else None)
            owner = merge_objects(masks)[1]
            if owner is None:
                owner = np.zeros(self.photos.images[view].shape[:2], np.uint8)
            self._shown_objects[view] = owner
        return self._shown_objects[view]

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8: the photo that is shown, with its objects and points in the identities' colours."""
        picture = self.photos.images[self.shown].copy()
        identities = self.identities(self.shown)
        if identities is not None and identities.any():
            picture[identities == 0] = picture[identities == 0] // 2
            for identity, colour in enumerate(self._colours, start=1):
                ours = identities == identity
                inner = cv2.erode(ours.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
                picture[ours] = (0.6 * picture[ours] + 0.4 * colour).astype(np.uint8)
                picture[ours & ~inner] = colour
        size = max(2, round(max(picture.shape[:2]) / 120))
        for point in self.points:
            if point.view == self.shown:
                place = (int(point.x), int(point.y))
                colour = self._colours[point.identity - 1].tolist()
                cv2.circle(picture, place, size + 1, (255, 255, 255), -1)
                cv2.circle(picture, place, size, colour, -1)
                if not point.positive:
                    cv2.line(picture, (place[0] - size, place[1]), (place[0] + size, place[1]), RED.tolist(), 2)
        return picture

    def status(self, message: str = "") -> str:
        """Markdown: which object is clicked, how far the user is, and what to do next."""
        lines = [as_code(message)] if message else []
        name = self.photos.files[self.shown].name
        lines.append(f"Photo {self.shown + 1} of {len(self.photos)}: {as_code(name)}")
        lines.append(f"The next clicks are for **{self.names[self.identity - 1].replace('_', ' ')}**.")
        counts = [
            len({point.view for point in self.points if point.positive and point.identity == identity})
            for identity in range(1, len(self.names) + 1)
        ]
        each = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in zip(self.names, counts, strict=True))
        lines.append(f"Photos in which each is clicked: {each}.")
        if min(counts) < FEWEST_PHOTOS:
            lines.append(f"{FEWEST_PHOTOS} at least are needed of every object, from different sides.")
        elif self.objects is None:
            lines.append("*Propagate* shows the masks of all other photos.")
        else:
            lines.append(self._about_masks(self.objects.agreement))
        return "\n\n".join(lines)

    def _changed(self, view: int) -> None:
        super()._changed(view)
        self._shown_objects.pop(view, None)
