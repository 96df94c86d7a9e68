"""Strided patches of pixels: squares of rays that span more of a photo than they have pixels (NeRF-SOS, app. A.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["fitting_stride", "patch_batch", "patch_pixels"]


def fitting_stride(height: int, width: int, side: int, stride: int) -> int:
    """The largest stride, at most `stride`, at which a patch fits into a photo: it spans (side - 1) stride + 1 pixels.

    Args:
        height, width: of the photo, pixels.
        side: pixels of the patch along each of its sides, at least 2.
        stride: between neighbouring pixels of the patch, at least 1.

    Raises:
        ValueError: the photo has fewer than `side` pixels along one side, or `side` or `stride` is too small.
    """
    if side < 2 or stride < 1:
        raise ValueError(f"A patch has a side of 2 pixels and a stride of 1 at least, got {side} and {stride}.")
    if min(height, width) < side:
        raise ValueError(
            f"A photo of {width} x {height} pixels is too small: a patch needs {side} pixels along both sides."
        )
    return min(stride, (min(height, width) - 1) // (side - 1))


def patch_pixels(height: int, width: int, side: int, stride: int, generator: torch.Generator | None = None) -> Tensor:
    """The pixels of a patch at a random place of a photo, every place being as likely as any other.

    Args:
        height, width: of the photo, pixels.
        side: pixels of the patch along each of its sides.
        stride: between them; `fitting_stride` takes its place where it is too large.
        generator: of the place, on the CPU.

    Returns:
        (side * side, 2) int64 row and column, row by row.

    Raises:
        ValueError: the photo is too small, see `fitting_stride`.
    """
    stride = fitting_stride(height, width, side, stride)
    span = (side - 1) * stride + 1
    top, left = (int(torch.randint(length - span + 1, (), generator=generator)) for length in (height, width))
    steps = stride * torch.arange(side)
    return torch.cartesian_prod(top + steps, left + steps)


def patch_batch(
    sizes: Sequence[tuple[int, int]],
    patches: int,
    side: int,
    stride: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pixels of patches of different photos.

    Args:
        sizes: V (height, width) of the photos, pixels.
        patches: B, from 2 to V.
        side, stride, generator: as for `patch_pixels`; the stride adapts to each photo.

    Returns:
        (B, side * side, 3) int64 photo, row and column; the B photos are different and drawn at random.

    Raises:
        ValueError: a photo that was drawn is too small, or there are fewer photos than patches, or than two.
    """
    if not 2 <= patches <= len(sizes):
        raise ValueError(f"{patches} patches of different photos need 2 to {len(sizes)}, the number of photos.")
    photos = torch.randperm(len(sizes), generator=generator)[:patches].tolist()
    batch = torch.empty(patches, side * side, 3, dtype=torch.int64)
    for patch, photo in zip(batch, photos, strict=True):
        height, width = sizes[photo]
        patch[:, 0], patch[:, 1:] = photo, patch_pixels(height, width, side, stride, generator)
    return batch
