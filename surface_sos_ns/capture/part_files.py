"""Reads the true parts of an object: identities in images (gt_parts/), and on the faces of a mesh (gt_object.ply)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.identity_files import read_identities
from surface_sos_ns.utils.image_io import Size
from surface_sos_ns.utils.part_metrics import face_labels

__all__ = ["KIND", "PartMesh", "read_part_image", "read_part_mesh"]

MAX_PARTS = 1000
"""Largest identity where the parts have no names. An image with a larger one shows no parts, but a depth map, say."""
KIND = "true parts"
"""What the images show, for messages."""


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


def read_part_image(path: Path, size: Size, count: int | None = None) -> np.ndarray:
    """The identities of parts in a view, see `identity_files.read_identities`.

    Args:
        path: the file.
        size: width and height of the view, pixels.
        count: number of parts, the largest identity; None if it is not known.

    Returns:
        (H, W) int64, 0 for the background.

    Raises:
        CaptureError: the file cannot be read, cannot hold identities, is smaller than the view, or holds an identity
            that there is not.
    """
    known = f"at most {MAX_PARTS}" if count is None else f"{count}, the number of part_names in transforms.json"
    return read_identities(path, size, KIND, MAX_PARTS if count is None else count, known)


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
