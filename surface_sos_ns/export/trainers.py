"""transforms.json files, so that this and other trainers take an export as a capture.

| file | photos | masks |
|---|---|---|
| transforms.json | the photos | `coarse_mask_path`: the object, for this package |
| transforms_object.json | the cut-outs, with transparency | none: trainers that know alpha learn the object alone |
| transforms_masked.json | the photos | `mask_path`: the object, for trainers that do not know alpha |
| transforms_background.json | the clean plates | none: the scene without the object |

nerfstudio's `mask_path` says which pixels count. In transforms_masked.json those of the object do, so whatever else a
trainer puts into the scene costs it nothing; transforms_object.json is better where the trainer knows transparency.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surface_sos_ns.capture.transforms import transforms_content
from surface_sos_ns.export.frames import Frame
from surface_sos_ns.export.products import CUTOUTS, IMAGES, MASKS, PLATES, Product
from surface_sos_ns.export.settings import ExportSettings

if TYPE_CHECKING:
    from surface_sos_ns.api import Run

__all__ = ["POINT_FILE", "capture_names", "captures"]

POINT_FILE = "mesh/object_points.ply"
WHOLE, OBJECT, MASKED, BACKGROUND = (
    *("transforms.json", "transforms_object.json", "transforms_masked.json", "transforms_background.json"),
)


def capture_names(products: Sequence[Product], settings: ExportSettings) -> list[str]:
    """The files that `captures` makes."""
    have = {product.folder for product in products}
    names = []
    if settings.path is None and MASKS in have:
        names += [WHOLE, MASKED]
    if CUTOUTS in have:
        names.append(OBJECT)
    if PLATES in have:
        names.append(BACKGROUND)
    return names


def captures(
    run: Run, frames: Sequence[Frame], products: Sequence[Product], settings: ExportSettings
) -> dict[str, Any]:
    """The content of each file by its name. Paths in them are relative to the export's folder."""
    from surface_sos_ns.plugin.cameras import views_from_cameras

    output = settings.output_dir
    by_folder = {product.folder: product for product in products}
    lenses = [views_from_cameras(frame.camera) for frame in frames]
    joined = {
        name: np.concatenate([getattr(lens, name) for lens in lenses])
        for name in ("fx", "fy", "cx", "cy", "width", "height", "distortion", "fisheye")
    }
    poses = np.stack([run.pose(frame.camera) for frame in frames])[:, :3]
    views = replace(lenses[0], camera_to_world=poses, **joined)
    known = json.loads(run.source.read_bytes())

    def files(folder: str) -> list[str]:
        return [by_folder[folder].file(Path(), frame).as_posix() for frame in frames]

    def photos() -> list[str]:
        if IMAGES in by_folder:
            return files(IMAGES)
        return [_relative(frame.view.path, output) for frame in frames if frame.view is not None]

    def content(paths: list[str], masks: dict[str, list[str]] | None = None, points: str | None = None) -> Any:
        rows = [{"file_path": path} for path in paths]
        for key, names in (masks or {}).items():
            rows = [row | {key: name} for row, name in zip(rows, names, strict=True)]
        found = transforms_content(views, rows) | _split(frames, paths)
        found |= {key: known[key] for key in ("applied_transform", "applied_scale") if key in known}
        return found | ({"ply_file_path": points} if points else {})

    scene = _relative(run.capture / known["ply_file_path"], output) if "ply_file_path" in known else None
    made = {
        WHOLE: lambda: content(
            photos(), {"coarse_mask_path": files(MASKS)} | _valid_pixels(run, frames, settings), scene
        ),
        MASKED: lambda: content(photos(), {"mask_path": files(MASKS)}, _points(output)),
        OBJECT: lambda: content(files(CUTOUTS), None, _points(output)),
        BACKGROUND: lambda: content(files(PLATES), None, scene),
    }
    return {name: made[name]() for name in capture_names(products, settings)}


def _split(frames: Sequence[Frame], paths: Sequence[str]) -> dict[str, list[str]]:
    """The run's own split, where it held photos out and both parts are exported."""
    held = [frame.view is not None and frame.view.held_out for frame in frames]
    if not any(held) or all(held):
        return {}
    tested = [path for path, out in zip(paths, held, strict=True) if out]
    trained = [path for path, out in zip(paths, held, strict=True) if not out]
    return {"train_filenames": trained, "val_filenames": tested, "test_filenames": tested}


def _valid_pixels(run: Run, frames: Sequence[Frame], settings: ExportSettings) -> dict[str, list[str]]:
    """The capture's own masks of valid pixels, where the photos are still those they were made for."""
    if settings.lens != "original" or (settings.size == "training" and run.factor > 1):
        return {}
    known = {frame["file_path"]: frame.get("mask_path") for frame in json.loads(run.source.read_bytes())["frames"]}
    found = [known.get(frame.view.name) for frame in frames if frame.view is not None]
    if not found or None in found:
        return {}
    return {"mask_path": [_relative(run.capture / str(path), settings.output_dir) for path in found]}


def _points(output: Path) -> str | None:
    return POINT_FILE if (output / POINT_FILE).is_file() else None


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
