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
from surface_sos_ns.process.feature_masks import feature_folder, find_masks, write_masks
from surface_sos_ns.process.folder import begin
from surface_sos_ns.process.lenses import group_by_camera
from surface_sos_ns.process.library_output import library_output_to
from surface_sos_ns.process.pairs import MAX_EXHAUSTIVE, choose_matching, photo_pairs
from surface_sos_ns.process.photos import MIN_PHOTOS, Photo, copy_upright, find_photos
from surface_sos_ns.process.scene import write_scene
from surface_sos_ns.process.settings import ProcessSettings
from surface_sos_ns.process.standing import MIN_STANDING, drop_standing, standing_share, turntable_advice
from surface_sos_ns.process.structure import Structure
from surface_sos_ns.process.turntable import settle_on_one_axis
from surface_sos_ns.process.video import count_frames, extract_frames
from surface_sos_ns.utils.cores import usable_cores
from surface_sos_ns.utils.files import atomic_folder, resumable
from surface_sos_ns.utils.image_io import read_header
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
    masks = _look_at_masks(settings, source)
    with resumable():
        begin(settings.output, _dependencies(settings, source, masks), settings.overwrite)
        names = _bring_images(settings, source)
        if settings.use is not None:
            with Stage(f"Masks of {len(names)} photos", len(names)) as stage:
                write_masks(masks, names, settings.output, settings.use, stage.advance)
        found, advice = _find_structure(settings, names)
        write_scene(settings.output, found.model)
    return _summary(settings, found, advice)


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


def _look_at_masks(settings: ProcessSettings, source: list[Photo] | int) -> list[Path]:
    """The mask of each photo, where some are given.

    Raises:
        ProcessError: options that do not go together, or masks that are missing.
    """
    if settings.masks is None and settings.use is None:
        return []
    if settings.masks is None or settings.use is None:
        raise ProcessError(
            "--masks and --use belong together: a folder of masks, and whether features are looked for on the object "
            "(--use object, a turntable) or everywhere but there (--use background)."
        )
    if isinstance(source, int):
        raise ProcessError(
            f"--masks goes with a folder of photos, and {settings.images} is a video. Its frames are in images/ of a "
            "scene that was made of it, or ffmpeg -i VIDEO -r 3 FRAMES/%04d.jpg writes some: make masks of those, and "
            "name their folder with --images."
        )
    return find_masks(settings.masks, source, settings.images)


def _dependencies(settings: ProcessSettings, source: list[Photo] | int, masks: Sequence[Path]) -> dict[str, Any]:
    """What images and features depend on, as JSON gives it back. Matching is not in it: pairs can always be added."""
    files = {} if isinstance(source, int) else {photo.name: photo.source for photo in source}
    files = files or {settings.images.name: settings.images}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    options = {key: asdict(settings)[key] for key in ("frames", "camera_model", "camera", "max_image_size")}
    given = {"use": settings.use, "masks": [str(path.resolve()) for path in masks]} if masks else {}
    return {"images": str(settings.images.resolve()), **options, "files": sizes, **given}


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


