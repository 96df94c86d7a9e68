"""BlendedMVS: photos blended with renderings of a textured mesh, cameras in MVSNet's text files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surface_sos_ns.capture.convert.conversion import (
    Conversion,
    ConversionError,
    Scene,
    camera_to_world,
    image_size,
    require,
)
from surface_sos_ns.capture.names import hidden
from surface_sos_ns.capture.views import Views


@dataclass
class BlendedMvs(Conversion):
    """A scene of BlendedMVS: the folder with blended_images/ and cams/."""

    def read(self) -> Scene:
        """See `Conversion.read`."""
        files = sorted(path for path in (self.source / "cams").glob("*_cam.txt") if not hidden(path.name))
        require(bool(files), f"{self.source / 'cams'} has no files *_cam.txt; name a scene's folder of BlendedMVS.")
        images = [self.source / "blended_images" / f"{path.stem.removesuffix('_cam')}.jpg" for path in files]
        cameras = [_read_camera(path) for path in files]
        extrinsic, intrinsic = (np.array(part) for part in zip(*cameras, strict=True))
        rotation = extrinsic[:, :3, :3].transpose(0, 2, 1)  # the file has world-to-camera matrices in OpenCV axes
        centre = -(rotation @ extrinsic[:, :3, 3:])[..., 0]
        width, height = np.array([image_size(path) for path in images]).T
        views = Views(
            camera_to_world=camera_to_world(rotation, centre),
            fx=intrinsic[:, 0, 0],
            fy=intrinsic[:, 1, 1],
            cx=intrinsic[:, 0, 2],
            cy=intrinsic[:, 1, 2],
            width=width,
            height=height,
        )
        return Scene(views, images)


def _read_camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera matrix (4, 4) and intrinsic matrix (3, 3) of a camera file."""
    words = path.read_text().split()
    try:
        if (words[0], words[17]) != ("extrinsic", "intrinsic"):
            raise ValueError("the words 'extrinsic' and 'intrinsic' are not where they should be")
        return np.array(words[1:17], float).reshape(4, 4), np.array(words[18:27], float).reshape(3, 3)
    except (ValueError, IndexError) as error:
        raise ConversionError(
            f"{path} is no camera file ({error}); expected 'extrinsic' with 16 numbers and 'intrinsic' with 9."
        ) from error
