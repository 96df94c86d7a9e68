"""Which views are exported, how their files are called, and which cameras they are rendered with."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from surface_sos_ns.capture.names import distinct_stems, photo_paths
from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.settings import ExportSettings

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

    from surface_sos_ns.api import Run, View

__all__ = ["Frame", "chosen_frames", "file_names", "photo_of", "read_path"]


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture to export.

    Attributes:
        name: of its files, without suffix: "left/0001".
        camera: what it is rendered with, (1,).
        view: the photo that it is of; None on a path.
    """

    name: str
    camera: Cameras
    view: View | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.camera.width.flatten()[0]), int(self.camera.height.flatten()[0])


def chosen_frames(run: Run, settings: ExportSettings) -> list[Frame]:
    """The views that the settings ask for, in order.

    Raises:
        ExportError: there is none, or the camera path cannot be read.
    """
    if settings.path is not None:
        cameras = read_path(settings.path)
        return [Frame(f"{index:05d}", camera, None) for index, camera in enumerate(cameras)]
    names = file_names([view.name for view in run.views], str(run.capture))
    wanted = {"all": (True, False), "train": (False,), "test": (True,)}[settings.views[0]]
    frames = [
        Frame(name, run.camera(view, settings.size, settings.lens), view)
        for name, view in zip(names, run.views, strict=True)
        if view.held_out in wanted
    ]
    if not frames:
        which = "held out" if settings.views[0] == "test" else "trained on"
        raise ExportError(f"No photo was {which} in {run.config}; use --views all.")
    return frames


def photo_of(run: Run, frame: Frame, settings: ExportSettings) -> np.ndarray:
    """(H, W, 3) float32, 0 to 1: the photo of a frame that is of one, as its camera sees it."""
    assert frame.view is not None
    return run.photo(frame.view, settings.size, settings.lens) / np.float32(255)


def file_names(photos: Sequence[str], folder: str = "") -> list[str]:
    """Names for files made from photos: without the folder that all of them are in, and without suffix.

    Where two photos differ in their suffix alone, theirs stay: "a.jpg" and "a.png" become "a.jpg" and "a.png".

    Args:
        photos: as in transforms.json.
        folder: of the capture.
    """
    paths = photo_paths(photos, folder)
    parents = [posixpath.dirname(path) for path in paths]
    common = posixpath.commonpath(parents) if parents else ""
    return distinct_stems([posixpath.relpath(path, common or ".") for path in paths])


def read_path(file: Path) -> list[Cameras]:
    """The cameras (1,) of a nerfstudio camera path, world frame, as ns-render camera-path takes it.

    Raises:
        ExportError: it is not one.
    """
    from nerfstudio.cameras.camera_paths import get_path_from_json
    from nerfstudio.cameras.cameras import CameraType

    try:
        content = json.loads(file.read_bytes())
        poses = content["camera_path"]
        times = [pose.pop("render_time", None) for pose in poses]
        cameras = get_path_from_json(content)  # it would read the times in a shape that does not fit
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise ExportError(
            f"{file} is not a camera path ({type(error).__name__}: {error}). Make one in the viewer, tab Render, "
            "button Generate Command."
        ) from error
    flat = (CameraType.PERSPECTIVE.value, CameraType.FISHEYE.value)
    if not all(int(kind) in flat for kind in cameras.camera_type.flatten()):
        raise ExportError(f"{file} is of panoramas; expected perspective or fisheye cameras.")
    if None not in times:
        cameras = replace(cameras, times=torch.tensor(times, dtype=torch.float32)[:, None])
    return [cameras[index : index + 1] for index in range(len(poses))]
