"""Inpainting of the part of a clean plate that no photo shows, from the known pixels around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

KEEP_CONFIDENCE = 0.8
"""Confidence from which on a pixel is kept as it was rendered."""
REPLACE_CONFIDENCE = 0.1
"""Confidence up to which a pixel is replaced."""
UNKNOWN_MARGIN = 1 / 100
"""Distance from an unknown pixel, as a fraction of the image's longer side, within which others count as unknown too:
colours of the object's outermost pixels tend to stay on the surface behind it."""


def inpaint(image: Tensor, confidence: Tensor) -> Tensor:
    """Replace unknown pixels (H, W, C) by smooth colours from around them.

    Args:
        image: (H, W, C) colours of the background.
        confidence: (H, W) in [0, 1]. From `KEEP_CONFIDENCE` on a pixel is kept, up to `REPLACE_CONFIDENCE` it is
            replaced, in between it is mixed.

    Returns:
        (H, W, C); the image itself if no pixel is known.
    """
    margin = round(UNKNOWN_MARGIN * max(confidence.shape))  # pixels
    lowest = -F.max_pool2d(-confidence[None, None], 2 * margin + 1, stride=1, padding=margin)[0, 0]
    known = ((lowest - REPLACE_CONFIDENCE) / (KEEP_CONFIDENCE - REPLACE_CONFIDENCE)).clamp(0, 1)
    return image if known.max() <= 0 else pull_push(image, known)


def pull_push(image: Tensor, known: Tensor) -> Tensor:
    """Pull-push interpolation (Gortler et al. 1996): smooth colours where an image is not known.

    Args:
        image: (H, W, C).
        known: (H, W) in [0, 1], weight of each pixel.

    Returns:
        (H, W, C); black if no pixel is known.
    """
    known = known[..., None]
    # Pull: a pyramid of averages of the known pixels, colours premultiplied by their weight.
    levels = [torch.cat([image * known, known], -1).movedim(-1, 0)[None]]
    while max(levels[-1].shape[-2:]) > 1:
        coarse = F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False)
        known_here = coarse[:, -1:]
        # One known pixel of four makes their average known.
        levels.append(coarse * ((4.0 * known_here).clamp(max=1.0) / known_here.clamp(min=1e-8)))
    # Push: where a level is not known, the next coarser one is used.
    filled = levels[-1][:, :-1] / levels[-1][:, -1:].clamp(min=1e-8)
    for level in reversed(levels[:-1]):
        coarse = F.interpolate(filled, size=level.shape[-2:], mode="bilinear", align_corners=False)
        filled = level[:, :-1] + (1.0 - level[:, -1:]) * coarse
    return filled[0].movedim(0, -1)
