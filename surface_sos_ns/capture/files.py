"""The files that a capture's transforms.json names, as they are spelt on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surface_sos_ns.capture.lookup import FileFinder
from surface_sos_ns.capture.transforms import Transforms

__all__ = ["CaptureFiles", "find_files"]

NAMED_ONCE = ("coarse_mask_path", "gt_mask_path", "clean_plate_path")
"""Kinds of files that belong to one photo each; one mask of valid pixels may serve all."""


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


def find_files(capture: Transforms, have_to_exist: bool = True) -> CaptureFiles:
    """Finds the files of a capture.

    Args:
        capture: what its transforms.json says.
        have_to_exist: whether photos and masks have to be there. Where only cameras are wanted, they need not.

    Raises:
        CaptureError: a photo or mask does not exist, or is named twice.
    """
    finder = FileFinder(capture.folder)

    def all_of(paths: list[str], kind: str, distinct: bool) -> list[str]:
        if have_to_exist:
            return finder.find_all(paths, kind, distinct)
        return [finder.find(path) or path for path in paths]

    photos = all_of(capture.file_paths, "photos (file_path)", True)
    masks: dict[str, list[str | None]] = {}
    for kind, paths in capture.masks.items():
        found = iter(all_of([path for path in paths if path], f"files ({kind})", kind in NAMED_ONCE))
        masks[kind] = [next(found) if path else None for path in paths]
    points = finder.find(capture.ply_file_path) if capture.ply_file_path else None
    return CaptureFiles(photos, masks, None if points is None else capture.folder / points, finder.remarks)
