"""Images of identities (parts, objects): 0 is none. They are never interpolated."""

from __future__ import annotations

import numpy as np


def filled_identities(found: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8: identities within a mask, each pixel of it with one.

    A pixel at the outline may be in the mask though the ray through its middle passes the object: it gets the identity
    of the nearest pixel that has one.

    Args:
        found: (H, W) identities of the pixels' middles, 0 for none.
        mask: (H, W) bool.
    """
    from scipy.ndimage import distance_transform_edt

    identities = found.astype(np.uint8)
    missing = mask & (identities == 0)
    if missing.any() and identities.any():
        rows, columns = distance_transform_edt(identities == 0, return_distances=False, return_indices=True)
        identities = identities[rows, columns]
    return identities * mask.astype(np.uint8)
