"""Reads a capture's photos for providers of masks, by the plugin's data parser, so that all its checks apply."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surface_sos_ns.capture.points_file import first_fitting_points
from surface_sos_ns.masks.provider import Photos
from surface_sos_ns.plugin.cameras import views_from_cameras
from surface_sos_ns.plugin.dataparser import ObjectHint, SurfaceSOSDataParser, SurfaceSOSDataParserConfig
from surface_sos_ns.utils.image_io import read_image, resized
from surface_sos_ns.utils.text import printable

__all__ = ["LONGEST_SIDE", "Scene", "read_scene"]

LONGEST_SIDE = 800
"""Photos are shrunk to this many pixels: as those that training finds the object in."""


@dataclass(frozen=True)
class Scene:
    """A capture whose photos get masks.

    Attributes:
        source: the json file that names the photos, such as `transforms.json`.
        file_paths: of each photo, in the order of the frames, `file_path` as it stands there.
        photos: the photos and cameras, in the same order.
    """

    source: Path
    file_paths: list[str]
    photos: Photos


class _Parser(SurfaceSOSDataParser):
    """The parser without its line about split and masks, which are not those of a training to come."""

    def _report(self, *about: object) -> None:
        """Says nothing."""


def read_scene(
    data: Path, object_point: tuple[float, float, float] | None = None, object_radius: float | None = None
) -> Scene:
    """Reads all photos of a capture, whatever its split, and no masks.

    Args:
        data: the capture's folder, or its json file.
        object_point: a point of the object, in the coordinates of `transforms.json`, if the user names one.
        object_radius: radius of a sphere that holds the object, in the units of `transforms.json`.

    Raises:
        CaptureError: whatever is wrong with the capture, with the file, what was expected and what to do.
        UserError: a camera is neither a perspective nor a fisheye one.
    """
    config = SurfaceSOSDataParserConfig(
        data=data,
        eval_mode="all",
        downscale_factor=1,  # the photos are shrunk here; no folder of smaller ones is made for it
        coarse_masks="none",
        object_point=object_point,
        object_radius=object_radius,
    )
    parser = _Parser(config)
    outputs = parser.get_dataparser_outputs("train")
    capture = parser.capture
    # The outputs are sorted by name, as nerfstudio has photos.
    files = [capture.folder / path for path in parser.files.photos]
    place = {path: index for index, path in enumerate(outputs.image_filenames)}
    order = np.array([place[path] for path in files])
    full = views_from_cameras(outputs.cameras).subset(order)
    views = full.scaled(min(1.0, LONGEST_SIDE / int(max(full.width.max(), full.height.max()))))
    images = [
        resized(read_image(path, (int(width), int(height))), int(width), int(height))
        for path, width, height in zip(files, views.width, views.height, strict=True)
    ]
    points, remarks = first_fitting_points(outputs.metadata["points_files"], full, capture.file_paths)
    for remark in remarks:
        print(printable(f"Warning: {remark}"))
    hint: ObjectHint | None = outputs.metadata["object_hint"]
    photos = Photos(
        files=files,
        images=images,
        views=views,
        sizes=full.sizes(),
        points=points,
        near=None if hint is None or hint.point is None else np.array(hint.point),
        radius=None if hint is None else hint.radius,
    )
    return Scene(capture.source, capture.file_paths, photos)
