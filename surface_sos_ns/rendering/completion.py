"""Filling in what no photo shows of the background from what is known around it."""

from __future__ import annotations

import cv2
import numpy as np
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
HIDDEN = 0.5
"""Confidence under which a pixel that the object covers counts as hidden by it in all photos."""
CONTACT = 2.0
"""Where the object touches something, little light gets, and its last pixels stain what is there: such a place is
filled in from further off, from outside of the same shape this many times as large."""
CONTACT_REACH = 1 / 20
"""But never from further than this, a fraction of the longer side: behind a large object there may be much to see."""
SILHOUETTE_REACH = 1 / 50
"""Nor is anything changed further than this outside the silhouette, where this very photo shows it."""


def complete(image: Tensor, confidence: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Replace unknown pixels by smooth colours from around them (pull-push, Gortler et al. 1996).

    Args:
        image: (H, W, C) colours of the background.
        confidence: (H, W) in [0, 1]; from `KNOWN` on a pixel is kept, up to `GUESSED` it is replaced, mixed in between.
        alpha: (H, W) the object in front of it.

    Returns:
        (H, W, C), and the confidence (H, W), 0 where contact with the object was filled in. The arguments themselves
        where nothing is known at all.
    """
    reach = round(FRINGE * max(confidence.shape))
    worst = -F.max_pool2d(-confidence[None, None], 2 * reach + 1, stride=1, padding=reach)[0, 0]
    contact = _contact(confidence, alpha)
    known = ((worst - GUESSED) / (KNOWN - GUESSED)).clamp(0, 1).masked_fill(contact, 0.0)[..., None]
    # Pull: ever coarser averages of what is known. Colours are premultiplied by how much is.
    levels = [torch.cat([image * known, known], -1).movedim(-1, 0)[None]]
    while max(levels[-1].shape[-2:]) > 1:
        coarse = F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False)
        known_here = coarse[:, -1:]
        # One known pixel of four is enough to know their average.
        levels.append(coarse * ((4.0 * known_here).clamp(max=1.0) / known_here.clamp(min=1e-8)))
    if levels[-1][0, -1].max() <= 0:
        return image, confidence
    # Push: what a level does not know comes from the next coarser one.
    filled = levels[-1][:, :-1] / levels[-1][:, -1:].clamp(min=1e-8)
    for level in reversed(levels[:-1]):
        coarse = F.interpolate(filled, size=level.shape[-2:], mode="bilinear", align_corners=False)
        filled = level[:, :-1] + (1.0 - level[:, -1:]) * coarse
    return filled[0].movedim(0, -1), confidence.masked_fill(contact, 0.0)


def _contact(confidence: Tensor, alpha: Tensor) -> Tensor:
    """(H, W) bool: what the object hides in all photos, and its surroundings as far as `CONTACT` says."""
    side = max(confidence.shape)
    outside = _distance(alpha.detach().cpu().numpy() >= 0.5)
    known = confidence.detach().cpu().numpy()
    hidden = (outside <= 0.5 * SILHOUETTE_REACH * side) & (known < HIDDEN)
    count, parts, statistics, centres = cv2.connectedComponentsWithStats(hidden.astype(np.uint8))
    larger = hidden.copy()
    for part in range(1, count):
        x, y, width, height, area = statistics[part]
        if area < 4:  # specks say nothing of a shape
            continue
        here = np.s_[y : y + height, x : x + width]
        part_here = (parts[here] == part).astype(np.uint8)
        # What is half known and surrounded, as if painted by chance in the middle, belongs to it.
        hull = cv2.convexHull(cv2.findNonZero(part_here))
        within = cv2.fillConvexPoly(np.zeros_like(part_here), hull, (1,))
        shape = part_here | (within & (known[here] < KNOWN))
        larger[here] |= shape > 0
        # Scaled about its centre of mass, its corner comes to lie here; what of it is in the picture is enough.
        corner = CONTACT * np.array([x, y]) + (1 - CONTACT) * centres[part]
        start = np.floor(corner).clip(min=0).astype(int)
        end = np.minimum(np.ceil(corner + CONTACT * np.array([width, height])).astype(int), hidden.shape[::-1])
        scale = np.array([[CONTACT, 0, corner[0] - start[0]], [0, CONTACT, corner[1] - start[1]]])
        scaled = cv2.warpAffine(shape, scale, (end - start).tolist(), flags=cv2.INTER_NEAREST)
        larger[start[1] : end[1], start[0] : end[0]] |= scaled > 0
    larger &= (_distance(hidden) <= CONTACT_REACH * side) & (outside <= SILHOUETTE_REACH * side)
    return torch.from_numpy(larger).to(confidence.device)


def _distance(region: np.ndarray) -> np.ndarray:
    """(H, W) float32: pixels to a region (H, W) bool, 0 in it; infinite where it is empty."""
    if not region.any():
        return np.full(region.shape, np.inf, np.float32)
    return cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
