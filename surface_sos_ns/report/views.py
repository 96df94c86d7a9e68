"""Which photos a report shows, and how large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

    from surface_sos_ns.api import Run, View

__all__ = ["chosen_views", "small_camera"]


def chosen_views(count: int, wanted: int | Literal["all"], first: Sequence[int]) -> list[int]:
    """Which of `count` views are shown, in order: `wanted` in all, evenly chosen, half of them at most out of `first`.

    Where there are fewer than that in `first`, all of them are shown.
    """
    if wanted == "all" or wanted >= count:
        return list(range(count))
    preferred = _evenly(first, max(1, wanted // 2))
    others = [index for index in range(count) if index not in set(preferred)]
    return sorted([*preferred, *_evenly(others, wanted - len(preferred))])


def _evenly(items: Sequence[int], count: int) -> list[int]:
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round()
    return [items[int(place)] for place in places]


def small_camera(run: Run, view: View, longest: int) -> Cameras:
    """The camera (1,) that a view is rendered with: as in training, its longer side `longest` pixels at most."""
    camera = run.camera(view, size="training")
    width, height = int(camera.width[0]), int(camera.height[0])
    if max(width, height) > longest:
        camera.rescale_output_resolution(longest / max(width, height), "round")
    return camera
