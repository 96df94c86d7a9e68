"""Puts masks into a capture: `coarse_masks/`, and `coarse_mask_path` in its json file. All of it or nothing.

Masks of several objects are identity images, and the json file names the objects.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.capture.names import mask_names
from surface_sos_ns.capture.schema import parse_transforms
from surface_sos_ns.capture.transforms import capture_content, capture_folder
from surface_sos_ns.masks.identity_images import sized_identities
from surface_sos_ns.masks.provider import MaskError
from surface_sos_ns.utils.encoding import identity_file
from surface_sos_ns.utils.files import (
    check_writable,
    leftovers,
    remove_leftovers,
    temporary_folder,
    write_bytes,
    write_json,
    write_text,
    writing,
)
from surface_sos_ns.utils.image_io import resized, write_image
from surface_sos_ns.utils.locks import locked_folder

__all__ = [
    "ABOUT",
    "FOLDER",
    "SHEET",
    "Written",
    "capture_to_write",
    "check_free",
    "finish_interrupted",
    "named_objects",
    "say_written",
    "source_to_write",
    "truth_remark",
    "write_mask_files",
    "write_masks",
]

FOLDER = "coarse_masks"
"""Folder of the masks, in the capture's folder."""
SHEET = "coarse_masks.jpg"
"""The contact sheet, beside it."""
ABOUT = "about.json"
"""What is known about the masks, in their folder; the data parser looks at image files only."""
KEY = "coarse_mask_path"
NAMES_KEY = "object_names"
TRUTH = "gt_objects"
"""Folder of true identities; `gt_objects_path` names a file of them."""
STEPS = "steps.json"
"""In the folder of unfinished masks: the renames that are left when all masks are written."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        folder: of the masks.
        count: number of masks.
        kept: the folder that now holds what was there before, or None.
    """

    folder: Path
    count: int
    kept: Path | None


