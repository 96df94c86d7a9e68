"""Selfment: masks out of self-supervised features alone, learned on the capture itself.

After "Learning Accurate Segmentation Purely from Self-Supervision" (You, Wu, Jiang): patch affinities and a normalised
cut, Iterative Patch Optimisation, and a light head trained on the refined masks. The published method looks at single
photos; its own forms of these steps can be chosen (:class:`SelfmentVariant`), and do no better on captures than the
default ones. What is not in the paper at all comes from having many photos of one thing with known cameras:

- Before the cut every patch gets one entry more: how much more frequent its appearance is at the place the cameras turn
  around than in the rings about that place, over all photos (``centre_prior.py``). The same number, with the distance
  from that place, says which side of a cut is the object.
- The prototypes of Iterative Patch Optimisation are shared by all photos, and so is the head.
- After it a stage of its own, the *vote*: the masks of all photos are voted in space, and the hull's projection becomes
  a prior for another round and for the head's log-odds. This removes what looks like the object and lies elsewhere.
  Another vote is held while the masks that follow from one disagree with it.
- How large the object is decides which rings about it count as surroundings. Two spheres are tried, by the optical axes
  and by sparse points, and the masks that tell points on the object best from points elsewhere are kept.
- The head's log-odds are added to those of the refined patches and do not replace them: the head sees appearance only,
  which with the descriptor is the weaker cue.
- A network's patches are coarse. Its log-odds become a prior for the descriptor's finer patches, which say where the
  outline runs.

Masks are made at the patches' resolution and enlarged; as in the paper nothing is post-processed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.masks.centre_prior import cluster_patches, describe, distance_from_object, rarity_elsewhere
from surface_sos_ns.masks.features import FeatureProvider, normalised
from surface_sos_ns.masks.mask_scoring import PointScore
from surface_sos_ns.masks.normalised_cut import (
    affinity,
    binary_affinity,
    object_side,
    second_eigenvector,
    strongest_component,
)
from surface_sos_ns.masks.outlines import refine_outlines
from surface_sos_ns.masks.patch_grid import doubled, enlarged, halved
from surface_sos_ns.masks.patch_optimisation import (
    MAX_LOG_ODDS,
    neighbour_links,
    optimise_patches,
    spread_over_neighbours,
)
from surface_sos_ns.masks.patch_vote import VOTED_RULES, hull_prior, near_place, refine_until_agreed
from surface_sos_ns.masks.place import possible_spheres, with_points
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos, Progress
from surface_sos_ns.masks.selfment_variant import CAPTURE, VARIANTS, SelfmentVariant
from surface_sos_ns.utils.overlap import intersection_over_union

__all__ = ["Selfment", "SelfmentStages", "cut_photos"]

CLUSTERS = 128
"""Clusters of patches, by appearance, whose frequency near the object's place is compared with that around it."""

RARITY_WEIGHT = 0.5
"""Factor of the entry for rarity elsewhere (within +-3), which is appended to features of length 1."""

CUT_SIDE = 48
"""Patches along the longer side of a grid, at most, for the cut; larger grids are halved."""


@dataclass(frozen=True)
class SelfmentStages:
    """What each stage made of a capture: N grids (h, w) each, for looking at and measuring.

    Attributes:
        cut: bool, the object's side of the normalised cut.
        optimised: log-odds after the first Iterative Patch Optimisation.
        voted: hull's projection in [0, 1].
        refined: log-odds after the second one, which starts from the vote.
        head: log-odds of the trained head.
        final: log-odds of the refined patches and of the head together, the latter after the vote and spread over
            neighbours that look alike, as in Iterative Patch Optimisation.
        outlined: log-odds of the masks, on a grid of their own: `final` on the descriptor's patches where these are
            finer than those of the features, else `final` itself.
    """

    cut: list[np.ndarray]
    optimised: list[np.ndarray]
    voted: list[np.ndarray]
    refined: list[np.ndarray]
    head: list[np.ndarray]
    final: list[np.ndarray]
    outlined: list[np.ndarray]


