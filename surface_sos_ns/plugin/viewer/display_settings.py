"""How a viewer shows a view: which layer, the mask's threshold, the colour behind a cut-out, a slicing plane.

Pure functions on rendered images. Commands use the default settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from surface_sos_ns.plugin.outputs import (
    NEEDS,
    OBJECT_IDENTITIES,
    OBJECTS,
    OF_EACH_OBJECT,
    PART_IDENTITIES,
    PARTS,
    Need,
    mask_image,
    object_images,
    object_layers,
    output_of,
    overlay_image,
)
from surface_sos_ns.utils.metrics import THRESHOLD

CUT_COLOUR = (0.98, 0.86, 0.55)
"""The inside of the object, where it is cut open."""

Show = Literal["both", "object", "background"]
Facing = Literal["camera", "x", "y", "z"]


def threshold_at_half(alpha: Tensor, threshold: float) -> Tensor:
    """Alpha mapped piecewise linearly, monotonically: 0 to 0, the threshold to 0.5, 1 to 1."""
    below = 0.5 * alpha / max(threshold, 1e-6)
    above = 0.5 + 0.5 * (alpha - threshold) / max(1 - threshold, 1e-6)
    return torch.where(alpha > threshold, above, below).clamp(0, 1)


class Cut(NamedTuple):
    """What a slice does to rays (..., 3)."""

    distance: Tensor  # (..., 1) along the ray to the plane: 0 behind it, infinite where it is never reached
    normal: Tensor  # (3,) of the plane, away from the camera


@dataclass(frozen=True)
class Slice:
    """A plane; what lies between it and the camera is cut away."""

    facing: Facing
    """Square to the line from the camera to the object, or to an axis of the viewer's world."""
    offset: float
    """Of the plane from the object's centre, in radii of its sphere: away from the camera, or along the axis."""

    def cut(self, origins: Tensor, directions: Tensor, centre: Tensor, radius: Tensor) -> Cut:
        """How far along each ray the plane is.

        Args:
            origins, directions: (..., 3) of one camera's rays, world frame, directions unit.
            centre, radius: (3,) and () of the object sphere.
        """
        eye = origins.reshape(-1, 3).mean(0)
        if self.facing == "camera":
            normal = F.normalize(centre - eye, dim=0)
            point = centre + self.offset * radius * normal
        else:
            normal = torch.eye(3).to(centre)["xyz".index(self.facing)]
            point = centre + self.offset * radius * normal
            normal = torch.where((point - eye) @ normal >= 0, normal, -normal)
        ahead, slope = (point - origins) @ normal, directions @ normal
        reached = torch.where(slope > 1e-6, ahead / slope.clamp(min=1e-6), torch.inf)
        return Cut(torch.where(ahead > 0, reached, 0.0)[..., None], normal)


def of_each_object(objects: Sequence[str]) -> set[str]:
    """Names of the outputs that several objects have one each of."""
    return {output_of(output, name) for output in OF_EACH_OBJECT for name in objects}


def cut_open(images: dict[str, Tensor], cut: Cut, begun_in: Tensor, objects: Sequence[str] = ()) -> dict[str, Tensor]:
    """Images of rays that start on a plane, with a face in one colour where they start inside the object.

    Args:
        images: (..., C) by name, see `NEEDS` and `OF_EACH_OBJECT`; those there are. Others are outputs of heads, which
            lie on surfaces: the face has its colour in those of three channels, and 0 in the others.
        cut: of the same rays, from the camera on.
        begun_in: (..., 1) the object that each ray starts in, 1 to K, or 0 for none.
        objects: names of several objects; empty for one.

    Returns:
        The same images, depth from the camera on; rays that never reach the plane see nothing.
    """
    seen, inside = torch.isfinite(cut.distance), begun_in > 0
    colour, one = torch.tensor(CUT_COLOUR), torch.ones(1)
    face = {
        "alpha": one,
        "rgb": colour,
        "foreground": colour,
        "accumulation": one,
        "depth": 0 * one,
        "normals": 0.5 - 0.5 * cut.normal,
    }
    painted = images.keys() - NEEDS.keys() - of_each_object(objects) - {OBJECTS, OBJECT_IDENTITIES}
    face |= {name: colour if images[name].shape[-1] == 3 else 0 * one for name in painted}
    opened = dict(images)
    for name in images.keys() & face.keys():
        opened[name] = torch.where(inside, face[name].to(images[name]), images[name])
    layers = {"alpha", "rgb", "foreground", "accumulation", "background", "background_confidence", "shadow"}
    for name in opened.keys() & (layers | painted):
        opened[name] = opened[name] * seen
    if "depth" in images:
        depth = opened["depth"] + cut.distance
        opened["depth"] = torch.where(seen, depth, depth[seen].max() if bool(seen.any()) else 0.0)
    if "normals" in images:
        opened["normals"] = torch.where(seen, opened["normals"], 0.5)
    opened["mask"] = mask_image(opened["alpha"])
    if "overlay" in images:
        opened["overlay"] = overlay_image(opened["rgb"], opened["alpha"])
    if objects:
        own = (begun_in == torch.arange(1, len(objects) + 1, device=begun_in.device)).to(opened["alpha"])
        each = torch.where(inside, own, _alpha_of_each(images, objects)) * seen
        opened |= object_images(opened["alpha"], each, objects)
        opened |= object_layers(opened, objects) if "foreground" in images else {}
    return opened


