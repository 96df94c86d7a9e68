"""Masks as labelling tools and detectors read them: COCO's json, with run-length encoded masks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["coco"]

CATEGORY = {"id": 1, "name": "object"}


def coco(masks: Iterable[tuple[str, np.ndarray]]) -> dict[str, Any]:
    """COCO's json for one object in many images.

    Args:
        masks: per image its file name and its mask (H, W) bool; one without object gets no annotation.
    """
    from pycocotools import mask as rle

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (name, mask) in enumerate(masks, start=1):
        height, width = mask.shape
        images.append({"id": index, "file_name": name, "width": width, "height": height})
        if not mask.any():
            continue
        encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": index,
                "category_id": CATEGORY["id"],
                "segmentation": {"size": [height, width], "counts": encoded["counts"].decode("ascii")},
                "area": int(rle.area(encoded)),
                "bbox": [float(value) for value in rle.toBbox(encoded)],
                "iscrowd": 0,
            }
        )
    return {"images": images, "annotations": annotations, "categories": [CATEGORY]}
