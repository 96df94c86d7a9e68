"""What `surface-sos process` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from surface_sos_ns.process.feature_masks import Use
from surface_sos_ns.process.lenses import Sharing
from surface_sos_ns.process.pairs import Matching
from surface_sos_ns.process.structure import CameraModel

__all__ = ["ProcessSettings"]


@dataclass
class ProcessSettings:
    """Which photos become a scene, and how."""

    images: Path
    """A folder of photos, or a video."""
    output: Path
    """Folder of the scene. One whose making was interrupted is gone on with."""
    frames: int = 120
    """Of a video: how many frames are taken, each the sharpest of its stretch."""
    camera_model: CameraModel = "opencv"
    """The lens: opencv (usual; radial and tangential distortion), simple (for few photos; one number of distortion),
    pinhole (rendered or undistorted images), fisheye. With --use object, opencv means simple."""
    camera: Sharing = "auto"
    """Which photos share a lens: auto (those of one size, camera and focal length), shared (all), per-image."""
    matching: Literal["auto"] | Matching = "auto"
    """Which photos are compared: exhaustive (all pairs), sequential (neighbours in the order of names, and some far
    ones), circle (neighbours, and the last with the first), auto (circle for a turntable, sequential for videos and for
    more than 200 photos)."""
    max_image_size: int = 1600
    """Features are looked for in photos shrunk to this many pixels; the scene's images keep their size."""
    masks: Path | None = None
    """A folder with a mask of the object for each photo, by name; see --use. With --use object they are also the
    scene's coarse masks."""
    use: Use | None = None
    """Where features are looked for, with --masks. object: on the object alone, for a turntable, where the camera
    stands and the object turns; photos in the order of their names. background: everywhere but there, for things that
    move about while the camera walks."""
    overwrite: bool = False
    """Begin anew where the output exists. The old folder is not deleted but renamed."""
