"""The command: from photos or a video to a scene that is ready to train on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from surface_sos_ns.process.error import ProcessError
from surface_sos_ns.process.lenses import Sharing
from surface_sos_ns.process.pairs import Matching
from surface_sos_ns.process.structure import CameraModel, Structure
from surface_sos_ns.utils.text import printable

if TYPE_CHECKING:
    from surface_sos_ns.process.photos import Photo

__all__ = ["Process"]

FEW = 0.8
"""Part of the photos; when fewer have a pose, it is said what to do."""


@dataclass
class Process:
    """Make a scene with poses from photos or a video, by pycolmap alone: no COLMAP program, no GPU needed."""

    images: Path
    """A folder of photos, or a video."""
    output: Path
    """Folder of the scene. One whose making was interrupted is gone on with."""
    frames: int = 120
    """Of a video: how many frames are taken, each the sharpest of its stretch."""
    camera_model: CameraModel = "opencv"
    """The lens: opencv (usual; radial and tangential distortion), simple (for few photos; one number of distortion),
    pinhole (rendered or undistorted images), fisheye."""
    camera: Sharing = "auto"
    """Which photos share a lens: auto (those of one size, camera and focal length), shared (all), per-image."""
    matching: Literal["auto"] | Matching = "auto"
    """Which photos are compared: exhaustive (all pairs), sequential (neighbours in the order of names, and some far
    ones), auto (sequential for videos and for more than 200 photos)."""
    max_image_size: int = 1600
    """Features are looked for in photos shrunk to this many pixels; the scene's images keep their size."""
    overwrite: bool = False
    """Begin anew where the output exists. The old folder is not deleted but renamed."""

    def main(self) -> None:
        """Runs the command.

        Raises:
            ProcessError: the input cannot be used, no poses were found, or a file cannot be written; the message says
                why and what to do.
        """
        from surface_sos_ns.process.folder import begin
        from surface_sos_ns.process.scene import write_scene
        from surface_sos_ns.process.structure import require_pycolmap
        from surface_sos_ns.utils.files import WriteError

        require_pycolmap()
        source = _look_at(self)
        try:
            begin(self.output, _settings(self, source), self.overwrite)
            names = _bring_images(self, source)
            structure = _find_structure(self, names)
            write_scene(self.output, structure.model)
        except WriteError as error:
            raise ProcessError(
                f"{error} Make room, then give the same command again: it goes on from there."
            ) from error
        print(_summary(self, structure))


def _look_at(command: Process) -> list[Photo] | int:
    """The photos, or the number of frames of the video.

    Raises:
        ProcessError: for anything that can be seen before any work.
    """
    from surface_sos_ns.process.photos import FEWEST, find_photos
    from surface_sos_ns.process.video import count_frames

    source, output = command.images.resolve(), command.output.resolve()
    if not source.exists():
        raise ProcessError(f"{command.images} does not exist; expected a folder of photos, or a video.")
    if output == source or source in output.parents or output in source.parents:
        raise ProcessError(
            f"{command.output} and {command.images} lie within each other; name an output folder beside the photos."
        )
    if command.frames < FEWEST:
        raise ProcessError(f"--frames is {command.frames}; expected at least {FEWEST}, better 60 to 150.")
    if command.max_image_size < 100:
        raise ProcessError(f"--max-image-size is {command.max_image_size} pixels; expected at least 100.")
    if source.is_dir():
        found = find_photos(command.images)
        for remark in found.remarks:
            print(printable(remark))
        return found.photos
    frames = count_frames(command.images)
    if frames < FEWEST:
        raise ProcessError(f"{command.images} has {frames} frames; expected at least {FEWEST}.")
    return frames


def _settings(command: Process, source: list[Photo] | int) -> dict[str, Any]:
    """What images and features depend on, as JSON gives it back. Matching is not in it: pairs can always be added."""
    files = {} if isinstance(source, int) else {photo.name: photo.source for photo in source}
    files = files or {command.images.name: command.images}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    options = {key: asdict(command)[key] for key in ("frames", "camera_model", "camera", "max_image_size")}
    return {"images": str(command.images.resolve()), **options, "files": sizes}


