"""TUM RGB-D: videos of a hand-held depth camera with poses from motion capture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from surface_sos_ns.capture.convert.conversion import (
    Conversion,
    ConversionError,
    Scene,
    camera_to_world,
    image_size,
    require,
)
from surface_sos_ns.capture.views import Views

CAMERAS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    "freiburg2": (520.9, 521.0, 325.1, 249.7, 0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    "freiburg3": (535.4, 539.2, 320.1, 247.6, 0.0, 0.0, 0.0, 0.0, 0.0),
}
"""fx, fy, cx, cy (pixel centres at whole numbers) and k1, k2, p1, p2, k3 (OpenCV) of the colour cameras, as published
with the data set."""


@dataclass
class Tum(Conversion):
    """A sequence of TUM RGB-D, such as freiburg1_teddy: the folder with rgb.txt and groundtruth.txt."""

    frames: int = 200
    """Photos to take, spread over the video; of those around each place the sharpest."""
    tolerance: float = 0.02
    """Seconds that a photo and a pose may lie apart; photos without a pose are left out."""
    camera: Literal["auto", "freiburg1", "freiburg2", "freiburg3"] = "auto"
    """Which camera took them; auto reads it off the folder's name."""

    def read(self) -> Scene:
        """See `Conversion.read`."""
        require(self.frames >= 1, f"--frames is {self.frames}; at least one is needed.")
        fx, fy, cx, cy, k1, k2, p1, p2, k3 = CAMERAS[self._camera()]
        taken, names = _read_list(self.source / "rgb.txt", 2)
        measured, poses = _read_list(self.source / "groundtruth.txt", 8)
        nearest = np.abs(taken[:, None] - measured).argmin(axis=1)
        usable = np.flatnonzero(np.abs(measured[nearest] - taken) <= self.tolerance)
        require(
            len(usable) > 0,
            f"No photo of {self.source / 'rgb.txt'} has a pose in groundtruth.txt within {self.tolerance} s; "
            "do they belong together?",
        )
        paths = [self.source / name for (name,) in names]
        chosen = _sharpest(usable, paths, self.frames)
        images, path = [paths[i] for i in chosen], np.array(poses, float)[nearest[chosen]]
        width, height = np.array([image_size(image) for image in images]).T
        from scipy.spatial.transform import Rotation

        views = Views(
            camera_to_world=camera_to_world(Rotation.from_quat(path[:, 3:]).as_matrix(), path[:, :3]),
            fx=np.full(len(chosen), fx),
            fy=np.full(len(chosen), fy),
            cx=np.full(len(chosen), cx + 0.5),
            cy=np.full(len(chosen), cy + 0.5),
            width=width,
            height=height,
            distortion=np.tile([k1, k2, k3, 0.0, p1, p2], (len(chosen), 1)),
        )
        return Scene(views, images)

    def _camera(self) -> str:
        if self.camera != "auto":
            return self.camera
        found = [name for name in CAMERAS if name in self.source.resolve().name]
        require(
            len(found) == 1,
            f"{self.source}: its name tells no camera; add --camera freiburg1, 2 or 3.",
        )
        return found[0]


def _read_list(path: Path, columns: int) -> tuple[np.ndarray, list[list[str]]]:
    """Increasing timestamps (N,) in seconds, and the other columns, of a text file of the data set."""
    try:
        lines = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
        if any(len(line) != columns for line in lines):
            raise ValueError(f"a line has not {columns} columns")
        lines.sort(key=lambda line: float(line[0]))
    except (OSError, ValueError) as error:
        raise ConversionError(f"{path} cannot be read ({error}); name a sequence's folder of TUM RGB-D.") from error
    require(bool(lines), f"{path} is empty; download the sequence again.")
    return np.array([float(line[0]) for line in lines]), [line[1:] for line in lines]


def _sharpest(candidates: np.ndarray, paths: list[Path], count: int) -> list[int]:
    """Indices of the sharpest photo of each of ``count`` equal parts of the candidates."""
    parts = np.array_split(candidates, min(count, len(candidates)))
    return [int(max(part, key=lambda i: _sharpness(paths[i]))) for part in parts]


def _sharpness(path: Path) -> float:
    import cv2

    from surface_sos_ns.capture.sharpness import sharpness
    from surface_sos_ns.utils.image_io import ImageError, read_image

    try:
        return sharpness(cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY))
    except ImageError as error:
        raise ConversionError(f"{error} Or download the sequence again.") from error
