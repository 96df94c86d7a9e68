"""Masks as a mediocre detector would give them: blobby outlines, bites, filled holes, false blobs, empty ones.

Of several objects it also misses some, takes two for one, and swaps the numbers of two.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


def _ellipse(shape: tuple[int, ...], centre: np.ndarray, radii: np.ndarray, angle: float) -> np.ndarray:
    canvas = np.zeros(shape, np.uint8)
    axes = (max(1, round(float(radii[0]))), max(1, round(float(radii[1]))))
    cv2.ellipse(canvas, (int(centre[0]), int(centre[1])), axes, angle, 0, 360, (1.0,), -1)
    return canvas.astype(bool)


def coarse_mask(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A noisy (H, W) bool mask made from the true one (H, W) bool; errors scale with the object's size in pixels."""
    if not truth.any():
        return np.zeros_like(truth)
    height, width = truth.shape
    size = float(np.sqrt(truth.sum()))
    mask = truth.copy()
    if rng.uniform() < 0.5:  # detectors close handles
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        filled = np.zeros(truth.shape, np.uint8)
        cv2.drawContours(filled, outlines, -1, (1.0,), -1)
        mask = filled.astype(bool)
    if rng.uniform() < 0.35:  # ... or lose everything thin
        radius = max(1, round(0.055 * size))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel).astype(bool)
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    ripple = np.zeros(truth.shape)
    for scale, share in ((0.22, 1.0), (0.10, 0.35)):
        # White noise is drawn on a grid tied to the object's size, so that small captures get the same blobs.
        cell = max(scale * size, 1.0)
        grid = rng.standard_normal((int(height / cell) + 3, int(width / cell) + 3)).astype(np.float32)
        smooth = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)[:height, :width]
        ripple += share * smooth
    level = rng.normal(0.0, 0.028) * size
    mask = inside - outside + level + rng.uniform(0.028, 0.064) * size * ripple > 0
    shift = rng.normal(0, 0.022, 2) * size
    mask = cv2.warpAffine(
        mask.astype(np.uint8), np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), (width, height), flags=cv2.INTER_NEAREST
    ).astype(bool)
    rows, columns = np.nonzero(truth)
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.25, 0.4, 0.25, 0.1]))):
        k = int(rng.integers(len(rows)))
        radii = rng.uniform(0.10, 0.23, 2) * size
        mask &= ~_ellipse(truth.shape, np.array([columns[k], rows[k]]), radii, rng.uniform(0, 180))
    for _ in range(int(rng.choice([0, 1, 2], p=[0.55, 0.33, 0.12]))):
        centre = np.array([rng.uniform(0.05, 0.95) * width, rng.uniform(0.1, 0.95) * height])
        mask |= _ellipse(truth.shape, centre, rng.uniform(0.10, 0.26, 2) * size, rng.uniform(0, 180))
    return mask


def empty_views(views: int, seed: int, may_be_empty: list[int]) -> list[int]:
    """The views whose masks are empty: about one in sixteen, chosen from `may_be_empty`."""
    count = max(2, round(views / 16))
    return np.random.default_rng([seed, 105]).permutation(may_be_empty)[:count].tolist()


def coarse_masks(truths: list[np.ndarray], seed: int, may_be_empty: list[int]) -> list[np.ndarray]:
    """Noisy masks (H, W) bool for all views; about one in sixteen is empty, chosen from the views `may_be_empty`."""
    chosen = empty_views(len(truths), seed, may_be_empty)
    return [
        np.zeros_like(truth) if view in chosen else coarse_mask(truth, np.random.default_rng([seed, 106, view]))
        for view, truth in enumerate(truths)
    ]


# --- several objects ---------------------------------------------------------------------------------------------
FAULTY = 0.065
"""Share of the instances (an object in a photo) that are missed, the share that is swapped, and the share merged."""


@dataclass(frozen=True)
class Faults:
    """Wrong identities: of views, two identities that are swapped, or of which the first one gets the second's number.

    `missed` holds pairs of a view and an identity. A view has faults of one kind only.
    """

    swapped: dict[int, tuple[int, int]]
    merged: dict[int, tuple[int, int]]
    missed: set[tuple[int, int]]


def choose_faults(truths: dict[int, np.ndarray], seed: int) -> Faults:
    """Chooses faults for the true identities (H, W) uint8 of views; objects next to each other are merged."""
    rng = np.random.default_rng([seed, 109])
    visible = {view: np.setdiff1d(truth, [0]) for view, truth in truths.items()}
    pairs = max(1, round(FAULTY / 2 * sum(len(identities) for identities in visible.values())))
    with_two = rng.permutation([view for view, identities in visible.items() if len(identities) > 1]).tolist()
    swapped, merged = {}, {}
    for view in with_two[:pairs]:
        one, other = rng.choice(visible[view], 2, replace=False)
        swapped[view] = (int(one), int(other))
    for view in with_two[pairs : 2 * pairs]:
        one = int(rng.choice(visible[view]))
        merged[view] = (one, _neighbour(truths[view], one))
    others = [(v, int(k)) for v in truths if v not in swapped and v not in merged for k in visible[v]]
    missed = {others[i] for i in rng.permutation(len(others))[: 2 * pairs]}
    return Faults(swapped, merged, missed)


def _neighbour(truth: np.ndarray, identity: int) -> int:
    """The identity whose pixels come nearest to those of another one."""
    distance = cv2.distanceTransform((truth != identity).astype(np.uint8), cv2.DIST_L2, 5)
    others = np.setdiff1d(truth, [0, identity])
    return int(min(others, key=lambda k: distance[truth == k].min()))


def coarse_identities(truths: list[np.ndarray], seed: int, may_be_empty: list[int]) -> list[np.ndarray]:
    """Noisy identities (H, W) uint8 for all views, from the true ones (H, W) uint8, 0 for the background.

    Each object has the errors of `coarse_mask`; where masks overlap, the smaller one is on top. About one view in
    sixteen is empty, chosen from `may_be_empty`. The others have the faults of `choose_faults`.
    """
    empty = empty_views(len(truths), seed, may_be_empty)
    faults = choose_faults({view: truth for view, truth in enumerate(truths) if view not in empty}, seed)
    results = []
    for view, truth in enumerate(truths):
        result = np.zeros_like(truth)
        number = {k: k for k in np.setdiff1d(truth, [0]).tolist() if (view, k) not in faults.missed}
        if view in faults.swapped:
            one, other = faults.swapped[view]
            number |= {one: other, other: one}
        if view in faults.merged:
            one, other = faults.merged[view]
            number |= {one: other}
        masks = {k: coarse_mask(truth == k, np.random.default_rng([seed, 106, view, k])) for k in number}
        for k in sorted(masks, key=lambda k: -masks[k].sum()):
            result[masks[k]] = number[k]
        results.append(np.zeros_like(truth) if view in empty else result)
    return results
