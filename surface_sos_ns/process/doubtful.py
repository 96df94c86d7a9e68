"""Photos that were placed by a few wrong matches: taken out of the reconstruction and placed once more.

Incremental mapping places a photo as soon as enough of its features match points. Early on there are few points. Where
the matches are wrong, so is the pose, and the photo's other features fit no point any more. Once all points are there,
the same photo has hundreds of matches.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["doubtful_photos", "place_doubtful_again"]

FEW_POINTS = 0.2
"""Points that a photo sees, as a share of the median of all photos, below which its pose is doubtful."""
LARGE_ERROR = 2.0
"""Mean reprojection error of a photo, as a multiple of the median, above which a doubtful one cannot be kept."""


def doubtful_photos(model: Any) -> dict[int, float]:
    """Photos whose pose is determined by few points.

    Args:
        model: pycolmap's reconstruction.

    Returns:
        By image id the mean reprojection error as a multiple of the median photo's.
    """
    placed = [image for image in model.images.values() if image.has_pose]
    if not placed:
        return {}
    few = FEW_POINTS * statistics.median(image.num_points3D for image in placed)
    usual = statistics.median(_error(model, image) for image in placed)
    return {image.image_id: _error(model, image) / max(usual, 1e-9) for image in placed if image.num_points3D < few}


def place_doubtful_again(model: Any, go_on: Callable[[Path], Any], folder: Path) -> Any:
    """The reconstruction with its doubtful photos placed by all points; without those that still cannot be trusted.

    Args:
        model: pycolmap's reconstruction.
        go_on: incremental mapping that goes on from a model in a folder; returns the largest model, None where there
            is none.
        folder: for files in between.
    """
    doubtful = doubtful_photos(model)
    if not doubtful or len(doubtful) > model.num_reg_images() - 3:
        return model
    for number in doubtful:
        model.deregister_frame(model.images[number].frame_id)
    model.write(folder)
    found = go_on(folder) or model
    for number, error in doubtful_photos(found).items():
        if number in doubtful and error > LARGE_ERROR:
            found.deregister_frame(found.images[number].frame_id)
    return found


def _error(model: Any, image: Any) -> float:
    """Mean reprojection error of the points that a photo sees, pixels; 0 without any."""
    errors = [model.points3D[seen.point3D_id].error for seen in image.points2D if seen.has_point3D()]
    return statistics.fmean(errors) if errors else 0.0
