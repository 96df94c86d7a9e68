"""Several objects against the truth: pixels are counted in each view, and pooled over the views that show an object."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["object_counts", "object_rows", "pooled"]


def object_counts(found: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Pixels of several objects in a view.

    Args:
        found, truth: (H, W) identities, 0 for none, 1 to K.
        names: of the K objects.

    Returns:
        objects: of each object that the view shows, by name: `pixels` in truth, and `overlap` and `union` with what was
        found. both: pixels that are some object's in both; wrong: of these, those of different objects.
    """
    both = (found > 0) & (truth > 0)
    each = {}
    for identity, name in enumerate(names, start=1):
        ours, true = found == identity, truth == identity
        if true.any():
            counts = {"pixels": true, "overlap": ours & true, "union": ours | true}
            each[name] = {key: int(np.count_nonzero(pixels)) for key, pixels in counts.items()}
    return {
        "objects": each,
        "both": int(np.count_nonzero(both)),
        "wrong": int(np.count_nonzero(both & (found != truth))),
    }


def object_rows(views: Iterable[Mapping[str, Any]], meshes: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Number of views that show an object, and its figures, by its name.

    Args:
        views: results of views, with what `object_counts` returns where there is truth, and of each object
            `without_psnr` where there is a plate without it.
        meshes: figures of its mesh by the object's name, where there is a true one.
    """
    shown: dict[str, list[Mapping[str, float]]] = {}
    for view in views:
        for name, counts in view.get("objects", {}).items():
            shown.setdefault(name, []).append(counts)
    return {name: (len(counts), {**_of_object(counts), **meshes.get(name, {})}) for name, counts in shown.items()}


def _of_object(counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Figures of an object by the views that show it."""
    overlaps = [view["overlap"] / view["union"] for view in counts]
    plates = [view["without_psnr"] for view in counts if "without_psnr" in view]
    return {
        "mask_iou": statistics.mean(overlaps),
        "worst_mask_iou": min(overlaps),
        "pooled_iou": sum(view["overlap"] for view in counts) / sum(view["union"] for view in counts),
        "pixels": statistics.mean(view["pixels"] for view in counts),
        **({"without_psnr": statistics.mean(plates)} if plates else {}),
    }


def pooled(views: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Figures of all objects together: means over objects, and the share of object pixels with a wrong identity."""
    each = [figures for _, figures in object_rows(views, {}).values()]
    both = sum(view.get("both", 0) for view in views)
    found = {"wrong_identity": sum(view["wrong"] for view in views if "wrong" in view) / both} if both else {}
    for name in ("pooled_iou", "without_psnr"):
        values = [figures[name] for figures in each if name in figures]
        found |= {name: statistics.mean(values)} if values else {}
    return found
