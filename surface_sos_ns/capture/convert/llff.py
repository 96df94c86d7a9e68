"""LLFF (Local Light Field Fusion): forward-facing scenes with `poses_bounds.npy`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surface_sos_ns.capture.convert.conversion import Conversion, ConversionError, Scene, image_size, require
from surface_sos_ns.capture.names import hidden
from surface_sos_ns.capture.views import Views


@dataclass
class Llff(Conversion):
    """A scene of LLFF, such as flower, fortress or horns."""

    factor: int = 4
    """Which photos: 1 takes images/, 4 and 8 take images_4/ and images_8/."""

    def read(self) -> Scene:
        """See `Conversion.read`."""
        rows = _rows(self)
        name = "images" if self.factor == 1 else f"images_{self.factor}"
        folder = self.source / name
        there = sorted(path.name for path in self.source.glob("images*") if path.is_dir())
        require(folder.is_dir(), f"{self.source} has no folder {name}; it has {', '.join(there) or 'no photos'}.")
        photos = (path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        images = sorted(path for path in photos if not hidden(path.name))
        require(
            len(images) == len(rows),
            f"{self.source / 'poses_bounds.npy'} has {len(rows)} poses, {folder} {len(images)} photos; they belong "
            "together in the order of the names. Download the scene again.",
        )
        pose, (height, width, focal) = rows[:, :, :4], rows[:, :, 4].T
        # Columns of LLFF poses: down, right, back, centre.
        down, right, back, centre = np.moveaxis(pose, -1, 0)
        size = np.array([image_size(path) for path in images])
        across, along = size[:, 0] / width, size[:, 1] / height
        views = Views(
            camera_to_world=np.stack([right, -down, back, centre], axis=-1),
            fx=focal * across,
            fy=focal * along,
            cx=size[:, 0] / 2,
            cy=size[:, 1] / 2,
            width=size[:, 0],
            height=size[:, 1],
        )
        return Scene(views, images, points=self._points())

    def _points(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Points of the COLMAP model that the poses come from, in their frame; None if the scene has none."""
        model = self.source / "sparse" / "0"
        if not (model / "points3D.bin").is_file():
            return None
        from surface_sos_ns.utils.colmap import pycolmap

        points = pycolmap.Reconstruction(str(model)).points3D.values()
        return np.array([point.xyz for point in points]), np.array([point.color for point in points], np.uint8)


def _rows(scene: Llff) -> np.ndarray:
    """(N, 3, 5) poses, with height, width and focal length (pixels) of the full-size photo in the last column."""
    path = scene.source / "poses_bounds.npy"
    try:
        values = np.load(path)
    except (OSError, ValueError) as error:
        raise ConversionError(f"{path} cannot be read ({error}); name the folder of a scene of LLFF.") from error
    shape = "x".join(map(str, values.shape))
    require(values.ndim == 2 and values.shape[1] == 17, f"{path} is an array of {shape}; expected Nx17.")
    return values[:, :15].reshape(-1, 3, 5).astype(np.float64)
