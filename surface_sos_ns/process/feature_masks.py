"""Masks that say where in photos features are looked for: on an object that moves, or everywhere but on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.lookup import files_by_name
from surface_sos_ns.capture.mask_files import read_mask
from surface_sos_ns.process.error import ProcessError
from surface_sos_ns.process.photos import Photo
from surface_sos_ns.utils.files import atomic_folder
from surface_sos_ns.utils.image_io import read_header, resized, write_image

__all__ = ["MASKS", "Use", "feature_folder", "find_masks", "write_masks"]

Use = Literal["object", "background"]

MASKS = "coarse_masks"
"""Folder in the scene for masks of the object, where the data parser finds them by name."""

MARGIN = {"object": 0.012, "background": 0.006}
"""Distance from the masks' outlines within which no features are taken, over the photo's longer side: descriptors there
cover both sides, and the outline of a smooth object is no fixed curve on its surface."""

FEW = 0.01
"""Share of a photo's pixels; below it the mask leaves no features to speak of."""


def find_masks(folder: Path, photos: Sequence[Photo], images: Path) -> list[Path]:
    """The mask of each photo, by name.

    Args:
        folder: of the masks.
        photos: N photos.
        images: the folder of the photos, as the user names it.

    Raises:
        ProcessError: there is no such folder, or photos have no mask.
    """
    if not folder.is_dir():
        raise ProcessError(f"{folder} does not exist; --masks takes a folder with one mask for each photo, by name.")
    try:
        found = files_by_name(folder, [photo.source.relative_to(images).as_posix() for photo in photos])
    except CaptureError as error:
        raise ProcessError(str(error)) from error
    lacking = [photo.source.name for photo, mask in zip(photos, found, strict=True) if mask is None]
    if lacking:
        raise ProcessError(
            f"{len(lacking)} of {len(photos)} photos have no mask in {folder}, such as {lacking[0]}; expected one for "
            "each. Make them all: surface-sos masks --images PHOTOS --output MASKS; or move those photos elsewhere."
        )
    return [mask for mask in found if mask is not None]


def write_masks(
    masks: Sequence[Path],
    names: Sequence[str],
    scene: Path,
    use: Use,
    advance: Callable[[float], None] = lambda amount: None,
) -> None:
    """Writes masks for COLMAP, see `feature_folder`; of the object's own features also masks for training, `MASKS`.

    Where features of the object are left out there are none for training: what moves may be any number of things, none
    of which need be the one to segment. Folders that are there already are left as they are.

    Args:
        masks: of N photos, the object white.
        names: of the photos in the scene.
        scene: folder of the scene, with the photos in images/.
        use: which side of the masks has the features.
        advance: called with the number of photos done.

    Raises:
        ProcessError: a mask has not its photo's proportions, or the masks leave nothing of most photos.
        ImageError: a file is damaged.
        WriteError: they cannot be written.
    """
    folder, objects = feature_folder(scene), scene / MASKS
    read = [partial(_mask_of, path, scene / "images" / name) for path, name in zip(masks, names, strict=True)]
    if not folder.is_dir():
        empty = []
        with atomic_folder(folder) as partly:
            for path, name, mask in zip(masks, names, read, strict=True):
                kept = _features(mask(), use)
                if kept.mean() < FEW:
                    empty.append(path.name)
                write_image(partly / f"{name}.png", kept.astype(np.uint8) * np.uint8(255))
                advance(1)
            if len(empty) > len(masks) / 2:
                side = "white" if use == "object" else "black"
                raise ProcessError(
                    f"{len(empty)} of {len(masks)} masks are {side} nearly nowhere, such as {empty[0]}, so --use {use} "
                    "leaves no features; expected the object white. Check the masks, or use the other side."
                )
    if use == "object" and not objects.is_dir():
        with atomic_folder(objects) as partly:
            for name, mask in zip(names, read, strict=True):
                grey = np.rint(255 * np.clip(mask(), 0, 1)).astype(np.uint8)
                write_image((partly / name).with_suffix(".png"), grey)


def _mask_of(path: Path, photo: Path) -> np.ndarray:
    """(H, W) float32 mask of a photo of the scene, at its size.

    Raises:
        ProcessError: it has other proportions.
    """
    mask, (width, height) = read_mask(path), read_header(photo).stored
    if abs(mask.shape[1] * height - mask.shape[0] * width) > 2 * max(width, height):
        raise ProcessError(
            f"{path} is {mask.shape[1]} x {mask.shape[0]} pixels, and the photo {photo.name} {width} x {height}; "
            "expected the same proportions. Make the masks of these very photos."
        )
    return resized(mask, width, height)


def _features(mask: np.ndarray, use: Use) -> np.ndarray:
    """(H, W) bool: where features are looked for."""
    chosen = ((mask > 0.5) if use == "object" else (mask <= 0.5)).astype(np.uint8)
    radius = max(1, round(MARGIN[use] * max(mask.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # The picture's border is no outline: nothing is taken off there.
    return np.asarray(cv2.erode(chosen, disc, borderType=cv2.BORDER_REPLICATE) > 0)


def feature_folder(scene: Path) -> Path:
    """Where COLMAP's masks of a scene are."""
    return scene / "colmap" / "masks"
