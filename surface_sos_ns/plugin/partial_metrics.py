"""Averages of metrics that only some photos have.

nerfstudio takes the names of the metrics from the first photo and fails where another one lacks a true mask; and the
PSNR of the clean plate does not exist for a photo without the object.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["averages", "collected_separately"]


@contextmanager
def collected_separately(model: Any, prefixes: tuple[str, ...]) -> Iterator[dict[str, list[float]]]:
    """Inside, a model's `get_image_metrics_and_images` leaves some metrics out, and they are collected here instead.

    Args:
        model: a nerfstudio model.
        prefixes: of the names of the metrics that are left out.

    Yields:
        Name -> the finite values so far, in the order of the photos.
    """
    values: dict[str, list[float]] = defaultdict(list)
    of_one_image = model.get_image_metrics_and_images

    def common_metrics(outputs: Any, batch: Any) -> tuple[dict[str, float], Any]:
        metrics, images = of_one_image(outputs, batch)
        for name in [name for name in metrics if name.startswith(prefixes)]:
            value = metrics.pop(name)
            if math.isfinite(value):
                values[name].append(value)
        return metrics, images

    model.get_image_metrics_and_images = common_metrics
    try:
        yield values
    finally:
        del model.get_image_metrics_and_images


def averages(values: Mapping[str, Sequence[float]], with_std: bool) -> dict[str, float]:
    """The mean of each metric, and under NAME_std its sample standard deviation (0 of a single value)."""
    found = {}
    for name, several in values.items():
        found[name] = float(torch.tensor(several).mean())
        if with_std:
            found[f"{name}_std"] = float(torch.tensor(several).std()) if len(several) > 1 else 0.0
    return found
