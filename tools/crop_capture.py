"""Makes a capture whose pictures cut the object off, out of one whose pictures hold it.

    python tools/crop_capture.py CAPTURE OUTPUT --seed 0
    python tools/crop_capture.py CAPTURE OUTPUT --part X Y Z RADIUS --keep 6

Without --part each training photo is cropped to a random half of the object: left, right, upper or lower, divided at
the median of its true mask. With --part all but a few training photos are cropped so that the part of the object's true
mesh in a sphere (frame of the capture) lies outside the picture; the side that keeps most of the object stays.

Masks, true masks and clean plates are cropped like their photos, and each cropped frame gets its own w, h, cx and cy.
Held-out views stay whole, so that scores compare with those of the capture that was cropped. Needed: transforms.json
with gt_mask_path and a split; with --part also gt_object.ply.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from surface_sos_ns.capture.transforms import read_transforms
from surface_sos_ns.capture.views import Views

PICTURES = ("file_path", "coarse_mask_path", "gt_mask_path", "gt_objects_path", "gt_parts_path", "clean_plate_path")
MARGIN = 2
"""Pixels between a hidden part and the border of the picture."""
Box = tuple[int, int, int, int]
"""Left, top, right and bottom of what stays of a picture, pixels; right and bottom are exclusive."""


def half_of(mask: np.ndarray, generator: np.random.Generator) -> Box:
    """A random half of the object in a mask (H, W) bool, with all of the picture on that side."""
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    row, column = round(float(np.median(rows))), round(float(np.median(columns)))
    sides: list[Box] = [(0, 0, column, height), (column, 0, width, height), (0, 0, width, row), (0, row, width, height)]
    return sides[int(generator.integers(4))]


def without_part(mask: np.ndarray, uv: np.ndarray) -> Box:
    """What stays of a picture without the pixels ``uv`` (P, 2) of a part: the side with most of the mask (H, W)."""
    height, width = mask.shape
    left, top = np.floor(uv.min(axis=0)).astype(int) - MARGIN
    right, bottom = np.ceil(uv.max(axis=0)).astype(int) + MARGIN
    sides: list[Box] = [(0, 0, left, height), (right, 0, width, height), (0, 0, width, top), (0, bottom, width, height)]
    sides = [side for side in sides if side[2] - side[0] >= 16 and side[3] - side[1] >= 16]
    if not sides:
        raise SystemExit("The part fills a whole picture. Name a smaller one.")
    return max(sides, key=lambda side: np.count_nonzero(mask[side[1] : side[3], side[0] : side[2]]))


def crop(frame: dict[str, Any], views: Views, index: int, box: Box, source: Path, output: Path) -> dict[str, Any]:
    """Writes the cropped pictures of a frame; returns the frame with its own lens."""
    for key in PICTURES:
        if isinstance(frame.get(key), str):
            picture = cv2.imread(str(source / frame[key]), cv2.IMREAD_UNCHANGED)
            part = picture[box[1] : box[3], box[0] : box[2]]
            quality = [cv2.IMWRITE_JPEG_QUALITY, 97] if frame[key].lower().endswith((".jpg", ".jpeg")) else []
            cv2.imwrite(str(output / frame[key]), part, quality)
    lens = {"cx": views.cx[index] - box[0], "cy": views.cy[index] - box[1], "w": box[2] - box[0], "h": box[3] - box[1]}
    return frame | {key: float(value) if key in ("cx", "cy") else int(value) for key, value in lens.items()}


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=float, nargs=4, metavar=("X", "Y", "Z", "RADIUS"))
    parser.add_argument("--keep", type=int, default=6, help="training photos that keep the part")
    given = parser.parse_args()

    source = read_transforms(given.capture / "transforms.json")
    content = json.loads(source.source.read_text())
    generator = np.random.default_rng(given.seed)
    train = [i for i, name in enumerate(source.file_paths) if name in source.splits["train"]]
    shutil.copytree(given.capture, given.output)
    whole: set[int] = set()
    points = np.zeros((0, 3))
    if given.part:
        import trimesh

        vertices = np.asarray(trimesh.load(given.capture / "gt_object.ply", process=False).vertices)
        points = vertices[np.linalg.norm(vertices - given.part[:3], axis=1) <= given.part[3]]
        if not len(points):
            raise SystemExit(f"No vertex of {given.capture / 'gt_object.ply'} lies in the sphere {given.part}.")
        first = int(generator.integers(len(train)))
        whole = {train[(first + round(i * len(train) / given.keep)) % len(train)] for i in range(given.keep)}
    for i in train:
        if i in whole:
            continue
        mask = cv2.imread(str(given.capture / content["frames"][i]["gt_mask_path"]), cv2.IMREAD_GRAYSCALE) >= 128
        box = without_part(mask, source.views.project_one(i, points)[0]) if given.part else half_of(mask, generator)
        content["frames"][i] = crop(content["frames"][i], source.views, i, box, given.capture, given.output)
    (given.output / "transforms.json").write_text(json.dumps(content, indent=1))
    print(f"{given.output}: {len(train) - len(whole)} of {len(train)} training photos cropped")


if __name__ == "__main__":
    main()
