"""The common part of all conversions: a scene of a data set, and writing it as a capture."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from surface_sos_ns.capture.transforms import transforms_content
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.files import atomic_folder, remove_leftovers, write_json

OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0])
"""Camera axes: right, down, forward (OpenCV) to right, up, back (OpenGL)."""


class ConversionError(UserError):
    """A scene cannot be converted; the message names the file, what was expected and what to do."""


@dataclass(frozen=True)
class Scene:
    """A scene of a data set: N posed photos, and masks and sparse points if it has any."""

    views: Views
    """N cameras, world frame of the data set."""
    images: Sequence[Path]
    """N photos."""
    coarse_masks: Sequence[Path | None] = ()
    """N masks or None; empty if the data set has none."""
    points: tuple[np.ndarray, np.ndarray] | None = None
    """Sparse points: positions (P, 3), world frame, and colours (P, 3) uint8."""


@dataclass
class Conversion(ABC):
    """A conversion of a scene, and its command-line options."""

    source: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SOURCE")]]
    """Folder of the scene, as the data set's project hands it out."""
    output: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUTPUT")]]
    """Folder of the capture; it must not exist yet."""
    link: bool = False
    """Link to the photos instead of copying them."""

    @abstractmethod
    def read(self) -> Scene:
        """Reads the scene.

        Raises:
            ConversionError: a file is missing, or its content is not as expected.
        """

    def main(self) -> None:
        """Runs the command."""
        refuse_existing(self.output)
        require(self.source.is_dir(), f"{self.source} is no folder; name that of a scene.")
        scene = self.read()
        write_capture(self.output, scene, self.link)
        print(f"{len(scene.images)} photos: {self.output.resolve()}")


def require(holds: bool, message: str) -> None:
    """Raises a ConversionError with the message unless it holds."""
    if not holds:
        raise ConversionError(message)


def refuse_existing(folder: Path) -> None:
    """Raises a ConversionError if a path exists."""
    if folder.exists():
        raise ConversionError(f"{folder} exists; nothing is overwritten. Name another folder, or remove that one.")


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a photo as stored; in these data sets, cameras are for the pixels as stored.

    Raises:
        ConversionError: it is missing or cannot be read.
    """
    from surface_sos_ns.utils.image_io import ImageError, read_header

    try:
        return read_header(path).stored
    except ImageError as error:
        raise ConversionError(f"{error} Or download the scene again.") from error


def camera_to_world(rotation: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(N, 3, 4) OpenGL camera-to-world matrices from OpenCV camera-to-world rotations (N, 3, 3) and centres (N, 3)."""
    return np.concatenate([rotation @ OPENCV_TO_OPENGL, centre[..., None]], axis=-1)


def write_capture(folder: Path, scene: Scene, link: bool = False) -> None:
    """Writes a scene as a capture, atomically.

    Args:
        folder: of the capture; must not exist.
        scene: its photos keep their names, except that dots before the suffix become underscores.
        link: make symbolic links instead of copies.

    Raises:
        ConversionError: the folder exists, or two photos have the same name.
    """
    refuse_existing(folder)
    names = [f"{path.stem.replace('.', '_')}" for path in scene.images]
    require(len(set(names)) == len(names), f"{scene.images[0].parent}: two photos have one name but for the suffix.")
    remove_leftovers(folder.parent)
    with atomic_folder(folder) as partial:
        frames: list[dict[str, Any]] = []
        masks = scene.coarse_masks or [None] * len(names)
        for name, image, mask in zip(names, scene.images, masks, strict=True):
            frames.append({"file_path": _place(partial, "images", name, image, link)})
            if mask is not None:
                frames[-1]["coarse_mask_path"] = _place(partial, "coarse_masks", name, mask, link)
        content = transforms_content(scene.views, frames)
        if scene.points is not None:
            from surface_sos_ns.capture.ply import write_ply_points

            write_ply_points(partial / "sparse_pc.ply", *scene.points)
            content["ply_file_path"] = "sparse_pc.ply"
        write_json(partial / "transforms.json", content)


def _place(folder: Path, kind: str, name: str, source: Path, link: bool) -> str:
    """Copies or links a file; returns its path in the capture."""
    target = folder / kind / f"{name}{source.suffix.lower()}"
    target.parent.mkdir(exist_ok=True)
    if link:
        target.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, target)
    return f"{kind}/{target.name}"
