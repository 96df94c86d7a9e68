"""Captures that are COLMAP's: a folder with the photos in ``images/`` and the model in ``sparse/0``.

Trainers of Gaussian splats read such folders. The model is turned into what transforms.json would hold, in memory:
nothing is written into the folder, and a model that is made anew is read anew.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.colmap_lens import convert_lens
from surface_sos_ns.capture.colmap_points import read_model

__all__ = ["IMAGES", "colmap_content", "colmap_folder", "find_colmap_model"]

IMAGES = "images"
"""Folder of the photos; COLMAP's names of images are relative to it."""

MODELS = ("sparse/0", "colmap/sparse/0", "sparse")
"""Where the model may be, in the order in which they are looked for."""

COLMAP_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""COLMAP's cameras look along +z with y down, OpenGL's along -z with y up."""

NOTICED_FIT_ERROR = 0.05
"""Error of a fitted lens, in pixels, above which a remark is made."""


def find_colmap_model(folder: Path) -> Path | None:
    """The folder of the COLMAP model of a capture, or None."""
    for name in MODELS:
        if any((folder / name / f"images.{kind}").is_file() for kind in ("bin", "txt")):
            return folder / name
    return None


def colmap_folder(model: Path) -> Path:
    """The folder of the capture that a model is of: the nearest one above it that has ``images/``.

    Raises:
        CaptureError: there is none.
    """
    for folder in model.absolute().parents[:3]:
        if (folder / IMAGES).is_dir():
            return folder
    raise CaptureError(
        f"{model} is a COLMAP model, and there is no folder {IMAGES}/ beside {model.parent.name}/; expected the photos "
        "that the poses were estimated with there."
    )


def colmap_content(model: Path) -> tuple[dict[str, Any], list[str]]:
    """What the transforms.json of a COLMAP model holds.

    Args:
        model: folder of the model: cameras, images and points3D, binary or text.

    Returns:
        content: JSON values; a frame for each image, in the order of the names, OpenGL cameras in
            COLMAP's world frame.
        remarks: sentences for the user: lenses that are approximated, other models.

    Raises:
        ImportError: pycolmap is not installed.
        CaptureError: the model cannot be read, has no image, or a lens that nerfstudio cannot follow.
    """
    read = read_model(model)
    images = sorted(read.images.values(), key=lambda image: image.name)
    if not images:
        raise CaptureError(f"The COLMAP model in {model} has no image. Run COLMAP's mapper again.")
    lenses = {}
    for index in sorted({image.camera_id for image in images}):
        try:
            lenses[index] = convert_lens(read.cameras[index])
        except CaptureError as error:
            raise CaptureError(f"In the COLMAP model in {model}, {error}") from None
    frames = []
    for image in images:
        world_to_camera = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        pose = np.linalg.inv(world_to_camera) @ COLMAP_TO_OPENGL
        frames.append(
            {"file_path": f"{IMAGES}/{image.name}", "transform_matrix": pose.tolist()} | lenses[image.camera_id].keys
        )
    remarks = []
    count = Counter(image.camera_id for image in images)
    for index, lens in lenses.items():
        if lens.error > NOTICED_FIT_ERROR:
            remarks.append(
                f"the lens {read.cameras[index].model.name} of {count[index]} photos is read as "
                f"{lens.keys['camera_model']}, which differs by up to {lens.error:.2f} pixels."
            )
    others = [other for other in _sisters(model) if other != model]
    if others:
        remarks.append(
            f"COLMAP made {len(others) + 1} models of parts of the photos; {model.name} with {len(images)} photos is "
            f"used. More photos between the parts would join them."
        )
    # The frame is COLMAP's own, so its points need no transform.
    return {"frames": frames, "applied_transform": np.eye(4)[:3].tolist()}, remarks


def _sisters(model: Path) -> list[Path]:
    """All models of a folder sparse/ that are numbered as COLMAP numbers them."""
    if not model.name.isdigit():
        return [model]
    return [path for path in sorted(model.parent.iterdir()) if path.name.isdigit() and (path / "images.bin").is_file()]
