"""Photos whose EXIF tag says that they are seen turned: are the poses for the turned pixels, or for the stored ones?

Most programs that estimate poses honour the tag; COLMAP ignores it, and nerfstudio does. After a quarter turn the size
tells, see `ImageHeader.turn_for`. After half a turn, a mirroring and in square photos it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from surface_sos_ns.capture.checks import CaptureError, listed
from surface_sos_ns.utils.image_io import ImageHeader, Size

__all__ = ["orientation_remark"]


def orientation_remark(paths: Sequence[Path], headers: Sequence[ImageHeader], sizes: Sequence[Size]) -> str | None:
    """What is to be said about photos that have an orientation tag.

    Args:
        paths: N photos.
        headers: theirs.
        sizes: width and height of their cameras, of any scale.

    Returns:
        A line where photos are turned though the size does not tell, or are not turned; else None.

    Raises:
        CaptureError: some photos' sizes say that the poses are for stored pixels, those of others say nothing.
    """
    turns = [header.turn_for(size) for header, size in zip(headers, sizes, strict=True)]
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
