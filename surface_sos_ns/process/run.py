"""From photos or a video to a scene that is ready to train on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from surface_sos_ns.capture.lookup import visible_files
from surface_sos_ns.capture.names import listed
from surface_sos_ns.process import structure
from surface_sos_ns.process.error import ProcessError
from surface_sos_ns.process.folder import begin
from surface_sos_ns.process.lenses import group_by_camera
from surface_sos_ns.process.library_output import library_output_to
from surface_sos_ns.process.pairs import MAX_EXHAUSTIVE, choose_matching, photo_pairs
from surface_sos_ns.process.photos import MIN_PHOTOS, Photo, copy_upright, find_photos
from surface_sos_ns.process.scene import write_scene
from surface_sos_ns.process.settings import ProcessSettings
from surface_sos_ns.process.structure import Structure
from surface_sos_ns.process.video import count_frames, extract_frames
from surface_sos_ns.utils.cores import usable_cores
from surface_sos_ns.utils.files import atomic_folder, resumable
from surface_sos_ns.utils.progress import Stage
from surface_sos_ns.utils.text import printable

__all__ = ["run_process"]

FEW_PLACED = 0.8
"""Share of the photos; where fewer have a pose, more matches are tried, and the summary says what helps."""


def run_process(settings: ProcessSettings) -> str:
    """Makes a scene that is ready to train on; goes on with one whose making was interrupted.

    Returns:
        What came out, and what comes next, for the user.

    Raises:
        ProcessError: the input cannot be used, or no poses were found; the message says why and what to do.
        WriteError: a file cannot be written; the same command goes on from there.
    """
    structure.require_pycolmap()
    source = _look_at(settings)
    with resumable():
        begin(settings.output, _dependencies(settings, source), settings.overwrite)
        names = _bring_images(settings, source)
        found = _find_structure(settings, names)
        write_scene(settings.output, found.model)
    return _summary(settings, found)


def _look_at(settings: ProcessSettings) -> list[Photo] | int:
    """The photos, or the number of frames of the video.

    Raises:
        ProcessError: for anything that can be seen before any work.
    """
    source, output = settings.images.resolve(), settings.output.resolve()
    if not source.exists():
        raise ProcessError(f"{settings.images} does not exist; expected a folder of photos, or a video.")
    if output == source or source in output.parents or output in source.parents:
        raise ProcessError(
            f"{settings.output} and {settings.images} lie within each other; name an output folder beside the photos."
        )
    if settings.frames < MIN_PHOTOS:
        raise ProcessError(f"--frames is {settings.frames}; expected at least {MIN_PHOTOS}, better 60 to 150.")
    if settings.max_image_size < 100:
        raise ProcessError(f"--max-image-size is {settings.max_image_size} pixels; expected at least 100.")
    if source.is_dir():
        found = find_photos(settings.images)
        for remark in found.remarks:
            print(printable(remark))
        return found.photos
    frames = count_frames(settings.images)
    if frames < MIN_PHOTOS:
        raise ProcessError(f"{settings.images} has {frames} frames; expected at least {MIN_PHOTOS}.")
    return frames


def _dependencies(settings: ProcessSettings, source: list[Photo] | int) -> dict[str, Any]:
    """What images and features depend on, as JSON gives it back. Matching is not in it: pairs can always be added."""
    files = {} if isinstance(source, int) else {photo.name: photo.source for photo in source}
    files = files or {settings.images.name: settings.images}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    options = {key: asdict(settings)[key] for key in ("frames", "camera_model", "camera", "max_image_size")}
    return {"images": str(settings.images.resolve()), **options, "files": sizes}


def _bring_images(settings: ProcessSettings, source: list[Photo] | int) -> list[str]:
    """Fills images/ unless that is done already; the photos' names in the order they were taken."""
    folder = settings.output / "images"
    if not folder.is_dir():
        with atomic_folder(folder) as partial:
            if isinstance(source, int):
                with Stage(f"Looking for sharp frames among {source}", source) as stage:
                    extract_frames(settings.images, settings.frames, partial, source, stage.reach)
            else:
                with Stage(f"Copying {len(source)} photos", len(source)) as stage:
                    copy_upright(source, partial, stage.advance)
    if isinstance(source, int):
        return sorted(visible_files(folder))
    return [photo.name for photo in source]


def _find_structure(settings: ProcessSettings, names: Sequence[str]) -> Structure:
    """Features, matches, poses, and again with more matches where few photos were placed.

    The library's own words go to process.log.

    Raises:
        ProcessError: no poses were found.
    """
    images, database = settings.output / "images", settings.output / "colmap" / "database.db"
    threads, count, in_a_row = usable_cores(), len(names), settings.images.is_file()
    groups = [[path.name for path in group] for group in group_by_camera([images / n for n in names], settings.camera)]
    matching = choose_matching(count, in_a_row) if settings.matching == "auto" else settings.matching
    pairs = photo_pairs(count, matching)
    kind = f"{settings.camera_model} lens, {len(groups)} camera{'s' if len(groups) > 1 else ''}"
    print(f"{count} photos, {kind}; {len(pairs)} pairs ({matching}); {threads} threads.")
    if settings.matching == "auto" and matching == "sequential" and not in_a_row:
        print(
            f"More than {MAX_EXHAUSTIVE} photos: each is compared with its neighbours in the order of names, which "
            "must be the order they were taken in. --matching exhaustive compares all, and takes long."
        )

    def placed(matches: Path, guided: bool) -> Structure:
        with Stage(f"Comparing {len(pairs)} pairs of photos", len(pairs)) as stage:
            structure.match_pairs(matches, names, pairs, threads, stage.advance, guided)
        with Stage(f"Placing {count} photos", count) as stage:
            return structure.map_photos(matches, images, names, threads, stage.reach)

    first: Structure | None = None
    with library_output_to(settings.output / "process.log"):
        with Stage(f"Features of {count} photos", count) as stage:
            structure.extract_features(
                database, images, groups, settings.camera_model, settings.max_image_size, threads, stage.advance
            )
        with suppress(ProcessError):
            first = placed(database, guided=False)
        if first is not None and len(first.placed) >= FEW_PLACED * count:
            return first
        print(f"Only {0 if first is None else len(first.placed)} of them placed; trying again with more matches.")
        more = database.with_name("guided.db")
        structure.copy_features(database, more)
        try:
            second = placed(more, guided=True)
        except ProcessError:
            if first is None:
                raise
            return first
        return second if first is None or len(second.placed) > len(first.placed) else first


def _summary(settings: ProcessSettings, structure: Structure) -> str:
    """What came out, what to do about it if that is little, and what comes next."""
    placed, count = len(structure.placed), len(structure.placed) + len(structure.left_out)
    lines = [
        f"{placed} of {count} photos have a pose; {structure.points} points, {structure.error:.2f} pixels mean "
        "reprojection error."
    ]
    if structure.left_out:
        lines.append(f"Without a pose, and not in the scene: {listed(structure.left_out, 10)}.")
    if placed < FEW_PLACED * count:
        lines.append(
            "That is few. What helps: more photos between those that have a pose and those that have none, so that "
            "neighbours overlap by two thirds; --matching exhaustive, where it was not; sharper photos; more texture "
            "around the object; no zooming; nothing that moves."
        )
    lines += [
        f"Next: surface-sos masks --data {settings.output}    (coarse masks; may be left out)",
        f"      ns-train surface-sos --data {settings.output}    (on a CPU: surface-sos-lite)",
    ]
    return "\n".join(lines)
