"""Reads a capture for providers of masks, by the data parser of the plugin, so that all its checks apply."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surface_sos_ns.capture.images import read_image, resized
from surface_sos_ns.masks.provider import Photos
from surface_sos_ns.plugin.datamanager import views_from_cameras
from surface_sos_ns.plugin.dataparser import ObjectHint, PointsSource, SurfaceSOSDataParser, SurfaceSOSDataParserConfig

__all__ = ["LONGEST_SIDE", "Scene", "find_scene", "read_scene"]

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

    def scene_file(self) -> Path:
        """The json file of the capture."""
        return self.source()[0]

    def photo(self, file_path: str) -> Path:
        """The photo that a frame names, as the parser's outputs have it."""
        return self._get_fname(Path(file_path), self.source()[1])


def find_scene(data: Path) -> Path:
    """The json file of a capture.

    Args:
        data: the capture's folder, or its json file.

    Raises:
        CaptureError: there is none.
    """
    return _Parser(SurfaceSOSDataParserConfig(data=data)).scene_file()


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
    source = parser.scene_file()
    file_paths = [str(frame["file_path"]) for frame in json.loads(source.read_text(encoding="utf-8"))["frames"]]
    # nerfstudio sorts the photos by name.
    place = {path: index for index, path in enumerate(outputs.image_filenames)}
    order = np.array([place[parser.photo(file_path)] for file_path in file_paths])
    files = [outputs.image_filenames[index] for index in order]
    full = views_from_cameras(outputs.cameras).subset(order)
    views = full.scaled(min(1.0, LONGEST_SIDE / int(max(full.width.max(), full.height.max()))))
    images = [
        resized(read_image(path), int(width), int(height))
        for path, width, height in zip(files, views.width, views.height, strict=True)
    ]
    points: PointsSource | None = outputs.metadata["points_source"]
    hint: ObjectHint | None = outputs.metadata["object_hint"]
    photos = Photos(
        files=files,
        images=images,
        views=views,
        sizes=[(int(width), int(height)) for width, height in zip(full.width, full.height, strict=True)],
        points=None if points is None else points.load(full, [path.name for path in files]),
        near=None if hint is None or hint.point is None else np.array(hint.point),
        radius=None if hint is None else hint.radius,
    )
    return Scene(source, file_paths, photos)
