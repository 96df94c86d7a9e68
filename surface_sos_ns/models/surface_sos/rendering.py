"""The result of rendering rays, and of evaluating the foreground at points for the regularisers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class RegulariserPoints(NamedTuple):
    """The foreground at Q points off the rays: random points of the object cube, then some of the sparse points."""

    points: Tensor  # (Q, 3) object frame
    sdf: Tensor  # (Q,) signed distance
    normals: Tensor  # (Q, 3) gradient of the SDF
    label: Tensor  # (Q, K) logits of the objects; (0, 1) where no label is learned


class Mattes(NamedTuple):
    """Alpha of R rays."""

    alpha: Tensor  # (R,) of the object, or of all of them
    objects: Tensor | None  # (R, K) of each of several, whose sum is alpha, no gradient; None with one object


class Rendering(NamedTuple):
    """R rendered rays, and the values at samples that losses need. Lengths in object radii."""

    rgb: Tensor  # (R, 3) both layers (eq. 7)
    alpha: Tensor  # (R,) the object's matte, sum of T_i aF_i
    foreground: Tensor  # (R, 3) the object over black (premultiplied)
    background: Tensor  # (R, 3) the clean plate: the background rendered alone
    background_confidence: Tensor  # (R,) in [0, 1] that photos show it; 0 in training and without `plate`
    background_filled: Tensor  # (R,) share that the support map fills in; 0 likewise
    shadow: Tensor  # (R,) share of the light on it that the object blocks, corrected in it; 0 likewise
    depth: Tensor  # (R,) expected distance along the ray
    object_depth: Tensor  # (R,) of the object alone; beyond the object cube where alpha is 0.5 or less
    normal: Tensor  # (R, 3) weighted unit normals of the foreground
    accumulation: Tensor  # (R,) accumulated opacity of both layers
    head_values: dict[str, Tensor]  # by head, (R,) or (R, C): accumulated with the geometry detached
    objects: Tensor | None  # (R, K) mattes of several objects, whose sum is alpha, no gradient; None with one
    crosses_hull: Tensor  # (R,) bool, whether the ray has samples in the voted hull
    crop: Tensor  # (R,) highest m^P along the ray
    distortion: Tensor  # (R,) mip-NeRF 360's, of the background's weights; 0 for one surface
    sdf: Tensor  # (P,) of the foreground at its samples
    sdf_normals: Tensor  # (P, 3) gradient of it
    sdf_counted: Tensor | None  # (P,) bool, which of these count; None if all do
    background_normals: Tensor  # (Q, 3) SDF gradients of BaCo where it is not cropped; none of a density
    background_counted: Tensor | None  # (Q,) bool, which of these count; None if all do
    regularisers: RegulariserPoints  # at the points that were given to `render`
