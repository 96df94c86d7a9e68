"""The photo taken from nearest to where a viewer looks from, with its coarse mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from surface_sos_ns.capture.identity_files import resized_identities
from surface_sos_ns.plugin.dataset import SurfaceSOSDataset
from surface_sos_ns.plugin.outputs import overlay_image
from surface_sos_ns.utils.identity_colours import identity_colours
from surface_sos_ns.utils.image_io import resized

if TYPE_CHECKING:  # capture/ brings scipy and more
    from surface_sos_ns.capture.object_prior import ObjectPrior

THUMBNAIL = 280
"""Width of a thumbnail in pixels."""


def nearest_view(position: np.ndarray, positions: np.ndarray, centre: np.ndarray) -> int:
    """Which of some cameras sees the object most as one at `position` does: from its side, then from its distance.

    Args:
        position: (3,) of a camera.
        positions: (N, 3) of the cameras to choose from.
        centre: (3,) of the object.
    """

    def side(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        away = points - centre
        distance = np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-9)
        return away / distance, np.log(distance[..., 0])

    (here, near), (there, far) = side(position), side(positions)
    angle = np.arccos(np.clip(there @ here, -1, 1))
    return int(np.argmin(angle**2 + (far - near) ** 2))


def mask_over_photo(
    photo: np.ndarray, mask: np.ndarray | None, identities: np.ndarray | None = None, width: int = THUMBNAIL
) -> np.ndarray:
    """(h, width, 3) uint8: a photo with its mask tinted, if it has one.

    Args:
        photo: (H, W, 3) uint8.
        mask: (H, W) in 0..1.
        identities: (H, W) uint8, the object that the mask shows, 0 for none: each is tinted in its colour.
        width: of the picture.
    """
    height = max(1, round(photo.shape[0] * width / photo.shape[1]))
    small = resized(photo, width, height)
    if mask is None:
        return small
    tint = torch.from_numpy(resized(np.asarray(mask, np.float32), width, height))[..., None]
    colours: Tensor | None = None
    if identities is not None:
        palette = np.vstack([np.zeros(3, np.float32), identity_colours(int(identities.max()))])
        colours = torch.from_numpy(palette[resized_identities(identities, width, height)])
    return (overlay_image(torch.from_numpy(small) / 255, tint, colours) * 255).round().byte().numpy()


def coarse_mask(
    dataset: SurfaceSOSDataset, prior: ObjectPrior | None, index: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The coarse mask of a training view; where none was given, the one found before training.

    Returns:
        (H, W) in 0..1, None where there is none; and (H, W) uint8, which of several objects it shows, 0 for none.
    """
    given = dataset.read_coarse_mask(index)
    if given[0] is not None or prior is None or len(prior.masks) != len(dataset):
        return given
    return prior.masks[index], prior.identities[index] if prior.objects else None
