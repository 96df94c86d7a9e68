"""Masks and parts as labelling tools and detectors read them: COCO's json, with run-length encoded masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["coco"]


def coco(images: Iterable[tuple[str, np.ndarray]], names: Sequence[str]) -> dict[str, Any]:
    """COCO's json: an annotation for each category that an image shows.

    Args:
        images: per image its file name, and the category of each pixel (H, W), 0 for none; a mask (H, W) bool has one
            category.
        names: of the categories 1, 2, ...
    """
    from pycocotools import mask as rle

    shown: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (name, identities) in enumerate(images, start=1):
        height, width = identities.shape
        shown.append({"id": index, "file_name": name, "width": width, "height": height})
        for category in range(1, len(names) + 1):
            mask = identities == category
            if not mask.any():
                continue
            encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": category,
                    "segmentation": {"size": [height, width], "counts": encoded["counts"].decode("ascii")},
                    "area": int(rle.area(encoded)),
                    "bbox": [float(value) for value in rle.toBbox(encoded)],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": category, "name": name} for category, name in enumerate(names, start=1)]
    return {"images": shown, "annotations": annotations, "categories": categories}
