"""What reading the photos of a training takes, said before it begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from surface_sos_ns.plugin.console import say, warn
from surface_sos_ns.utils.memory import free_gb

if TYPE_CHECKING:
    from surface_sos_ns.plugin.dataset import SurfaceSOSDataset

__all__ = ["photos_gb", "say_memory_needs"]

PHOTO_BYTES, MASK_BYTES, OUTLINE_BYTES, VALID_BYTES = 3, 1, 3, 5
"""Bytes a pixel: of a photo, of its mask, of the list of pixels near the object's outline while it is made, and of the
list of those that may be drawn where not all may."""
IDENTITY_BYTES = 1
"""The same of which of several objects it is."""
TRAINING_GB, VIEW_GB = 1.6, 0.004
"""What a training takes besides, and for each photo, whatever its size, while the object is looked for. Measured with
surface-sos-lite on a CPU."""
DOWNSCALE = "--pipeline.datamanager.dataparser.downscale-factor"


def photos_gb(sizes: Sequence[tuple[int, int]], has_invalid: bool = False, several: bool = False) -> float:
    """Main memory that photos and their masks take while they are trained on, in GB.

    Args:
        sizes: width and height of each in pixels, as they are used.
        has_invalid: whether some pixels may not be sampled.
        several: whether there are several objects.
    """
    pixels = sum(width * height for width, height in sizes)
    bytes_per_pixel = PHOTO_BYTES + MASK_BYTES + OUTLINE_BYTES
    bytes_per_pixel += has_invalid * VALID_BYTES + several * IDENTITY_BYTES
    return pixels * bytes_per_pixel / 1e9 + VIEW_GB * len(sizes)


def fitting_factor(sizes: Sequence[tuple[int, int]], has_invalid: bool, free: float) -> int | None:
    """By how much smaller photos have to be for a training to fit into so many GB: 1, 2, 4, 8; None where none fits."""
    for factor in (1, 2, 4, 8):
        smaller = [(width // factor, height // factor) for width, height in sizes]
        if photos_gb(smaller, has_invalid) + TRAINING_GB <= free:
            return factor
    return None


def say_memory_needs(dataset: SurfaceSOSDataset, factor: int) -> None:
    """Says how much memory and time it takes to read all photos of a dataset, and warns where memory will not do.

    Args:
        dataset: of which one photo is read, to know how long that takes.
        factor: by how much its photos are smaller than the capture's already.
    """
    sizes = [dataset.size(index) for index in range(len(dataset))]
    started = time.monotonic()
    has_invalid = dataset.get_sampling_mask(0) is not None
    dataset.get_numpy_image(0)
    seconds = (time.monotonic() - started) * len(sizes)
    needed, free = photos_gb(sizes, has_invalid, bool(dataset.object_names)), free_gb()
    if needed > 0.1 or seconds > 10:
        say(
            f"Reading {len(sizes)} photos: about {seconds:.0f} s and {needed:.1f} GB of memory, and {TRAINING_GB} GB "
            f"for training; {free:.1f} GB are free"
        )
    fitting = fitting_factor(sizes, has_invalid, free)
    if fitting != 1:
        total, smaller = needed + TRAINING_GB, f"{DOWNSCALE} {factor * (fitting or 8)}"
        more = "." if fitting else ", fewer of them, and end other programs."
        warn(
            f"memory will not do: about {total:.1f} GB are needed and {free:.1f} are free. Stop it and take smaller "
            f"photos: {smaller}{more}"
        )