def _bring_images(command: Process, source: list[Photo] | int) -> list[str]:
    """Fills images/ unless that is done already; the photos' names in the order they were taken."""
    from surface_sos_ns.capture.lookup import visible_files
    from surface_sos_ns.process.photos import copy_upright
    from surface_sos_ns.process.video import extract_frames
    from surface_sos_ns.utils.files import atomic_folder
    from surface_sos_ns.utils.progress import Stage

    folder = command.output / "images"
    if not folder.is_dir():
        with atomic_folder(folder) as partial:
            if isinstance(source, int):
                with Stage(f"Looking for sharp frames among {source}", source) as stage:
                    extract_frames(command.images, command.frames, partial, source, stage.reach)
            else:
                with Stage(f"Copying {len(source)} photos", len(source)) as stage:
                    copy_upright(source, partial, stage.advance)
    if isinstance(source, int):
        return sorted(visible_files(folder))
    return [photo.name for photo in source]


def _find_structure(command: Process, names: Sequence[str]) -> Structure:
    """Features, matches, poses, and again with more matches where few photos were placed.

    The library's own words go to process.log.

    Raises:
        ProcessError: no poses were found.
    """
    from surface_sos_ns.process import structure
    from surface_sos_ns.process.lenses import group_by_camera
    from surface_sos_ns.process.pairs import MOST_EXHAUSTIVE, choose_matching, photo_pairs
    from surface_sos_ns.process.quiet import chatter_to
    from surface_sos_ns.utils.cores import usable_cores
    from surface_sos_ns.utils.progress import Stage

    images, database = command.output / "images", command.output / "colmap" / "database.db"
    threads, count, in_a_row = usable_cores(), len(names), command.images.is_file()
    groups = [[path.name for path in group] for group in group_by_camera([images / n for n in names], command.camera)]
    matching = choose_matching(count, in_a_row) if command.matching == "auto" else command.matching
    pairs = photo_pairs(count, matching)
    kind = f"{command.camera_model} lens, {len(groups)} camera{'s' if len(groups) > 1 else ''}"
    print(f"{count} photos, {kind}; {len(pairs)} pairs ({matching}); {threads} threads.")
    if command.matching == "auto" and matching == "sequential" and not in_a_row:
        print(
            f"More than {MOST_EXHAUSTIVE} photos: each is compared with its neighbours in the order of names, which "
            "must be the order they were taken in. --matching exhaustive compares all, and takes long."
        )

    def placed(matches: Path, guided: bool) -> Structure:
        with Stage(f"Comparing {len(pairs)} pairs of photos", len(pairs)) as stage:
            structure.compare(matches, names, pairs, threads, stage.advance, guided)
        with Stage(f"Placing {count} photos", count) as stage:
            return structure.map_photos(matches, images, names, threads, stage.reach)

    first: Structure | None = None
    with chatter_to(command.output / "process.log"):
        with Stage(f"Features of {count} photos", count) as stage:
            structure.find_features(
                database, images, groups, command.camera_model, command.max_image_size, threads, stage.advance
            )
        with suppress(ProcessError):
            first = placed(database, guided=False)
        if first is not None and len(first.placed) >= FEW * count:
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


def _summary(command: Process, structure: Structure) -> str:
    """What came out, what to do about it if that is little, and what comes next."""
    from surface_sos_ns.capture.names import listed

    placed, count = len(structure.placed), len(structure.placed) + len(structure.left_out)
    lines = [
        f"{placed} of {count} photos have a pose; {structure.points} points, {structure.error:.2f} pixels mean "
        "reprojection error."
    ]
    if structure.left_out:
        lines.append(f"Without a pose, and not in the scene: {listed(structure.left_out, 10)}.")
    if placed < FEW * count:
        lines.append(
            "That is few. What helps: more photos between those that have a pose and those that have none, so that "
            "neighbours overlap by two thirds; --matching exhaustive, where it was not; sharper photos; more texture "
            "around the object; no zooming; nothing that moves."
        )
    lines += [
        f"Next: surface-sos masks --data {command.output}    (coarse masks; may be left out)",
        f"      ns-train surface-sos --data {command.output}    (on a CPU: surface-sos-lite)",
    ]
    return "\n".join(lines)
