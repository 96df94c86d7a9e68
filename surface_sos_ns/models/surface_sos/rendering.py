"""What rays see of a scene, and what its regularisers ask of the foreground."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class RegulariserPoints(NamedTuple):
    """The foreground at points that no ray asked for: random ones of the object cube and the capture's sparse ones."""

    points: Tensor  # (Q, 3) object frame
    sdf: Tensor  # (Q,)
    normals: Tensor  # (Q, 3)
    label: Tensor  # (Q,) logits; (0,) where no label is learned


class Rendering(NamedTuple):
    """What R rays see; samples are kept for the losses. Lengths are of the object frame."""

    rgb: Tensor  # (R, 3) both layers
    alpha: Tensor  # (R,) the object's matte, sum_i T_i aF_i
    foreground: Tensor  # (R, 3) the object over black
    background: Tensor  # (R, 3) the clean plate: the background rendered alone
    background_confidence: Tensor  # (R,) how surely training has seen it; 0 in training and without `plate`
    background_filled: Tensor  # (R,) share of it that the map of the support fills in; 0 likewise
    shadow: Tensor  # (R,) share of the light on it that the object keeps away, made up for in it; 0 likewise
    depth: Tensor  # (R,) expected distance along the ray
    object_depth: Tensor  # (R,) the same of the object alone; where it is not seen, beyond the object's cube
    normal: Tensor  # (R, 3) weighted unit normals of the foreground
    accumulation: Tensor  # (R,) light stopped by anything
    carried: dict[str, Tensor]  # by head (R,) or (R, C): what surfaces carry, seen with the geometry detached
    crosses_hull: Tensor  # (R,) bool, whether the ray passes where the label can say object at all
    crop: Tensor  # (R,) highest m^P along the ray
    distortion: Tensor  # (R,) spread of the light stopped by the background, 0 for one surface
    sdf: Tensor  # (P,) foreground distances at evaluated samples
    sdf_normals: Tensor  # (P, 3)
    background_normals: Tensor  # (Q, 3) of BaCo where it is an SDF and not cropped
    regularisers: RegulariserPoints  # at the points that were given
