"""transforms.json files, so that this and other trainers take an export as a capture.

| file | photos | masks |
|---|---|---|
| transforms.json | the photos | `coarse_mask_path`: the object, for this package |
| transforms_object.json | the cut-outs, with transparency | none: trainers that know alpha learn the object alone |
| transforms_masked.json | the photos | `mask_path`: the object, for trainers that do not know alpha |
| transforms_background.json | the clean plates | none: the scene without the object |

Of a run with several objects, the second and third are there for each, as transforms_object_cup.json; the first names a
mask for each object, and their names. With one chosen object that is the object of the first.

nerfstudio's `mask_path` selects the pixels that have a loss. In transforms_masked.json these are the object's, so
nothing constrains the rest of the scene; transforms_object.json is better where the trainer knows transparency.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surface_sos_ns.capture.transforms import capture_content, transforms_content
from surface_sos_ns.export.frames import Frame
from surface_sos_ns.export.meshes import point_file
from surface_sos_ns.export.objects import Subject, subjects
from surface_sos_ns.export.products import CUTOUTS, IMAGES, MASKS, PLATES, Product
from surface_sos_ns.export.settings import ExportSettings

if TYPE_CHECKING:
    from surface_sos_ns.api import Run

__all__ = ["capture_names", "captures"]

WHOLE, BACKGROUND = "transforms.json", "transforms_background.json"
OBJECT, MASKED = "transforms_object", "transforms_masked"


def capture_names(products: Sequence[Product], settings: ExportSettings) -> list[str]:
    """The files that `captures` makes."""
    have = {product.folder for product in products}
    names = []
    for subject in subjects(settings):
        if settings.path is None and subject.folder(MASKS) in have:
            names += [WHOLE, f"{subject.file(MASKED)}.json"]
        if subject.folder(CUTOUTS) in have:
            names.append(f"{subject.file(OBJECT)}.json")
    if PLATES in have:
        names.append(BACKGROUND)
    return list(dict.fromkeys(names))


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
    known = capture_content(run.source)

    def files(folder: str) -> list[str]:
        return [by_folder[folder].file(Path(), frame).as_posix() for frame in frames]

    def photos() -> list[str]:
        if IMAGES in by_folder:
            return files(IMAGES)
        return [_relative(frame.view.path, output) for frame in frames if frame.view is not None]

    def content(paths: list[str], masks: dict[str, Any] | None = None, points: str | None = None) -> Any:
        rows: list[dict[str, Any]] = [{"file_path": path} for path in paths]
        for key, names in (masks or {}).items():
            rows = [row | {key: name} for row, name in zip(rows, names, strict=True)]
        found = transforms_content(views, rows) | _split(frames, paths)
        found |= {key: known[key] for key in ("applied_transform", "applied_scale") if key in known}
        return found | ({"ply_file_path": points} if points else {})

    scene = _relative(run.capture / known["ply_file_path"], output) if "ply_file_path" in known else None

    def whole() -> Any:
        masks = {"coarse_mask_path": _masks_by_name(settings, files)} | _valid_pixels(run, frames, settings)
        names = {"object_names": list(settings.objects)} if len(settings.objects) > 1 else {}
        return content(photos(), masks, scene) | names

    def of_object(subject: Subject, kind: str) -> Any:
        points = point_file(subject)
        points_there = points if (output / points).is_file() else None
        if kind == OBJECT:
            return content(files(subject.folder(CUTOUTS)), None, points_there)
        return content(photos(), {"mask_path": files(subject.folder(MASKS))}, points_there)

    made = {WHOLE: whole, BACKGROUND: lambda: content(files(PLATES), None, scene)} | {
        f"{subject.file(kind)}.json": partial(of_object, subject, kind)
        for subject in subjects(settings)
        for kind in (OBJECT, MASKED)
    }
    return {name: made[name]() for name in capture_names(products, settings)}


def _masks_by_name(settings: ExportSettings, files: Callable[[str], list[str]]) -> Sequence[str | dict[str, str]]:
    """Per frame its mask, or that of each of several objects by name."""
    paths = [files(subject.folder(MASKS)) for subject in subjects(settings)]
    if len(paths) == 1:
        return paths[0]
    return [dict(zip(settings.objects, of_frame, strict=True)) for of_frame in zip(*paths, strict=True)]


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
    known = {frame["file_path"]: frame.get("mask_path") for frame in capture_content(run.source)["frames"]}
    found = [known.get(frame.view.name) for frame in frames if frame.view is not None]
    if not found or None in found:
        return {}
    return {"mask_path": [_relative(run.capture / str(path), settings.output_dir) for path in found]}


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