def _find_structure(settings: ProcessSettings, names: Sequence[str]) -> tuple[Structure, list[str]]:
    """Features, matches, poses, and again with more matches where few photos were placed; and what was warned of.

    The library's output goes to process.log.

    Raises:
        ProcessError: no poses were found.
    """
    images, database = settings.output / "images", settings.output / "colmap" / "database.db"
    threads, count, in_a_row = usable_cores(), len(names), settings.images.is_file()
    groups = [[path.name for path in group] for group in group_by_camera([images / n for n in names], settings.camera)]
    turns = settings.use == "object"
    matching = choose_matching(count, in_a_row, turns) if settings.matching == "auto" else settings.matching
    pairs = photo_pairs(count, matching)
    # Few features, in the middle of the photos, determine one focal length and no distortion.
    camera_model = "simple" if turns and settings.camera_model == "opencv" else settings.camera_model
    kind = f"{camera_model} lens, {len(groups)} camera{'s' if len(groups) > 1 else ''}"
    print(f"{count} photos, {kind}; {len(pairs)} pairs ({matching}); {threads} threads.")
    if settings.matching == "auto" and matching == "sequential" and not in_a_row:
        print(
            f"More than {MAX_EXHAUSTIVE} photos: each is compared with its neighbours in the order of names, which "
            "must be the order they were taken in. --matching exhaustive compares all, and takes long."
        )

    def placed(matches: Path, guided: bool) -> Structure:
        with Stage(f"Comparing {len(pairs)} pairs of photos", len(pairs)) as stage:
            structure.match_pairs(matches, names, pairs, threads, stage.advance, guided)
        if settings.use == "object":
            drop_standing(matches, names, pairs, _longest_side(images, names))
        if settings.use is None and not guided:
            advice.extend(_turntable_advice(settings, matches, names))
        with Stage(f"Placing {count} photos", count) as stage:
            found = structure.map_photos(matches, images, names, threads, stage.reach, settings.use == "object")
        return settle_on_one_axis(found, matches, images, names) if settings.use == "object" else found

    first: Structure | None = None
    advice: list[str] = []
    with library_output_to(settings.output / "process.log"):
        with Stage(f"Features of {count} photos", count) as stage:
            structure.extract_features(
                database,
                images,
                groups,
                camera_model,
                settings.max_image_size,
                threads,
                stage.advance,
                None if settings.use is None else feature_folder(settings.output),
                settings.use == "object",
            )
        with suppress(ProcessError):
            first = placed(database, guided=False)
        if first is not None and len(first.placed) >= FEW_PLACED * count:
            return first, advice
        print(f"Only {0 if first is None else len(first.placed)} of them placed; trying again with more matches.")
        more = database.with_name("guided.db")
        structure.copy_features(database, more)
        try:
            second = placed(more, guided=True)
        except ProcessError as error:
            if first is None:
                raise ProcessError(" ".join(["No poses were found.", *advice]) if advice else str(error)) from error
            return first, advice
        return second if first is None or len(second.placed) > len(first.placed) else first, advice


def _longest_side(images: Path, names: Sequence[str]) -> int:
    """Of all photos, pixels."""
    return max(max(read_header(images / name).stored) for name in names)


def _turntable_advice(settings: ProcessSettings, database: Path, names: Sequence[str]) -> list[str]:
    """Says where features that stand still look like a turntable; what was said."""
    images = settings.output / "images"
    share = standing_share(database, names, _longest_side(images, names))
    if share < MIN_STANDING:
        return []
    advice = turntable_advice(share, settings.images if settings.images.is_dir() else images)
    print(f"Warning: {advice}")
    return [advice]


def _summary(settings: ProcessSettings, structure: Structure, advice: Sequence[str]) -> str:
    """What came out, what to do about it if that is little or was warned of, and what comes next."""
    placed, count = len(structure.placed), len(structure.placed) + len(structure.left_out)
    lines = [
        f"{placed} of {count} photos have a pose; {structure.points} points, {structure.error:.2f} pixels mean "
        "reprojection error."
    ]
    if structure.left_out:
        lines.append(f"Without a pose, and not in the scene: {listed(structure.left_out, 10)}.")
    lines += [f"Warning: {sentence}" for sentence in advice]
    if placed < FEW_PLACED * count and not advice:
        lines.append(
            "That is few. What helps: more photos between those that have a pose and those that have none, so that "
            "neighbours overlap by two thirds; --matching exhaustive, where it was not; sharper photos; more texture "
            "around the object; no zooming; nothing that moves."
        )
    steps = [f"ns-train surface-sos --data {settings.output}    (on a CPU: surface-sos-lite)"]
    if settings.use != "object":  # whose masks are the scene's
        steps.insert(0, f"surface-sos masks --data {settings.output}    (coarse masks; may be left out)")
    lines += [f"{'Next:' if step is steps[0] else '     '} {step}" for step in steps]
    return "\n".join(lines)