def _alpha_of_each(images: Mapping[str, Tensor], objects: Sequence[str]) -> Tensor:
    """(..., K) alpha of each of several objects."""
    return torch.cat([images[output_of("alpha", name)] for name in objects], -1)


@dataclass(frozen=True)
class DisplaySettings:
    """What a viewer's panel is set to. The defaults leave images as commands write them."""

    show: Show = "both"
    """What `rgb` shows: the whole view, the object over `colour`, or the clean plate."""
    threshold: float = THRESHOLD
    """Of alpha, from which on a pixel is in `mask`; `overlay` is half tinted there."""
    colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Behind the object in `foreground`, 0 to 1."""
    slice: Slice | None = None
    """What is cut away."""
    parts: int | None = None
    """Which result `parts` shows, by its number of parts; None for the latest."""

    object: str | None = None
    """Which of several objects `OF_EACH_OBJECT` show; None for all of them."""

    @property
    def without(self) -> str | None:
        """The object that `rgb` shows the whole view without, the others in it; None where it shows something else."""
        return self.object if self.show == "background" else None

    def needs(self, outputs: dict[str, Need], objects: Sequence[str] = ()) -> dict[str, Need]:
        """What each output takes under these settings, of what it takes in commands.

        The numbers of parts and objects are left out: nerfstudio's false colours end at 1, so all would look alike. So
        are the outputs of each of several objects: the panel chooses which one the outputs of all of them show.

        Args:
            outputs: of commands.
            objects: names of several objects; empty for one.
        """
        hidden = of_each_object(objects) | {OBJECT_IDENTITIES}
        shown = {name: n for name, n in outputs.items() if name not in hidden and not name.startswith(PART_IDENTITIES)}
        return {**shown, "rgb": Need.PLATE} if self.show == "background" else shown

    def of_object(self, images: dict[str, Tensor], objects: Sequence[str]) -> dict[str, Tensor]:
        """Images (..., C) where those of the chosen object stand for those of all; `mask` ends at the threshold.

        A pixel is in the mask of one of several objects where alpha of all together is over the threshold and it has
        the largest share of it.
        """
        shown, alpha = dict(images), images["alpha"]
        if self.threshold != THRESHOLD:
            shown["mask"] = mask_image(alpha, self.threshold)
            if objects:
                shown |= object_images(alpha, _alpha_of_each(images, objects), objects, self.threshold)
        if self.object is not None:
            own = {output: output_of(output, self.object) for output in OF_EACH_OBJECT}
            shown |= {output: shown[name] for output, name in own.items() if name in shown}
        return shown

    def applied(self, images: dict[str, Tensor], objects: Sequence[str] = ()) -> dict[str, Tensor]:
        """Images (..., C) under these settings; `rgb` is left out where it shows what is not rendered.

        Args:
            images: by name.
            objects: names of several objects; empty for one.
        """
        if self == DisplaySettings():
            return images
        shown = self.of_object(images, objects)
        alpha = shown["alpha"]
        if self.parts is not None and PARTS in images:
            shown[PARTS] = images[f"{PARTS}_{self.parts}"]
        if self.threshold != THRESHOLD and "overlay" in images:
            shown["overlay"] = overlay_image(images["rgb"], threshold_at_half(alpha, self.threshold))
        if "foreground" in images:
            behind = (1 - alpha) * torch.tensor(self.colour).to(alpha)
            shown["foreground"] = (shown["foreground"] + behind).clamp(0, 1)
            if self.show == "object":
                shown["rgb"] = shown["foreground"]
        if self.show == "background":
            shown.pop("rgb", None)
            if "background" in images:
                shown["rgb"] = images["background"]
        return shown
