"""The files that transforms.json refers to, by their paths on the disk."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from surface_sos_ns.capture.lookup import FileFinder
from surface_sos_ns.capture.transforms import Transforms

__all__ = ["FILE_KEYS", "CaptureFiles", "find_files"]

UNIQUE_FILE_KEYS = (
    *("file_path", "coarse_mask_path", "gt_mask_path", "gt_objects_path", "gt_parts_path", "clean_plate_path"),
)
"""Keys whose file belongs to one photo. A mask of valid pixels (mask_path) may be shared by several."""

FILE_KEYS = (*UNIQUE_FILE_KEYS, "mask_path")
"""Keys of a frame in transforms.json that hold a path, or paths by the names of objects."""


@dataclass(frozen=True)
class CaptureFiles:
    """Paths of the files of a capture with N photos, relative to its folder or absolute.

    Attributes:
        photos: N paths.
        masks: for each of mask_path, coarse_mask_path, gt_mask_path, gt_objects_path, gt_parts_path and
            clean_plate_path, N paths or None.
        object_masks: N mappings from names of objects to paths, empty except where coarse_mask_path is one.
        points: the file under ply_file_path; None if there is none.
        remarks: sentences about paths in transforms.json that differ from those on the disk.
    """

    photos: list[str]
    masks: dict[str, list[str | None]]
    object_masks: list[dict[str, str]]
    points: Path | None
    remarks: list[str]


def find_files(capture: Transforms, needed: Collection[str] = FILE_KEYS) -> CaptureFiles:
    """Finds the files of a capture.

    Args:
        capture: the content of its transforms.json.
        needed: keys whose files must exist. Paths under other keys are kept as written if their file does not exist.

    Raises:
        CaptureError: a needed file does not exist, or is used for two photos.
    """
    finder = FileFinder(capture.folder)

    def all_of(paths: list[str], key: str) -> list[str]:
        if key in needed:
            return finder.find_all(paths, f"files ({key})", distinct=key in UNIQUE_FILE_KEYS)
        return [finder.find(path) or path for path in paths]

    photos = all_of(capture.file_paths, "file_path")
    masks: dict[str, list[str | None]] = {}
    for key, paths in capture.masks.items():
        found = iter(all_of([path for path in paths if path], key))
        masks[key] = [next(found) if path else None for path in paths]
    by_name = iter(all_of([path for paths in capture.object_masks for path in paths.values()], "coarse_mask_path"))
    object_masks = [{name: next(by_name) for name in paths} for paths in capture.object_masks]
    points = finder.find(capture.ply_file_path) if capture.ply_file_path else None
    return CaptureFiles(
        photos, masks, object_masks, None if points is None else capture.folder / points, finder.remarks
    )
