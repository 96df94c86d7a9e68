"""The vote on patches: masks of all photos vote a hull, and the patches are optimised with its projection as prior."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from surface_sos_ns.capture.bounds import find_object_sphere
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.hull import main_components
from surface_sos_ns.capture.hull_projection import project_hull
from surface_sos_ns.capture.hull_voting import vote_hull
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from surface_sos_ns.masks.patch_grid import enlarged
from surface_sos_ns.masks.patch_optimisation import PatchRules, optimise_patches
from surface_sos_ns.masks.provider import Photos
from surface_sos_ns.utils.overlap import intersection_over_union

__all__ = [
    "HULL_PRIOR",
    "VOTED_RULES",
    "hull_prior",
    "near_place",
    "refine_by_vote",
    "refine_until_agreed",
    "vote_patches",
]

HULL_PRIOR = 3.0
"""Bound of the log-odds that a patch gets from the projection of the voted hull."""

NEAR_PRIOR = 0.3
"""Weight of `near_place` in the prior, next to the projection of the voted hull."""

VOTED_RULES = PatchRules(passes=4)
"""Rules of the optimisation after a vote. It starts near its result, so few passes are enough."""

VOTE_SIDE = 320
"""Longer side of the masks that are voted, pixels."""

VOXELS = 64
"""Along an edge of the grid they are voted into: about as fine as patches."""

MAX_VOTES = 4
"""Votes of :func:`refine_until_agreed`, at most."""

SETTLED = 0.87
"""Mean IoU, over the photos, of the projected vote and the masks that follow from it, from which on voting ends."""


def near_place(distances: Sequence[np.ndarray]) -> list[np.ndarray]:
    """How near to the object's place patches lie, from 1 at its middle to -3; 0 at 0.7 radii.

    Args:
        distances: N grids (h, w) of :func:`centre_prior.distance_from_object`.
    """
    return [np.clip(1 - (grid / 0.7) ** 2, -3, 1).astype(np.float32) for grid in distances]


def hull_prior(voted: Sequence[np.ndarray], near: Sequence[np.ndarray], trust: float = HULL_PRIOR) -> list[np.ndarray]:
    """Prior log-odds of patches, by place alone.

    Args:
        voted: N grids (h, w) in [0, 1] of :func:`vote_patches`.
        near: N grids (h, w) of :func:`near_place`.
        trust: log-odds at most that the hull gives.
    """
    return [
        (trust * (2 * hull - 1) + NEAR_PRIOR * grid).astype(np.float32) for hull, grid in zip(voted, near, strict=True)
    ]


def refine_by_vote(
    photos: Photos,
    features: Sequence[np.ndarray],
    odds: Sequence[np.ndarray],
    near: Sequence[np.ndarray],
    sphere: ObjectSphere,
    trust: float = HULL_PRIOR,
    rules: PatchRules = VOTED_RULES,
    seed: int = 0,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Votes the masks into a hull, and optimises the patches again, with the hull's projection as start and as prior.

    Args:
        photos: N photos.
        features: N grids (h, w, D) of vectors of length 1.
        odds: N grids (h, w) of log-odds, positive for the object.
        near: N grids (h, w) of :func:`near_place`.
        sphere: where the object was looked for.
        trust: log-odds at most that the hull gives a patch.
        rules: of the optimisation.
        seed: of the optimisation.

    Returns:
        The vote seen from every photo, as :func:`vote_patches` has it, and N grids (h, w) of new log-odds.

    Raises:
        CaptureError: no mask has any object pixel.
        MaskError: the vote leaves one side without patches.
    """
    voted = vote_patches(photos, odds, sphere)
    prior = hull_prior(voted, near, trust)
    return voted, optimise_patches(features, [hull > 0.5 for hull in voted], prior, rules, seed=seed)


def refine_until_agreed(
    photos: Photos,
    features: Sequence[np.ndarray],
    odds: Sequence[np.ndarray],
    near: Sequence[np.ndarray],
    sphere: ObjectSphere,
    rules: PatchRules = VOTED_RULES,
    seed: int = 0,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Votes and optimises (see :func:`refine_by_vote`) until the masks that follow from a vote agree with it.

    Where masks include neighbouring things, the hull that fits them best includes these as well. The optimised masks
    hold less of them than the hull does, so that a vote of these masks gives a better hull.

    Args:
        photos, features, odds, near, sphere, rules, seed: see :func:`refine_by_vote`.

    Returns:
        The last vote seen from every photo and the log-odds after it, as :func:`refine_by_vote` has them.

    Raises:
        MaskError, CaptureError: see :func:`refine_by_vote`.
    """
    voted, refined = refine_by_vote(photos, features, odds, near, sphere, rules=rules, seed=seed)
    for _ in range(MAX_VOTES - 1):
        agreement = [intersection_over_union(hull > 0.5, grid > 0) for hull, grid in zip(voted, refined, strict=True)]
        if np.mean(agreement) >= SETTLED:
            break
        voted, refined = refine_by_vote(photos, features, refined, near, sphere, rules=rules, seed=seed)
    return voted, refined


def vote_patches(photos: Photos, odds: Sequence[np.ndarray], sphere: ObjectSphere) -> list[np.ndarray]:
    """The masks of all photos voted into a hull, and its main components projected into every photo.

    Args:
        photos: N photos.
        odds: N grids (h, w) of log-odds, positive for the object.
        sphere: where the object was looked for.

    Returns:
        N grids (h, w) float32 in [0, 1]: the hull's projection, averaged over each patch.

    Raises:
        CaptureError: no mask has any object pixel.
    """
    longest = max(int(photos.views.width.max()), int(photos.views.height.max()))
    views = photos.views.scaled(min(1.0, VOTE_SIDE / longest))
    sizes = list(zip(views.width.tolist(), views.height.tolist(), strict=True))
    masks = [enlarged(grid, (height, width)) > 0.5 for grid, (width, height) in zip(odds, sizes, strict=True)]
    if photos.radius is None:
        sphere = _fitting_sphere(photos, views, masks, sphere)
    projected = project_hull(main_components(vote_hull(views, masks, sphere, VOXELS)), sphere, views)
    return [
        cv2.resize(image, grid.shape[::-1], interpolation=cv2.INTER_AREA)
        for image, grid in zip(projected, odds, strict=True)
    ]


def _fitting_sphere(photos: Photos, views: Views, masks: Sequence[np.ndarray], before: ObjectSphere) -> ObjectSphere:
    """The sphere that the masks suggest, unless it is elsewhere; never much larger than the one that was looked in."""
    try:
        found = find_object_sphere(views, masks, photos.points, object_point=photos.near)
    except CaptureError:
        return before
    if np.linalg.norm(found.centre - before.centre) > before.radius:
        return before
    return ObjectSphere(found.centre, min(found.radius, 1.3 * before.radius), found.source)