class Selfment(FeatureProvider):
    """Selfment on a capture.

    The confidence of a mask is the mean of two IoUs of the final mask: with the vote of all photos, and with the
    photo's own labels before the vote.

    Args:
        features, model, features_onnx, seed: see :class:`FeatureProvider`.
        variant: a key of `VARIANTS`.

    Raises:
        MaskError: features that do not go together, or no such variant.
    """

    name = "selfment"

    def __init__(
        self,
        features: str = "auto",
        model: str | None = None,
        features_onnx: Path | None = None,
        seed: int = 0,
        variant: str = "capture",
    ) -> None:
        super().__init__(features, model, features_onnx, seed)
        if variant not in VARIANTS:
            raise MaskError(f"The variant of selfment is called {variant}; expected one of {', '.join(VARIANTS)}.")
        self.variant = VARIANTS[variant]

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        photos = with_points(photos, progress)
        stages = self._best(photos, progress)
        soft = [1 / (1 + np.exp(-grid)) for grid in stages.final]
        masks: list[np.ndarray | None] = []
        confidence = np.zeros(len(photos))
        for view, grid in enumerate(soft):
            height, width = photos.images[view].shape[:2]
            final = grid > 0.5
            if not final.any():
                masks.append(None)
                continue
            masks.append(enlarged(stages.outlined[view], (height, width)))
            confidence[view] = (
                intersection_over_union(final, stages.voted[view] > 0.5)
                + intersection_over_union(final, stages.optimised[view] > 0)
            ) / 2
        missing = [photos.files[view].name for view, mask in enumerate(masks) if mask is None]
        remarks = [f"Nothing of the object was found in {', '.join(missing)}."] if missing else []
        return CoarseMasks(masks, confidence, remarks)

    def _best(self, photos: Photos, progress: Progress) -> SelfmentStages:
        """The stages for the sphere whose masks tell best between sparse points on the object and others."""
        features = describe(self._features.load(), photos, progress)
        spheres = possible_spheres(photos)
        scoring = PointScore(photos) if len(spheres) > 1 else None
        best: tuple[float, SelfmentStages] | None = None
        problem = MaskError("")
        for sphere in spheres:
            progress(f"selfment: looking around {np.round(sphere.centre, 2).tolist()}, radius {sphere.radius:.2g}")
            try:
                stages = self.stages(photos, features, sphere, progress)
            except MaskError as error:
                problem = error
                continue
            score = None
            if scoring is not None:
                score = scoring.score([1 / (1 + np.exp(-grid)) for grid in stages.outlined])
                progress(f"selfment: covers sparse points on the object rather than others by {score or 0.0:.2f} of 1")
            if best is None or (score or 0.0) > best[0]:
                best = score or 0.0, stages
        if best is None:
            raise problem
        return best[1]

    def stages(
        self, photos: Photos, features: Sequence[np.ndarray], sphere: ObjectSphere, progress: Progress
    ) -> SelfmentStages:
        """All stages of the method, one after the other.

        Args:
            photos: N photos.
            features: N grids (h, w, D) of their patches' features.
            sphere: where to look for the object.
            progress: called with one line per stage.

        Raises:
            MaskError: nothing stands out.
        """
        from surface_sos_ns.masks.patch_head import PatchHead
        from surface_sos_ns.masks.segmentation_head import NeighbourHead, predict, train_head

        distances = distance_from_object(photos, sphere, features)
        progress("selfment: normalised cut of every photo")
        clusters = cluster_patches(features, distances, CLUSTERS, self.seed)
        table = rarity_elsewhere(clusters, distances)
        near = near_place(distances)
        cut = cut_photos(features, [table[grid] for grid in clusters], near, self.variant)
        progress("selfment: Iterative Patch Optimisation")
        rules = self.variant.patch_rules
        try:
            optimised = optimise_patches(features, cut, near, rules, seed=self.seed)
            progress("selfment: the photos vote in space")
            voted, refined = refine_until_agreed(
                photos, features, optimised, near, sphere, replace(rules, passes=VOTED_RULES.passes), self.seed
            )
        except (CaptureError, MaskError) as error:
            raise MaskError(
                f"Nothing in these photos stands out as the object ({error}) Name a point on it and its radius, or "
                "bring masks of a few photos."
            ) from error
        progress("selfment: training the head")
        links = [neighbour_links(grid) for grid in features]
        targets = [1 / (1 + np.exp(-grid)) for grid in refined]
        kind = PatchHead if self.variant.patch_head else NeighbourHead
        head = train_head(features, targets, links, kind=kind, seed=self.seed)
        head_odds = [predict(head, grid) for grid in features]
        final = [
            spread_over_neighbours(np.clip(odds, -MAX_LOG_ODDS, MAX_LOG_ODDS) + 2 * given, link) + before
            for odds, given, link, before in zip(head_odds, hull_prior(voted, near), links, refined, strict=True)
        ]
        progress("selfment: outlines on finer patches")
        return SelfmentStages(
            cut, optimised, voted, refined, head_odds, final, refine_outlines(photos, final, self.seed)
        )


def cut_photos(
    features: Sequence[np.ndarray],
    rarity: Sequence[np.ndarray],
    near: Sequence[np.ndarray],
    variant: SelfmentVariant = CAPTURE,
) -> list[np.ndarray]:
    """The normalised cut of every photo on its own.

    Args:
        features: N grids (h, w, D) of vectors of length 1.
        rarity: N grids (h, w), how rare the patches' appearance is away from the object, log ratios within +-3.
        near: N grids (h, w), how near to the object's place, at most 1.
        variant: says which affinity, and whether the object's side is kept whole.

    Returns:
        N grids (h, w) bool, the object's side.
    """
    alike = binary_affinity if variant.binary_affinity else affinity
    result = []
    for grid, rare, close in zip(features, rarity, near, strict=True):
        grid = np.concatenate([grid, RARITY_WEIGHT * rare[..., None]], axis=-1)
        prior = rare + close
        shapes: list[tuple[int, int]] = []
        while max(grid.shape[:2]) > CUT_SIDE:
            shapes.append((len(grid), grid.shape[1]))
            grid, prior = halved(grid), halved(prior)
        height, width = grid.shape[:2]
        cut = second_eigenvector(alike(normalised(grid).reshape(height * width, -1)))
        side = object_side(cut, prior.ravel()).reshape(height, width)
        if variant.strongest_component:
            side = strongest_component(side, cut.reshape(height, width))
        for shape in reversed(shapes):
            side = doubled(side, shape)
        result.append(side)
    return result
