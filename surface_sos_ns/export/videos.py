"""The videos of an export: of the object, or of each of several and of all of them together; from its pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.frames import Frame, photo_of
from surface_sos_ns.export.objects import ALL, Subject, subjects, together
from surface_sos_ns.export.products import CUTOUTS, IMAGES, PLATES, Product
from surface_sos_ns.export.settings import ExportSettings
from surface_sos_ns.utils.identity_colours import identity_bytes
from surface_sos_ns.utils.metrics import THRESHOLD
from surface_sos_ns.utils.pictures import size_within
from surface_sos_ns.utils.progress import Stage

if TYPE_CHECKING:
    from surface_sos_ns.api import Run

__all__ = ["video_files", "write_videos"]

MAX_TILE = 960  # pixels along the longer side of a picture in the side-by-side video


def video_files(frames: Sequence[Frame], settings: ExportSettings) -> list[Path]:
    """The videos that the settings ask for.

    Raises:
        ExportError: the frames have different sizes.
    """
    if "video" not in settings.kinds:
        return []
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise ExportError(
            f"The photos have different sizes ({', '.join(f'{w} x {h}' for w, h in sorted(sizes)[:4])}), and a video "
            "has one. Leave video out of --what, or export a camera path: --views path FILE."
        )
    return [file for subject in (*subjects(settings), *together(settings)) for file in _files(subject, settings)]


def write_videos(
    run: Run, frames: Sequence[Frame], made: Sequence[Product], settings: ExportSettings, missing: Collection[Path]
) -> None:
    """Makes the videos that are missing, of all that were asked for, from the pictures that are there."""
    if not missing:
        return
    from surface_sos_ns.export.video import MP4, PRORES, VP9, write_video

    transparent = VP9 if settings.transparent_video == "webm" else PRORES
    with Stage("Writing videos", len(missing) * len(frames)) as stage:

        def counted(picture: Callable[[Frame], np.ndarray]) -> Iterator[np.ndarray]:
            for frame in frames:
                yield picture(frame)
                stage.advance(1)

        for subject in (*subjects(settings), *together(settings)):
            pictures = _Pictures(run, {product.folder: product for product in made}, settings, subject)
            how = ((pictures.mask, MP4), (pictures.side_by_side, MP4), (pictures.cutout, transparent))
            for path, (picture, form) in zip(_files(subject, settings), how, strict=True):
                if path in missing:
                    write_video(path, counted(picture), settings.fps, form)


def _files(subject: Subject, settings: ExportSettings) -> list[Path]:
    """Its videos: mask, side by side, and the cut-out."""
    names = ("mask.mp4", "side_by_side.mp4", f"cutout.{settings.transparent_video}")
    return [settings.output_dir / subject.folder("video") / name for name in names]


@dataclass(frozen=True)
class _Pictures:
    """The pictures of an object's videos, from files of the export."""

    run: Run
    files: Mapping[str, Product]
    """By their folder."""
    settings: ExportSettings
    subject: Subject

    def cutout(self, frame: Frame) -> np.ndarray:
        """(H, W, 4)."""
        if self.subject.name != ALL:
            return self._read(self.subject.folder(CUTOUTS), frame)
        return _joined(self._each_cutout(frame))

    def mask(self, frame: Frame) -> np.ndarray:
        """(H, W, 3), of several objects in the colours of their identities."""
        found = self.cutout(frame)[..., 3] > 255 * THRESHOLD
        if self.subject.name != ALL:
            return np.repeat(found[..., None].astype(np.uint8) * 255, 3, axis=2)
        largest = np.argmax([cutout[..., 3] for cutout in self._each_cutout(frame)], axis=0)
        numbers = np.array([self.run.objects.index(name) for name in self.settings.objects])
        return identity_bytes(len(self.run.objects))[numbers[largest]] * found[..., None].astype(np.uint8)

    def side_by_side(self, frame: Frame) -> np.ndarray:
        """The photo, the mask, the cut-out over grey and, where there is one, the clean plate."""
        colours = self.cutout(frame).astype(np.float32)
        alpha = colours[..., 3:] / 255
        over_grey = np.rint(alpha * colours[..., :3] + (1 - alpha) * 128).astype(np.uint8)
        if IMAGES in self.files:
            seen = self._read(IMAGES, frame)
        else:
            seen = np.rint(photo_of(self.run, frame, self.settings) * 255).astype(np.uint8)
        plates = [self._read(PLATES, frame)] if PLATES in self.files else []
        return np.hstack([_small(tile) for tile in (seen, self.mask(frame), over_grey, *plates)])

    def _each_cutout(self, frame: Frame) -> list[np.ndarray]:
        return [self._read(subject.folder(CUTOUTS), frame) for subject in subjects(self.settings)]

    def _read(self, folder: str, frame: Frame) -> np.ndarray:
        return self.files[folder].read(self.settings.output_dir, frame)


def _joined(cutouts: Sequence[np.ndarray]) -> np.ndarray:
    """The cut-out (H, W, 4) of several objects whose cut-outs are given, all uint8 and not premultiplied."""
    each = np.asarray(cutouts, dtype=np.float32)
    alpha = each[..., 3:].sum(axis=0)
    shares = each[..., 3:] / np.maximum(alpha, 1)
    around = each[..., :3].max(axis=0)  # of transparent pixels beside the objects, which keep a colour
    colours = np.where(alpha > 0, (shares * each[..., :3]).sum(axis=0), around)
    return np.rint(np.concatenate([colours, alpha.clip(max=255)], axis=-1)).astype(np.uint8)


def _small(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    size = size_within(width, height, MAX_TILE)
    return image if size == (width, height) else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
