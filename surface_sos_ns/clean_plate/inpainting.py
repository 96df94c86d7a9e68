"""Filling in what no photo shows of the background from what is known around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

KNOWN = 0.8
"""Confidence from which on a pixel stays as it was rendered."""
GUESSED = 0.1
"""Confidence up to which nothing of it stays."""
FRINGE = 1 / 100
"""What is so near to something unknown, as a fraction of the longer side, is taken for unknown too: the object's last
pixels, painted on what it stands on."""


def complete(image: Tensor, confidence: Tensor) -> Tensor:
    """Replace unknown pixels (H, W, C) by smooth colours from around them.

    Args:
        image: (H, W, C) colours of the background.
        confidence: (H, W) in [0, 1]; from `KNOWN` on a pixel is kept, up to `GUESSED` it is replaced, mixed in between.

    Returns:
        (H, W, C); the image itself where nothing is known at all.
    """
    reach = round(FRINGE * max(confidence.shape))
    worst = -F.max_pool2d(-confidence[None, None], 2 * reach + 1, stride=1, padding=reach)[0, 0]
    known = ((worst - GUESSED) / (KNOWN - GUESSED)).clamp(0, 1)
    return image if known.max() <= 0 else pull_push(image, known)


def pull_push(image: Tensor, known: Tensor) -> Tensor:
    """(H, W, C) an image with smooth colours where it is not known (H, W), from around (Gortler et al. 1996).

    Where nothing is known at all, it is black.
    """
    known = known[..., None]
    # Pull: ever coarser averages of what is known. Colours are premultiplied by how much is.
    levels = [torch.cat([image * known, known], -1).movedim(-1, 0)[None]]
    while max(levels[-1].shape[-2:]) > 1:
        coarse = F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False)
        known_here = coarse[:, -1:]
        # One known pixel of four is enough to know their average.
        levels.append(coarse * ((4.0 * known_here).clamp(max=1.0) / known_here.clamp(min=1e-8)))
    # Push: what a level does not know comes from the next coarser one.
    filled = levels[-1][:, :-1] / levels[-1][:, -1:].clamp(min=1e-8)
    for level in reversed(levels[:-1]):
        coarse = F.interpolate(filled, size=level.shape[-2:], mode="bilinear", align_corners=False)
        filled = level[:, :-1] + (1.0 - level[:, -1:]) * coarse
    return filled[0].movedim(0, -1)
