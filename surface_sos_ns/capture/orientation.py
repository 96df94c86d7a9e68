"""EXIF orientation of photos: whether the poses are for the upright pixels or for the pixels as stored.

Most programs that estimate poses apply the EXIF tag; COLMAP and nerfstudio ignore it. After a rotation by 90 degrees
the image size tells which was done, see `ImageHeader.orientation_for`; after one by 180 degrees, a reflection, or in
square photos it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from surface_sos_ns.capture.checks import CaptureError, listed
from surface_sos_ns.utils.image_io import ImageHeader, Size

__all__ = ["orientation_remark"]


def orientation_remark(paths: Sequence[Path], headers: Sequence[ImageHeader], sizes: Sequence[Size]) -> str | None:
    """A remark about photos with an EXIF orientation tag.

    Args:
        paths: N photos.
        headers: of the photos.
        sizes: width and height of their cameras, at any scale.

    Returns:
        A sentence if photos are rotated although their size does not tell, or if the tag is ignored; else None.

    Raises:
        CaptureError: by their size, some poses are for the pixels as stored, and for other photos the size does not
            tell.
    """
    turns = [header.orientation_for(size) for header, size in zip(headers, sizes, strict=True)]
    unclear = [
        path
        for path, header, turn in zip(paths, headers, turns, strict=True)
        if turn != 1 and header.stored == header.upright
    ]
    ignored = [path for path, header, turn in zip(paths, headers, turns, strict=True) if turn != header.orientation]
    remedy = "remove the tags: `exiftool -Orientation= FILES` (it keeps the originals as FILE_original)"
    if unclear and ignored:
        raise CaptureError(
            f"{_named(unclear)} have an EXIF orientation tag, and their size does not tell whether the poses are for "
            f"the turned photos. Those of {_named(ignored)} are for the stored pixels. If all are, {remedy}."
        )
    if unclear:
        return (
            f"{_named(unclear)} are turned as their EXIF orientation tag says. If the poses are for the pixels as they "
            f"are stored (COLMAP and nerfstudio ignore the tag), {remedy}."
        )
    if ignored:
        return (
            f"{_named(ignored)} are not turned as their EXIF orientation tag says, since the cameras have the size of "
            "the pixels as they are stored."
        )
    return None


def _named(paths: Sequence[Path]) -> str:
    return f"{len(paths)} photos ({listed([path.name for path in paths], 3)})"
