"""An export: every view rendered once for all that is made of it, each file whole, what is there already kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.frames import Frame, chosen_frames, photo_of
from surface_sos_ns.export.manifest import COMMON, Identity, Manifest
from surface_sos_ns.export.meshes import mesh_files, write_meshes
from surface_sos_ns.export.objects import subjects, with_objects
from surface_sos_ns.export.parts import (
    PART_FACTS,
    part_facts,
    part_identity,
    part_meshes,
    part_names,
    parts_of,
    with_parts,
    write_part_meshes,
)
from surface_sos_ns.export.products import MASKS, PARTS, Pictures, Product, products
from surface_sos_ns.export.settings import ExportSettings
from surface_sos_ns.export.trainers import capture_names, captures
from surface_sos_ns.export.videos import video_files, write_videos
from surface_sos_ns.utils.files import remove_leftovers, resumable, write_bytes, write_json, writing
from surface_sos_ns.utils.locks import locked_folder
from surface_sos_ns.utils.progress import Stage

if TYPE_CHECKING:
    from surface_sos_ns.api import Run

__all__ = ["write_export"]

COCO, PART_COCO = "masks_coco.json", "parts_coco.json"


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
    settings = with_parts(run, with_objects(run, settings))
    frames = chosen_frames(run, settings)
    made = products(run, settings)
    _check_outputs(run, made)
    videos = video_files(frames, settings)
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
    output, meshes, of_parts = settings.output_dir, mesh_files(settings), _part_meshes(run, settings)
    others = [output / name for name in [*capture_names(made, settings), *_about(settings)]]
    targets: list[tuple[Path, str | None]]
    targets = [(product.file(output, frame), product.kind) for frame in frames for product in made]
    targets += [(path, "video") for path in videos] + [(path, "mesh") for path in meshes]
    targets += [(path, "parts") for path in of_parts]
    folders = {output, *(path.parent for path, _ in targets)}
    manifest = Manifest.of(
        output, _identity(run, settings), [*targets, *((path, None) for path in others)], settings.overwrite
    )
    for folder in folders:
        remove_leftovers(folder)

    write_meshes(run, settings, [path for path in meshes if manifest.lacks(path)])  # first: there may be none
    _write_part_meshes(run, settings, [path for path in of_parts if manifest.lacks(path)])
    with Stage(f"Exporting {len(frames)} views to {output}", len(frames)) as stage:
        for frame in frames:
            _write_view(run, settings, frame, [p for p in made if manifest.lacks(p.file(output, frame))])
            stage.advance(1)
    for name, content in captures(run, frames, made, settings).items():
        write_json(output / name, content)
    for name, content in _contents(run, settings, frames, made).items():
        write_json(output / name, content)
    write_videos(run, frames, made, settings, [path for path in videos if manifest.lacks(path)])
    manifest.finish()
    return _summary(settings, frames, made, [*videos, *meshes, *of_parts, *others])


def _identity(run: Run, settings: ExportSettings) -> Identity:
    """What has to be equal for files of two exports to belong together: of all files, and of each kind alone."""
    views = settings.views[0] if settings.path is None else str(settings.path.resolve())
    common = {"run": str(run.config.resolve()), "checkpoint": run.checkpoint.name, "views": views}
    if settings.path is None:
        common |= {"size": settings.size, "lens": settings.lens}
    if settings.objects:
        common["objects"] = " ".join(settings.objects)
    of_kind: dict[str, dict[str, Any]] = {
        "clean-plates": {"plates": settings.plates} | ({"remove": " ".join(settings.remove)} if run.objects else {}),
        "video": {"fps": settings.fps},
        "mesh": {
            "mesh-resolution": settings.mesh_resolution,
            "mesh-faces": settings.mesh_faces,
            "mesh-texture": settings.mesh_texture,
            "texture-size": settings.texture_size,
        },
    }
    if "parts" in settings.kinds:
        of_kind["parts"] = part_identity(run, settings) | {"mesh-resolution": settings.mesh_resolution}
    return {COMMON: common} | {kind: of_kind.get(kind, {}) for kind in settings.kinds}


# ------------------------------------------------------------------ views


def _write_view(run: Run, settings: ExportSettings, frame: Frame, missing: Sequence[Product]) -> None:
    """Renders a view as far as the files that are missing need it, and writes them."""
    if not missing:
        return
    needed = sorted({name for product in missing for name in product.needs})
    photo = None if frame.view is None else functools.cache(lambda: photo_of(run, frame, settings))

    @functools.cache
    def plate() -> dict[str, np.ndarray]:
        everything = settings.remove == run.objects
        return pictures.rendered if everything else run.images_without(frame.camera, settings.remove)

    with _light(run, settings, frame, missing):
        pictures = Pictures(run.render(frame.camera, needed), photo, plate)
        for product in missing:
            write_bytes(product.file(settings.output_dir, frame), product.encode(pictures))


def _light(
    run: Run, settings: ExportSettings, frame: Frame, missing: Sequence[Product]
) -> AbstractContextManager[None]:
    """Has plates that photos are completed with rendered in the photo's light, where it differs."""
    completed = settings.plates == "composited" and any(product.kind == "clean-plates" for product in missing)
    return run.in_the_light_of(frame.view) if completed and frame.view and run.light_changes else nullcontext()


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
    values = np.arange(256)

    def annotated(layers: Sequence[tuple[str, np.ndarray]], names: Sequence[str]) -> dict[str, Any]:
        """COCO's json of the pictures in folders whose values stand for categories, by a table (256,) each."""

        def images() -> Iterator[tuple[str, np.ndarray]]:
            for frame in frames:
                found = [table[of[folder].read(settings.output_dir, frame)[..., 0]] for folder, table in layers]
                yield frame.name if frame.view is None else frame.view.name, np.max(found, axis=0)

        return coco(images(), names)

    def masks() -> dict[str, Any]:
        numbers = [run.objects.index(name) + 1 for name in settings.objects] or [1]
        folders = [subject.folder(MASKS) for subject in subjects(settings)]
        return annotated(list(zip(folders, np.outer(numbers, values > 127), strict=True)), run.objects or ["object"])

    def parts() -> dict[str, Any]:
        layers, names = [], list[str]()
        for subject, result in parts_of(run, settings):
            layers.append((subject.folder(PARTS), np.where(values > 0, values + len(names), 0)))
            names += part_names(subject, result.parts)
        return annotated(layers, names)

    content: dict[str, Callable[[], dict[str, Any]]] = {
        COCO: masks,
        PART_COCO: parts,
        PART_FACTS: lambda: part_facts(run, settings),
    }
    return {name: content[name]() for name in _about(settings)}


def _part_meshes(run: Run, settings: ExportSettings) -> list[Path]:
    return [settings.output_dir / name for subject, _ in parts_of(run, settings) for name in part_meshes(subject)]


def _write_part_meshes(run: Run, settings: ExportSettings, missing: Sequence[Path]) -> None:
    for subject, result in parts_of(run, settings):
        files = [file for name in part_meshes(subject) if (file := settings.output_dir / name) in missing]
        if files:
            with Stage("Taking the mesh of the parts", 1):
                mesh = run.mesh(subject.name, settings.mesh_resolution, result.parts)
                write_part_meshes(mesh, part_names(subject, result.parts), files)


def _summary(
    settings: ExportSettings, frames: Sequence[Frame], made: Sequence[Product], others: Sequence[Path]
) -> list[str]:
    output = settings.output_dir.resolve()
    lines = [f"{output / product.folder}/: {len(frames)} files" for product in made]
    return lines + [str(settings.output_dir.resolve() / path.relative_to(settings.output_dir)) for path in others]
