"""The files that a capture's transforms.json names, as they are spelt on the disk."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from surface_sos_ns.capture.lookup import FileFinder
from surface_sos_ns.capture.transforms import Transforms

__all__ = ["KINDS", "CaptureFiles", "find_files"]

KINDS = ("file_path", "mask_path", "coarse_mask_path", "gt_mask_path", "clean_plate_path")
"""Keys of transforms.json that name a file for each photo."""
NAMED_ONCE = ("file_path", "coarse_mask_path", "gt_mask_path", "clean_plate_path")
"""Those whose files belong to one photo each; one mask of valid pixels may serve all."""


@dataclass(frozen=True)
class CaptureFiles:
    """Paths of a capture's files, relative to its folder or absolute.

    Attributes:
        photos: N photos.
        masks: under mask_path, coarse_mask_path, gt_mask_path and clean_plate_path for each photo a path or None.
        points: of the sparse points that ply_file_path names, or None where it names none that exists.
        remarks: in what the paths in transforms.json differ from these, to be said once.
    """

    photos: list[str]
    masks: dict[str, list[str | None]]
    points: Path | None
    remarks: list[str]


def find_files(capture: Transforms, needed: Collection[str] = KINDS) -> CaptureFiles:
    """Finds the files of a capture.

    Args:
        capture: what its transforms.json says.
        needed: keys of transforms.json whose files have to be there; those of others are found as far as they are.

    Raises:
        CaptureError: a photo or mask does not exist, or is named twice.
    """
    finder = FileFinder(capture.folder)

    def all_of(paths: list[str], key: str) -> list[str]:
        if key in needed:
            return finder.find_all(paths, f"files ({key})", distinct=key in NAMED_ONCE)
        return [finder.find(path) or path for path in paths]

    photos = all_of(capture.file_paths, "file_path")
    masks: dict[str, list[str | None]] = {}
    for key, paths in capture.masks.items():
        found = iter(all_of([path for path in paths if path], key))
        masks[key] = [next(found) if path else None for path in paths]
    points = finder.find(capture.ply_file_path) if capture.ply_file_path else None
    return CaptureFiles(photos, masks, None if points is None else capture.folder / points, finder.remarks)
