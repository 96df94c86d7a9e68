"""An export: every view rendered once for all that is made of it, each file whole, what is there already kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.frames import Frame, chosen_frames
from surface_sos_ns.export.manifest import COMMON, Identity, Manifest
from surface_sos_ns.export.parts import (
    PART_FACTS,
    PART_MESHES,
    part_facts,
    part_identity,
    part_names,
    with_parts,
    write_part_meshes,
)
from surface_sos_ns.export.products import CUTOUTS, IMAGES, MASKS, PARTS, PLATES, Pictures, Product, products
from surface_sos_ns.export.settings import ExportSettings
from surface_sos_ns.export.trainers import POINT_FILE, capture_names, captures
from surface_sos_ns.utils.files import remove_leftovers, resumable, write_bytes, write_json, writing
from surface_sos_ns.utils.image_io import ImageError, read_picture
from surface_sos_ns.utils.locks import locked_folder
from surface_sos_ns.utils.metrics import THRESHOLD
from surface_sos_ns.utils.pictures import size_within
from surface_sos_ns.utils.progress import Stage

if TYPE_CHECKING:
    from surface_sos_ns.api import Run

__all__ = ["write_export"]

COCO, PART_COCO = "masks_coco.json", "parts_coco.json"
MAX_TILE = 960  # pixels along the longer side of a picture in the side-by-side video


def write_export(run: Run, settings: ExportSettings) -> list[str]:
    """Writes all that the settings ask for; what an interrupted export has written is kept.

    Args:
        run: an opened run.
        settings: checked.

    Returns:
        Lines about what there is now.

    Raises:
        ExportError: files of something else are in the way, or something that was asked for cannot be made.
        WriteError: a file cannot be written; the same export goes on from there.
        InUseError: another process writes to the same folder.
    """
    output = settings.output_dir
    if output.resolve() == run.capture.resolve():
        raise ExportError(f"{output} is the capture itself; export into a folder of its own.")
    settings = with_parts(run, settings)
    frames = chosen_frames(run, settings)
    made = products(run, settings)
    _check_outputs(run, made)
    videos = _videos(frames, settings)
    with resumable():
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
        with locked_folder(output, "Wait until it is done, or choose another --output-dir."):
            return _write(run, settings, frames, made, videos)


def _check_outputs(run: Run, made: Sequence[Product]) -> None:
    """
    Raises:
        ExportError: something that was asked for is made of outputs that the run's method does not have.
    """
    for product in made:
        lacking = [name for name in product.needs if name not in run.outputs]
        if lacking:
            had = [other.kind for other in made if other.kind and set(other.needs) <= set(run.outputs)]
            asked = " ".join(dict.fromkeys(had))
            raise ExportError(
                f"{run.config} is of a method without {' and '.join(lacking)}, of which {product.kind} are made. Ask "
                f"for what it has: --what {asked or 'masks mattes cutouts'}."
            )


def _write(
    run: Run, settings: ExportSettings, frames: Sequence[Frame], made: Sequence[Product], videos: Sequence[Path]
) -> list[str]:
    output, meshes, part_meshes = settings.output_dir, _meshes(settings), _part_meshes(settings)
    others = [output / name for name in [*capture_names(made, settings), *_about(settings)]]
    targets: list[tuple[Path, str | None]]
    targets = [(product.file(output, frame), product.kind) for frame in frames for product in made]
    targets += [(path, "video") for path in videos] + [(path, "mesh") for path in meshes]
    targets += [(path, "parts") for path in part_meshes]
    folders = {output, *(path.parent for path, _ in targets)}
    manifest = Manifest.of(
        output, _identity(run, settings), [*targets, *((path, None) for path in others)], settings.overwrite
    )
    for folder in folders:
        remove_leftovers(folder)

    _write_mesh(run, settings, [path for path in meshes if manifest.lacks(path)])
    _write_part_meshes(run, settings, [path for path in part_meshes if manifest.lacks(path)])
    with Stage(f"Exporting {len(frames)} views to {output}", len(frames)) as stage:
        for frame in frames:
            _write_view(run, settings, frame, [p for p in made if manifest.lacks(p.file(output, frame))])
            stage.advance(1)
    for name, content in captures(run, frames, made, settings).items():
        write_json(output / name, content)
    for name, content in _contents(run, settings, frames, made).items():
        write_json(output / name, content)
    _write_videos(run, frames, made, settings, videos, [path for path in videos if manifest.lacks(path)])
    manifest.finish()
    return _summary(settings, frames, made, [*videos, *meshes, *part_meshes, *others])


def _identity(run: Run, settings: ExportSettings) -> Identity:
    """What has to be equal for files of two exports to belong together: of all files, and of each kind alone."""
    views = settings.views[0] if settings.path is None else str(settings.path.resolve())
    common = {"run": str(run.config.resolve()), "checkpoint": run.checkpoint.name, "views": views}
    if settings.path is None:
        common |= {"size": settings.size, "lens": settings.lens}
    of_kind: dict[str, dict[str, Any]] = {
        "clean-plates": {"plates": settings.plates},
        "video": {"fps": settings.fps},
        "mesh": {"mesh-resolution": settings.mesh_resolution},
    }
    if "parts" in settings.kinds:
        result = part_identity(run.part_result(settings.parts))
        of_kind["parts"] = result | {"mesh-resolution": settings.mesh_resolution}
    return {COMMON: common} | {kind: of_kind.get(kind, {}) for kind in settings.kinds}


# ------------------------------------------------------------------ views


def _write_view(run: Run, settings: ExportSettings, frame: Frame, missing: Sequence[Product]) -> None:
    """Renders a view as far as the files that are missing need it, and writes them."""
    if not missing:
        return
    needed = sorted({name for product in missing for name in product.needs})
    photo = None if frame.view is None else functools.cache(lambda: _photo(run, frame, settings))
    pictures = Pictures(run.render(frame.camera, needed), photo)
    for product in missing:
        write_bytes(product.file(settings.output_dir, frame), product.encode(pictures))


def _photo(run: Run, frame: Frame, settings: ExportSettings) -> np.ndarray:
    """(H, W, 3) float32, 0 to 1."""
    assert frame.view is not None
    return run.photo(frame.view, settings.size, settings.lens) / np.float32(255)


def _read(path: Path) -> np.ndarray:
    """(H, W, 3) RGB or (H, W, 4) RGBA uint8 of an image of the export."""
    try:
        picture = read_picture(path)
    except ImageError as error:
        raise ExportError(f"{error} Or remove it, and run the same command again: it is made anew.") from error
    if picture.alpha is not None:
        return np.dstack([picture.values, picture.alpha])
    return np.repeat(picture.values[..., None], 3, axis=2) if picture.values.ndim == 2 else picture.values


def _about(settings: ExportSettings) -> list[str]:
    """The files that `_contents` makes."""
    files = {"masks": [COCO], "parts": [PART_COCO, PART_FACTS]}
    return [name for kind, names in files.items() if kind in settings.kinds for name in names]


def _contents(
    run: Run, settings: ExportSettings, frames: Sequence[Frame], made: Sequence[Product]
) -> dict[str, dict[str, Any]]:
    """The content of each file about masks and parts by its name, from the pictures that are there."""
    from surface_sos_ns.export.coco import coco

    of = {product.folder: product for product in made}

    def pictures(folder: str) -> Iterator[tuple[str, np.ndarray]]:
        for frame in frames:
            name = frame.name if frame.view is None else frame.view.name
            yield name, _read(of[folder].file(settings.output_dir, frame))[..., 0]

    content: dict[str, Callable[[], dict[str, Any]]] = {
        COCO: lambda: coco(((name, mask > 127) for name, mask in pictures(MASKS)), ["object"]),
        PART_COCO: lambda: coco(pictures(PARTS), part_names(cast("int", settings.parts))),
        PART_FACTS: lambda: part_facts(run.part_result(settings.parts)),
    }
    return {name: content[name]() for name in _about(settings)}


# ------------------------------------------------------------------ videos and mesh


def _meshes(settings: ExportSettings) -> list[Path]:
    if "mesh" not in settings.kinds:
        return []
    names = [f"mesh/object.{kind}" for kind in dict.fromkeys(settings.mesh_format)]
    return [settings.output_dir / name for name in [*names, POINT_FILE]]


def _write_mesh(run: Run, settings: ExportSettings, missing: Sequence[Path]) -> None:
    """Takes the mesh, first of all: it may turn out that there is none."""
    if not missing:
        return
    from surface_sos_ns.export.mesh import write_mesh, write_points
    from surface_sos_ns.models.surface_sos.mesh import MeshError

    points = settings.output_dir / POINT_FILE
    with Stage("Taking the mesh", 1):
        try:
            mesh = run.mesh(settings.mesh_resolution)
        except MeshError as error:
            raise ExportError(f"No mesh: {error}. Leave mesh out of --what.") from error
        if points in missing:
            write_points(mesh, points)
        write_mesh(mesh, [path for path in missing if path != points])


def _part_meshes(settings: ExportSettings) -> list[Path]:
    return [settings.output_dir / name for name in PART_MESHES] if "parts" in settings.kinds else []


def _write_part_meshes(run: Run, settings: ExportSettings, missing: Sequence[Path]) -> None:
    if not missing:
        return
    parts = cast("int", settings.parts)
    with Stage("Taking the mesh of the parts", 1):
        write_part_meshes(run.mesh(settings.mesh_resolution, parts), part_names(parts), missing)


def _videos(frames: Sequence[Frame], settings: ExportSettings) -> list[Path]:
    if "video" not in settings.kinds:
        return []
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise ExportError(
            f"The photos have different sizes ({', '.join(f'{w} x {h}' for w, h in sorted(sizes)[:4])}), and a video "
            "has one. Leave video out of --what, or export a camera path: --views path FILE."
        )
    names = ("mask.mp4", "side_by_side.mp4", f"cutout.{settings.transparent_video}")
    return [settings.output_dir / "video" / name for name in names]


def _write_videos(
    run: Run,
    frames: Sequence[Frame],
    made: Sequence[Product],
    settings: ExportSettings,
    videos: Sequence[Path],
    missing: Sequence[Path],
) -> None:
    """Makes the videos that are missing, of all that were asked for, from the pictures that are there."""
    if not missing:
        return
    from surface_sos_ns.export.video import MP4, PRORES, VP9, write_video

    of = {product.folder: product for product in made}
    output = settings.output_dir

    def cutout(frame: Frame) -> np.ndarray:
        return _read(of[CUTOUTS].file(output, frame))

    def mask(frame: Frame) -> np.ndarray:
        return np.repeat((cutout(frame)[..., 3:] > 255 * THRESHOLD).astype(np.uint8) * 255, 3, axis=2)

    def side_by_side(frame: Frame) -> np.ndarray:
        colours = cutout(frame).astype(np.float32)
        alpha = colours[..., 3:] / 255
        over_grey = np.rint(alpha * colours[..., :3] + (1 - alpha) * 128).astype(np.uint8)
        seen = _read(of[IMAGES].file(output, frame)) if IMAGES in of else None
        if seen is None:
            seen = np.rint(_photo(run, frame, settings) * 255).astype(np.uint8)
        tiles = [seen, mask(frame), over_grey]
        if PLATES in of:
            tiles.append(_read(of[PLATES].file(output, frame)))
        return np.hstack([_small(tile) for tile in tiles])

    transparent = VP9 if settings.transparent_video == "webm" else PRORES
    how = dict(zip(videos, ((mask, MP4), (side_by_side, MP4), (cutout, transparent)), strict=True))
    with Stage("Writing videos", len(missing) * len(frames)) as stage:

        def pictures(path: Path) -> Iterator[np.ndarray]:
            for frame in frames:
                yield how[path][0](frame)
                stage.advance(1)

        for path in missing:
            write_video(path, pictures(path), settings.fps, how[path][1])


def _small(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    size = size_within(width, height, MAX_TILE)
    return image if size == (width, height) else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _summary(
    settings: ExportSettings, frames: Sequence[Frame], made: Sequence[Product], others: Sequence[Path]
) -> list[str]:
    output = settings.output_dir.resolve()
    lines = [f"{output / product.folder}/: {len(frames)} files" for product in made]
    return lines + [str(settings.output_dir.resolve() / path.relative_to(settings.output_dir)) for path in others]
