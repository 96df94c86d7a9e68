"""`click`: the user clicks the object in a few photos, in the browser; the rest follows from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np

from surface_sos_ns.masks.object_choice import chosen_names
from surface_sos_ns.masks.points_to_masks import ClickedMasks, ClickedPoint, mask_of_clicks, masks_from_clicks
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, MaskProvider, Photos, Progress
from surface_sos_ns.utils.text import as_code
from surface_sos_ns.web.listening import LOOPBACK, listen_problem, reachability_notes

if TYPE_CHECKING:
    from surface_sos_ns.masks.click_objects import ClickedObjects
    from surface_sos_ns.masks.click_page import ClickPage

__all__ = ["Click", "ClickSession"]

GREEN, RED = np.array([60, 220, 90]), np.array([235, 60, 50])

MIN_PHOTOS = 2
"""Photos in which the object has to be clicked."""


class Click(MaskProvider):
    """Positive and negative points, clicked on a page that this serves until *Done* is pressed there.

    Args:
        port: of the page; if it is taken, the next free one.
        host: address to listen at; 0.0.0.0 lets other machines in.
        objects, names: of several objects, see `object_choice.chosen_names`.

    Raises:
        MaskError: the port cannot be one, or the options about objects do not go together.
    """

    name: ClassVar[str] = "click"
    labels: ClassVar[str] = "a few clicks"

    def __init__(
        self, port: int = 7008, host: str = LOOPBACK, objects: int | None = None, names: Sequence[str] = ()
    ) -> None:
        if not 1 <= port <= 65535:
            raise MaskError(f"The port of the page is {port}; expected a number from 1 to 65535.")
        self.port, self.host = port, host
        self.names = chosen_names(objects, names)

    def check(self) -> None:
        why_not = listen_problem(self.host)
        if why_not is not None:
            raise MaskError(why_not)

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        if len(photos) < MIN_PHOTOS:
            raise MaskError(f"The capture has {len(photos)} photo(s); clicking needs {MIN_PHOTOS} at least.")
        what = "every object" if self.names else "the object"
        return self.serve(self._session(photos), f"click {what} in a few photos, then press Done there", progress)

    def serve(self, session: ClickSession, task: str, progress: Progress) -> CoarseMasks:
        """Shows a session's photos in the browser until the user is done.

        Args:
            session: what is clicked on.
            task: what the user has to do there, as it follows "open ... in a browser,".
            progress: called with one line per stage.
        """
        from surface_sos_ns.masks.click_page import ClickPage

        photos = session.photos
        page = ClickPage(
            [image.shape[:2] for image in photos.images], self.host, self.port, progress, self.names, session.task
        )
        try:
            progress(f"open {page.address} in a browser, {task}")
            for line in reachability_notes(self.host, page.port):
                progress(line)
            _serve(page, session, progress)
        finally:
            page.close()
        return session.coarse_masks()

    def _session(self, photos: Photos) -> ClickSession:
        if not self.names:
            return ClickSession(photos)
        from surface_sos_ns.masks.click_objects import ObjectClickSession

        return ObjectClickSession(photos, self.names)


def _serve(page: ClickPage, session: ClickSession, progress: Progress) -> None:
    """Answers what happens on the page, one event at a time, until the user is done."""

    def working(line: str) -> None:
        page.say(f"Working: {as_code(line)} ...")
        progress(line)

    page.show(session.shown, session.picture(), session.status())
    while True:
        event, *values = page.events.get()
        message = ""
        if event == "click":
            session.click(*values)
        elif event == "undo":
            session.undo()
        elif event == "show":
            session.show(*values)
        elif event == "step":
            session.show(session.shown + values[0])
        elif event == "choose":
            session.choose(*values)
        elif event in ("propagate", "done"):
            page.say("Working ...")
            try:
                session.propagate(working)
            except ValueError as error:
                message = str(error)
            else:
                if event == "done":
                    page.say("Done; the masks are with the program that opened this page. You can close it.")
                    return
        if page.events.empty():  # of several quick clicks only the last is drawn
            page.show(session.shown, session.picture(), session.status(message))


class ClickSession:
    """What was clicked so far, and what follows from it; without a browser.

    Attributes:
        points: clicks in the order they were made, in pixels of the photos as they are in ``photos.images``.
        shown: index of the photo that is shown.
        task: see `ClickPage`.
        found: what :meth:`propagate` found last; points may have been clicked since.
    """

    task: ClassVar[str | None] = None

    def __init__(self, photos: Photos) -> None:
        self.photos = photos
        self.points: list[ClickedPoint] = []
        self.shown = 0
        self.found: ClickedMasks | None = None
        self._stale = True
        self._previews: dict[int, np.ndarray] = {}

    @property
    def clicked(self) -> list[int]:
        """Photos in which the object was clicked."""
        return sorted({point.view for point in self.points if point.positive})

    def click(self, view: int, x: float, y: float, positive: bool) -> None:
        """Adds a point; one outside the photo counts for nothing."""
        height, width = self.photos.images[view].shape[:2]
        if 0 <= x < width and 0 <= y < height:
            self.points.append(ClickedPoint(view, x, y, positive))
            self._changed(view)

    def undo(self) -> None:
        """Takes the last point back, and shows its photo."""
        if self.points:
            self.shown = self.points.pop().view
            self._changed(self.shown)

    def show(self, view: int) -> None:
        """Shows a photo; after the last comes the first."""
        self.shown = view % len(self.photos)

    def choose(self, identity: int) -> None:
        """Which of several objects the next clicks are for; here there is one."""

    def propagate(self, progress: Callable[[str], None]) -> ClickedMasks | ClickedObjects:
        """Masks of all photos.

        Raises:
            MaskError: clicks are missing or contradict each other; the message says what to do.
        """
        if self.found is None or self._stale:
            if not self.points:
                raise MaskError(
                    f"Nothing is clicked yet. Click the object in {MIN_PHOTOS} photos at least, better three."
                )
            self.found = masks_from_clicks(
                self.photos.images,
                self.photos.views,
                self.points,
                self.photos.points,
                radius=self.photos.radius,
                progress=progress,
            )
            self._stale = False
            self._previews.clear()
        return self.found

    def coarse_masks(self) -> CoarseMasks:
        """What :meth:`propagate` found, with remarks."""
        assert self.found is not None
        return CoarseMasks(self.found.masks, self.found.agreement, self._remarks("the object", self.found.masks))

    def _remarks(self, what: str, masks: Sequence[np.ndarray | None]) -> list[str]:
        remarks = [f"{what} was clicked in {len(self.clicked)} photos ({len(self.points)} clicks)"]
        missing = [self.photos.files[index].name for index, mask in enumerate(masks) if mask is None]
        if missing:
            remarks.append(f"{what} is out of sight in {len(missing)} photos: {', '.join(missing[:5])}")
        return remarks

    def mask(self, view: int) -> np.ndarray | None:
        """(H, W) bool: what a photo's mask is at the moment; None where nothing is known yet."""
        before = None if self.found is None else self.found.masks[view]
        here = [point for point in self.points if point.view == view]
        if not here or (self.found is not None and not self._stale):
            return None if before is None else before >= 0.5
        if view not in self._previews:
            self._previews[view] = mask_of_clicks(self.photos.images[view], here, before)
        return self._previews[view]

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8: the photo that is shown, with its mask and its points."""
        picture = self.photos.images[self.shown].copy()
        mask = self.mask(self.shown)
        if mask is not None and mask.any():
            picture[~mask] = picture[~mask] // 2
            outline = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~mask
            picture[outline] = GREEN
        size = max(2, round(max(picture.shape[:2]) / 120))
        for point in self.points:
            if point.view == self.shown:
                place = (int(point.x), int(point.y))
                cv2.circle(picture, place, size + 1, (255, 255, 255), -1)
                cv2.circle(picture, place, size, (GREEN if point.positive else RED).tolist(), -1)
        return picture

    def status(self, message: str = "") -> str:
        """Markdown: how far the user is, and what to do next."""
        lines = [as_code(message)] if message else []
        name = self.photos.files[self.shown].name
        lines.append(f"Photo {self.shown + 1} of {len(self.photos)}: {as_code(name)}")
        count = len(self.clicked)
        if count < MIN_PHOTOS:
            lines.append(
                f"Photos in which the object is clicked: {count}. {MIN_PHOTOS} at least are needed, from different "
                "sides."
            )
        elif self.found is None:
            lines.append(f"Photos in which the object is clicked: {count}. *Propagate* shows the masks of all others.")
        else:
            lines.append(self._about_masks(self.found.agreement))
        return "\n\n".join(lines)

    def _about_masks(self, agreement: Sequence[float] | np.ndarray) -> str:
        """What to say of the masks of all photos, of this agreement in each."""
        if self._stale:
            return "Clicked since the last *Propagate*: only this photo shows it."
        return (
            f"Masks of all photos; they agree in 3D at IoU {float(np.mean(agreement)):.2f}. Click what is wrong, or "
            "*Done*."
        )

    def _changed(self, view: int) -> None:
        self._stale = True
        self._previews.pop(view, None)
