"""Whether features stand still from photo to photo while others move: a turntable before a camera that stands."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surface_sos_ns.process.structure import SEED, open_database

__all__ = ["MIN_STANDING", "drop_standing", "standing_share", "turntable_advice"]

STANDS = 0.0015
"""Shift of a feature between neighbouring photos, over the photo's longer side, up to which it counts as standing."""

MIN_STANDING = 0.15
"""Share of the matches between neighbouring photos that stand still, from which on the camera seems to stand. Of a
camera that moves, next to none do."""

FEW_MATCHES = 12
"""Matches of a pair; of fewer nothing is concluded."""


def standing_share(database: Path, names: Sequence[str], longest_side: int) -> float:
    """Share of the matches of neighbouring photos whose feature is at the same pixel in both; the median over pairs.

    Args:
        database: pycolmap's, with features and matches.
        names: of the photos in the order they were taken.
        longest_side: of the photos, pixels.

    Returns:
        0 to 1; 0 where no pair has enough matches.
    """
    shares = []
    with open_database(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        known = [ids[name] for name in names if name in ids]
        for first, second in itertools.pairwise(known):
            if not opened.exists_matches(first, second):
                continue
            matches = np.asarray(opened.read_matches(first, second))
            if len(matches) < FEW_MATCHES:
                continue
            here, there = (np.asarray(opened.read_keypoints(image))[:, :2] for image in (first, second))
            shift = np.linalg.norm(here[matches[:, 0]] - there[matches[:, 1]], axis=1)
            shares.append(float((shift < STANDS * longest_side).mean()))
    return float(np.median(shares)) if shares else 0.0


def drop_standing(database: Path, names: Sequence[str], pairs: Sequence[tuple[int, int]], longest_side: int) -> int:
    """Removes the matches whose feature is at the same pixel in both photos, and looks for relative poses again.

    Where the object turns and the room stands, inexact masks include some features of the room. These few agree exactly
    on one motion, so RANSAC may prefer them to the many on the object.

    Args:
        database: pycolmap's, with features and matches; changed in place.
        names: of the photos.
        pairs: indices into the names.
        longest_side: of the photos, pixels.

    Returns:
        How many matches were removed.
    """
    from surface_sos_ns.utils.colmap import pycolmap

    dropped, changed = 0, []
    with open_database(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        places = {name: np.asarray(opened.read_keypoints(index))[:, :2] for name, index in ids.items()}
        for first, second in ((names[a], names[b]) for a, b in pairs):
            if first not in ids or second not in ids or not opened.exists_matches(ids[first], ids[second]):
                continue
            matches = np.asarray(opened.read_matches(ids[first], ids[second]))
            shift = np.linalg.norm(places[first][matches[:, 0]] - places[second][matches[:, 1]], axis=1)
            standing = shift < 2 * STANDS * longest_side
            if standing.any():
                opened.delete_matches(ids[first], ids[second])
                opened.delete_two_view_geometry(ids[first], ids[second])
                opened.write_matches(ids[first], ids[second], matches[~standing].astype(np.uint32))
                changed.append(f"{first} {second}\n")
                dropped += int(standing.sum())
    if changed:
        options = pycolmap.TwoViewGeometryOptions()
        options.ransac.random_seed = SEED
        with tempfile.TemporaryDirectory() as folder:
            listed = Path(folder) / "pairs.txt"
            listed.write_text("".join(changed), encoding="utf-8")
            pycolmap.verify_matches(database, listed, options)
    return dropped


def turntable_advice(share: float, images: Path) -> str:
    """What to say where a share of the features stands still."""
    return (
        f"It looks like a turntable: {share:.0%} of the features stand still between neighbouring photos, as the room "
        "does before a camera on a tripod, and the others move. Poses found from both are of neither. Make masks "
        f"first: surface-sos masks --images {images} --output MASKS; then add --masks MASKS --use object."
    )
