"""The contact sheet of masks: each photo beside itself with the mask on it and the outline of the voted hull.

Several objects have the colours of their identities, and their names stand at the top.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np

from surface_sos_ns.masks.object_votes import ObjectVotes
from surface_sos_ns.masks.provider import Photos, PlainPhotos
from surface_sos_ns.masks.vote import Vote
from surface_sos_ns.utils.identity_colours import identity_bytes
from surface_sos_ns.utils.image_io import resized
from surface_sos_ns.utils.text import ascii_only

__all__ = ["contact_sheet", "spaced_views"]

MAX_VIEWS = 24
COLUMNS = 3
CELL = 200
"""Longer side of a picture on the sheet, in pixels."""
GAP, CAPTION = 8, 18  # pixels between pictures, and for the line below each
TINT, OUTLINE, WRONG = (40, 200, 90), (255, 210, 0), (220, 60, 50)
INK, PAPER = (40, 40, 40), 250


def _with_mask(
    photo: np.ndarray,
    mask: np.ndarray | None,
    silhouette: np.ndarray | None = None,
    identities: np.ndarray | None = None,
) -> np.ndarray:
    """A photo (H, W, 3) uint8 with a mask (H, W) in [0, 1] as a tint, the rest darker, and a silhouette's outline.

    The tint is the colour of each pixel's identity where there are several objects.
    """
    picture = photo.astype(np.float32)
    if mask is not None:
        tint = np.array(TINT, np.float32)
        if identities is not None:
            tint = np.vstack([tint, identity_bytes(int(identities.max()))]).astype(np.float32)[identities]
        opacity = mask[..., None]
        picture = picture * (0.55 + 0.1 * opacity) + 0.35 * opacity * tint
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    if silhouette is not None:
        inside = (silhouette >= 0.5).astype(np.uint8)
        outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, OUTLINE, 1, cv2.LINE_AA)
    return picture


def contact_sheet(
    photos: Photos | PlainPhotos,
    masks: Sequence[np.ndarray | None],
    voted: Vote | ObjectVotes | None = None,
    silhouettes: Sequence[np.ndarray] | None = None,
    also: Collection[int] = (),
    replaced: bool = False,
    identities: Sequence[np.ndarray | None] = (),
    object_names: Sequence[str] = (),
) -> np.ndarray:
    """Up to 24 views: evenly spaced ones, and those of `also` as far as there is room.

    Args:
        photos: of the whole capture, or without cameras.
        masks: N masks, None where there is none.
        voted: their vote, for the captions; None where there is none.
        silhouettes: N projections of the voted hull, of the photos' size, whose outlines are drawn; or None.
        also: views to show in any case, half of the sheet at most.
        replaced: whether `masks` are no longer those that were voted, but what the vote made of them.
        identities, object_names: of several objects, see `provider.CoarseMasks`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    views = _chosen(len(photos), also)
    widest = max(image.shape[1] for image in photos.images)
    tallest = max(image.shape[0] for image in photos.images)
    factor = CELL / max(widest, tallest)
    width, height = round(widest * factor), round(tallest * factor)
    across, down = 2 * width + 2 * GAP, height + CAPTION + GAP
    columns = min(COLUMNS, len(views))
    sheet = np.full((GAP + down * -(-len(views) // columns), GAP + across * columns, 3), PAPER, np.uint8)
    for cell, view in enumerate(views):
        row, column = divmod(cell, columns)
        x, y = GAP + column * across, GAP + row * down
        photo, mask = photos.images[view], masks[view]
        shape = photo.shape
        if mask is not None:
            mask = resized(np.asarray(mask, np.float32), shape[1], shape[0])
        fit = min(width / shape[1], height / shape[0])
        size = (max(1, round(shape[1] * fit)), max(1, round(shape[0] * fit)))
        small, shown, outlined = (
            None if picture is None else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            for picture in (photo, mask, None if silhouettes is None else silhouettes[view])
        )
        assert small is not None
        ids = identities[view] if object_names else None
        ids = None if ids is None else cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
        for offset, tile in ((0, small), (size[0] + 2, _with_mask(small, shown, outlined, ids))):
            sheet[y : y + size[1], x + offset : x + offset + size[0]] = tile
        words, colour = photos.files[view].name, INK
        if mask is None:
            words, colour = f"{words}: no mask", WRONG
        elif voted is not None:
            words = f"{words}: {voted.agreement[view]:.2f}"
            if view in voted.disagreeing:
                words, colour = (f"{words}, replaced", INK) if replaced else (f"{words} disagrees", WRONG)
        place, font = (x, y + size[1] + CAPTION - 5), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(sheet, ascii_only(words), place, font, 0.4, colour, 1, cv2.LINE_AA)
    return np.vstack([_legend(object_names, sheet.shape[1]), sheet]) if object_names else sheet


def _legend(names: Sequence[str], width: int) -> np.ndarray:
    """(H, width, 3) uint8: names of objects beside squares of their colours, in as many lines as they need."""
    font, x, lines = cv2.FONT_HERSHEY_SIMPLEX, GAP, 1
    places = []
    for name in names:
        needed = CAPTION + cv2.getTextSize(name, font, 0.4, 1)[0][0] + 2 * GAP
        if x > GAP and x + needed > width:
            x, lines = GAP, lines + 1
        places.append((x, lines * CAPTION))
        x += needed
    legend = np.full((GAP + lines * CAPTION, width, 3), PAPER, np.uint8)
    for name, (x, y), colour in zip(names, places, identity_bytes(len(names)).tolist(), strict=True):
        cv2.rectangle(legend, (x, y - 10), (x + 10, y), colour, -1)
        cv2.putText(legend, name, (x + CAPTION - 2, y), font, 0.4, INK, 1, cv2.LINE_AA)
    return legend


def _chosen(count: int, also: Collection[int]) -> list[int]:
    special = sorted(also)[: MAX_VIEWS // 2]
    return sorted({*spaced_views(count, MAX_VIEWS - len(special)), *special})


def spaced_views(count: int, most: int = MAX_VIEWS) -> list[int]:
    """Indices of evenly spaced views, those that a contact sheet shows of ``count``."""
    indices: list[int] = np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()
    return indices
