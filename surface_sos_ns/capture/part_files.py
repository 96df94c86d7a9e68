"""Reads the true parts of an object: identities in images (gt_parts/), and on the faces of a mesh (gt_object.ply)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surface_sos_ns.capture import checks
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.utils.image_io import ImageError, Size, read_picture
from surface_sos_ns.utils.part_metrics import face_labels

__all__ = ["PartMesh", "check_part_images", "read_part_image", "read_part_mesh"]

MAX_PARTS = 1000
"""Largest identity where the parts have no names. More are no parts: a depth map, say."""
EXPECTED = "a PNG of one channel with 8 or 16 bits (or a palette): 0 for the background, 1, 2, ... for the parts"

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3
"""Colour types of PNG."""


@dataclass(frozen=True)
class PartMesh:
    """A triangle mesh whose faces have identities.

    Attributes:
        vertices: (V, 3), in the frame of the file.
        faces: (F, 3) vertex indices.
        labels: (F,) int64 identities of the faces, 0 for none.
    """

    vertices: np.ndarray
    faces: np.ndarray
    labels: np.ndarray


def check_part_images(files: Sequence[Path | None], photos: Sequence[Path], accepted: Sequence[Sequence[Size]]) -> None:
    """Checks what the headers of identity images tell, before any of them is read.

    Args:
        files: for each photo its identities, or None.
        photos: for messages.
        accepted: for each photo the accepted sizes (width, height): as used, and as stored.

    Raises:
        CaptureError: a file is missing or unreadable, has another size than its photo, or cannot hold identities.
    """
    checks.check_mask_sizes(files, photos, accepted, "image of true parts", tolerance=0)
    for path in files:
        if path is not None:
            _check_format(path)


def read_part_image(path: Path, size: Size, count: int | None = None) -> np.ndarray:
    """The identities of parts in a view.

    An image of several times the size is reduced by taking the middle pixel of each block, as photos are reduced by
    averaging blocks; identities are never interpolated.

    Args:
        path: the file.
        size: width and height of the view, pixels; see `utils.image_io.read_image` for its part in the orientation.
        count: number of parts, the largest identity; None if it is not known.

    Returns:
        (H, W) int64, 0 for the background.

    Raises:
        CaptureError: the file cannot be read, cannot hold identities, is smaller than the view, or holds an identity
            that there is not.
    """
    _check_format(path)
    try:
        picture = read_picture(path, size)
    except ImageError as error:
        raise CaptureError(str(error)) from error
    values = picture.values if picture.palette_indices is None else picture.palette_indices
    width, height = size
    factor = min(values.shape[1] // width, values.shape[0] // height)
    if factor < 1:
        raise CaptureError(
            f"The image of true parts {path} is {values.shape[1]} x {values.shape[0]} pixels, its photo {width} x "
            f"{height}. Make it for this photo, at the photo's size."
        )
    highest = int(values.max())
    if highest > (MAX_PARTS if count is None else count):
        known = f"at most {MAX_PARTS}" if count is None else f"{count}, the number of part_names in transforms.json"
        raise CaptureError(f"{path} holds the identity {highest}; expected 0 for the background, and 1 to {known}.")
    middle = slice(factor // 2, None, factor)
    return values[middle, middle][:height, :width].astype(np.int64)


def read_part_mesh(path: Path) -> PartMesh | None:
    """The mesh in a PLY file with the integer property `part`, of its faces or of its vertices.

    Of vertices, a face has the identity that most of its corners have.

    Returns:
        The mesh; None if the file has no such property.

    Raises:
        CaptureError: the file does not exist, holds no triangles, or identities that are no whole numbers from 0 on.
    """
    import trimesh

    try:
        mesh = trimesh.load(path, file_type="ply", process=False)
    except Exception as error:  # the parser raises many types
        raise CaptureError(f"{path} cannot be read as a PLY file ({error}). Replace it.") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise CaptureError(f"{path} has no faces; expected a triangle mesh.")
    elements = mesh.metadata["_ply_raw"]  # trimesh reads properties that it does not know, and leaves them here
    named = [name for name in ("face", "vertex") if "part" in elements[name]["properties"]]
    if not named:
        return None
    labels = np.ravel(elements[named[0]]["data"]["part"])
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise CaptureError(f"{path}: the property 'part' is no whole number, or negative; expected 0, 1, 2, ...")
    faces = np.asarray(mesh.faces)
    if named[0] == "vertex":
        labels = face_labels(faces, labels)
    elif len(labels) != len(faces):
        raise CaptureError(f"{path} has faces that are no triangles; expected a triangle mesh.")
    return PartMesh(np.asarray(mesh.vertices), faces, labels.astype(np.int64))


def _check_format(path: Path) -> None:
    """Whether a file stores whole numbers, one a pixel, exactly as written.

    Grey values of fewer than 8 bits are brightness: decoders spread them over the full range.

    Raises:
        CaptureError: it does not, or cannot be opened.
    """
    try:
        with path.open("rb") as file:
            start = file.read(26)
    except OSError as error:
        raise CaptureError(f"{path} cannot be read ({error.strerror}). Replace the file, or leave it out.") from error
    depth, colour = tuple(start[24:26]) if len(start) == 26 and start.startswith(PNG_SIGNATURE) else (0, None)
    if not (colour == PALETTE or (colour == GREY and depth in (8, 16))):
        found = "no PNG" if colour is None else f"a PNG of {depth} bits and colour type {colour}"
        raise CaptureError(f"The image of true parts {path} is {found}; expected {EXPECTED}.")