@contextmanager
def source_to_write(source: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """The json file that is to name a capture's masks; of a COLMAP folder it is written, and removed if masks fail.

    Args:
        source: see `capture.transforms.capture_source`.
        say: prints a line.

    Raises:
        CaptureError: the COLMAP model cannot be read.
        WriteError: the file cannot be written.
    """
    if not source.is_dir():
        yield source
        return
    made = capture_folder(source) / "transforms.json"
    write_json(made, capture_content(source))
    try:
        yield made
    except BaseException:
        made.unlink()
        raise
    say(f"{made} names the masks now, with the cameras of {source}; where COLMAP runs again, remove it.")


@contextmanager
def capture_to_write(source: Path, overwrite: bool, say: Callable[[str], None]) -> Iterator[Path]:
    """The json file of a capture whose masks are to be written; nobody else writes to the capture meanwhile.

    Args:
        source: see `capture.transforms.capture_source`.
        overwrite: whether coarse masks that are there may be moved away.
        say: prints a line.

    Raises:
        UserError: the capture cannot be written to, another process does, or there are masks already.
    """
    folder = capture_folder(source)
    with locked_folder(folder, "Wait until it is done."):
        check_writable(folder)
        finish_interrupted(folder)
        with source_to_write(source, say) as named:
            check_free(named, overwrite)
            yield named


def say_written(written: Written, source: Path, say: Callable[[str], None]) -> None:
    """Says where masks are now, and where those that were there before."""
    if written.kept is not None:
        say(f"what was there is kept in {written.kept}, with the {source.name} that named it")
    say(f"{written.count} masks in {written.folder}; look at {source.parent / SHEET}")


def check_free(source: Path, overwrite: bool) -> None:
    """Refuses to touch a capture that has coarse masks, unless told to.

    Args:
        source: the capture's json file.
        overwrite: whether the user said that they may be replaced.

    Raises:
        MaskError: there are coarse masks.
        CaptureError: the json file is none of a capture.
    """
    folder = source.parent
    if overwrite:
        return
    there = _there(folder)
    if there:
        raise MaskError(f"{there[0]} exists. --overwrite makes new masks and keeps those under {FOLDER}_old.")
    frames = parse_transforms(source.read_bytes(), source).frames
    named = sum(KEY in frame.model_fields_set for frame in frames)
    if named:
        raise MaskError(
            f"{source} names a {KEY} for {named} photos already. --overwrite replaces the names and keeps the file as "
            f"it is under {FOLDER}_old."
        )


def write_masks(
    source: Path,
    file_paths: Sequence[str],
    masks: Sequence[np.ndarray | None],
    sizes: Sequence[tuple[int, int]],
    about: dict[str, Any],
    sheet: np.ndarray | None = None,
    overwrite: bool = False,
    identities: Sequence[np.ndarray | None] = (),
    object_names: Sequence[str] = (),
) -> Written:
    """Writes the masks of a whole capture.

    What was there is moved to `coarse_masks_old/` (or `coarse_masks_old_2/` ...), with a copy of the json file that
    named it. When anything fails on the way, all is as it was. Of a process that is killed, `finish_interrupted` takes
    the last steps.

    Args:
        source: the capture's json file; its frames get `coarse_mask_path`, all else in it stays.
        file_paths: of each frame, in its order.
        masks: N masks (h, w) float in [0, 1] with the proportions of the photos; a frame with None gets no key.
        sizes: of each photo width and height in pixels; the masks are written at that size, in 8 bits.
        about: what is known about the masks.
        sheet: (H, W, 3) uint8 RGB contact sheet, if there is one.
        overwrite: whether masks that are there may be moved away.
        identities, object_names: of several objects, see `provider.CoarseMasks`; the json file gets `object_names`.
            Without them, names that it had go with the masks that they belonged to.

    Raises:
        MaskError: there are masks already, or the json file no longer lists these photos.
        WriteError: a file cannot be written.
    """
    check_free(source, overwrite)
    folder = source.parent
    before = _text(source)
    meta = json.loads(before)
    if [frame["file_path"] for frame in meta["frames"]] != list(file_paths):
        raise MaskError(f"{source} has changed since the photos were read. Run the command again.")
    replaces = bool(_there(folder)) or any(KEY in frame for frame in meta["frames"])
    kept = None
    with temporary_folder(folder) as part, writing(folder):
        names = write_mask_files(part / FOLDER, file_paths, masks, sizes, folder, identities, len(object_names))
        for frame, name in zip(meta["frames"], names, strict=True):
            frame.pop(KEY, None)
            if name is not None:
                frame[KEY] = f"{FOLDER}/{name}"
        meta.pop(NAMES_KEY, None)
        if object_names:
            meta = {NAMES_KEY: list(object_names), **meta}
        write_text(part / FOLDER / ABOUT, json.dumps(about, indent=1) + "\n")
        if sheet is not None:
            write_image(part / SHEET, sheet)
        moves: list[tuple[str, str]] = []
        if replaces:
            kept = _unused(folder)
            (part / kept.name).mkdir()
            shutil.copy2(source, part / kept.name / source.name)
            moves.append((f"{part.name}/{kept.name}", kept.name))
            moves += [(path.name, f"{kept.name}/{path.name}") for path in _there(folder)]
        moves += [(f"{part.name}/{name}", name) for name in (FOLDER, SHEET) if (part / name).exists()]
        # From here on nothing is computed: a few renames, and the json file last.
        steps = {"moves": moves, "json": source.name, "before": before, "content": _as_before(meta, before)}
        write_json(part / STEPS, steps)
        try:
            _take(steps, folder)
        except BaseException:
            (part / STEPS).unlink()
            for old, new in reversed(moves):
                if not os.path.lexists(folder / old):
                    os.rename(folder / new, folder / old)
            raise
    return Written(folder / FOLDER, sum(mask is not None for mask in masks), kept)


def named_objects(source: Path) -> tuple[str, ...]:
    """The names of objects that a capture's json file has; empty without."""
    names = json.loads(_text(source)).get(NAMES_KEY)
    return tuple(map(str, names)) if isinstance(names, list) else ()


def truth_remark(source: Path, names: Sequence[str]) -> str | None:
    """A warning where a capture has true identities that are numbered by other names; None where all is well.

    Args:
        source: the capture's json file, before its names are replaced.
        names: of the objects whose masks are to be written, in the order of their identities.
    """
    before = named_objects(source)
    with_truth = (source.parent / TRUTH).is_dir() or f'"{TRUTH}_path"' in _text(source)
    if not names or not with_truth or tuple(names) == before:
        return None
    numbered = f"by {', '.join(before)}" if before else "in an unknown order"
    return (
        f"the true identities ({TRUTH}) are numbered {numbered}, and these masks by {', '.join(names)}; scores against "
        "the truth mean nothing unless that is the same order of the same objects."
    )


def write_mask_files(
    folder: Path,
    file_paths: Sequence[str],
    masks: Sequence[np.ndarray | None],
    sizes: Sequence[tuple[int, int]],
    capture: Path,
    identities: Sequence[np.ndarray | None] = (),
    count: int = 0,
) -> list[str | None]:
    """Writes masks into a folder, under names by which the data parser finds them.

    Args:
        folder: of the masks; created if it is not there.
        file_paths, masks, sizes, identities: see `write_masks`.
        capture: the capture's folder.
        count: number of objects; 0 for one object without identities.

    Returns:
        N names, relative to the folder; None where there is no mask.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names: list[str | None] = []
    files = mask_names(file_paths, str(capture))
    for view, (name, mask, (width, height)) in enumerate(zip(files, masks, sizes, strict=True)):
        names.append(None if mask is None else name)
        if mask is None:
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        objects = identities[view] if count else None
        if objects is not None:
            write_bytes(folder / name, identity_file(sized_identities(mask, objects, (width, height)), count))
        else:
            grey = np.clip(resized(np.asarray(mask, np.float32), width, height), 0, 1) * 255
            write_image(folder / name, np.rint(grey).astype(np.uint8))
    return names


def finish_interrupted(folder: Path) -> None:
    """Completes the renames of a `write_masks` that was killed during them; removes files of one killed before them.

    To be called by who holds the capture's folder.

    Raises:
        MaskError: the steps cannot be read.
        WriteError: a file cannot be written.
    """
    for part in leftovers(folder):
        if (part / STEPS).is_file():
            with writing(folder):
                _take(_steps(part / STEPS), folder)
    remove_leftovers(folder)


def _steps(path: Path) -> dict[str, Any]:
    try:
        steps = json.loads(path.read_bytes())
        moves = [(str(old), str(new)) for old, new in steps["moves"]]
        return {"moves": moves, **{key: str(steps[key]) for key in ("json", "before", "content")}}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MaskError(
            f"{path}, the last steps of masks that were being written, cannot be read ({error}). Delete its folder; "
            "what it holds is lost."
        ) from error


def _take(steps: dict[str, Any], folder: Path) -> None:
    """Renames what is not renamed yet, then writes the json file, unless somebody has changed it meanwhile."""
    for old, new in steps["moves"]:
        if os.path.lexists(folder / old) and not os.path.lexists(folder / new):
            os.rename(folder / old, folder / new)
    source = folder / steps["json"]
    if _text(source) == steps["before"]:
        write_text(source, steps["content"])


def _there(folder: Path) -> list[Path]:
    """What a capture has of coarse masks: the folder, smaller copies of it (`coarse_masks_2`), the contact sheet."""
    ours = re.compile(rf"{FOLDER}(_\d+|\.jpg)?")
    return sorted(path for path in folder.glob(f"{FOLDER}*") if ours.fullmatch(path.name))


def _unused(folder: Path) -> Path:
    """A name for what was there before."""
    names = [f"{FOLDER}_old", *(f"{FOLDER}_old_{number}" for number in range(2, 10_000))]
    return next(folder / name for name in names if not (folder / name).exists())


def _text(source: Path) -> str:
    """The content of the json file, without the mark that editors on Windows put before it."""
    return source.read_text(encoding="utf-8-sig")


def _as_before(meta: dict[str, Any], before: str) -> str:
    """The content of the json file, indented as it was."""
    indent = re.match(r"\s*[{\[]\r?\n( +|\t+)", before)
    spaces = indent.group(1) if indent else None
    end = "\n" if before.endswith("\n") else ""
    text = json.dumps(meta, indent=spaces, ensure_ascii=False) + end
    # A name's bytes that are not UTF-8 are escaped (\udce9), which JSON reads as the same name.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
