"""The images of a view by name: which there are, how much has to be rendered for each, and how they are made."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, MutableMapping, Sequence

import torch
import torch.nn.functional as F
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor, tensor

from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.heads import Head
from surface_sos_ns.models.surface_sos.rendering import Rendering
from surface_sos_ns.utils.identity_colours import identity_colours
from surface_sos_ns.utils.metrics import THRESHOLD

OVERLAY_COLOUR = (1.0, 0.35, 0.1)


class Need(enum.IntEnum):
    """How much of a view has to be rendered for an image of it. Each holds what those before it hold."""

    MATTE = 0
    """The object's alpha alone."""
    OBJECT = 1
    """The object's colours as well, on the rays that meet it."""
    LAYERS = 2
    """Colours and geometry of both layers, as far as they can be seen."""
    PLATE = 3
    """What the object hides as well."""


PARTS, PART_IDENTITIES = "parts", "part_ids"
"""Outputs of the latest parts that were found on a run: colours and identities. Those of K parts end in _K."""

NEEDS: dict[str, Need] = {
    "rgb": Need.LAYERS,
    "mask": Need.MATTE,
    "alpha": Need.MATTE,
    "foreground": Need.OBJECT,
    "background": Need.PLATE,
    "background_confidence": Need.PLATE,
    "shadow": Need.PLATE,
    "overlay": Need.LAYERS,
    "depth": Need.LAYERS,
    "object_depth": Need.LAYERS,
    "normals": Need.LAYERS,
    "accumulation": Need.LAYERS,
}
"""Every output of both layers by name, in the order in which the viewer offers them, and what it takes."""


OBJECTS, OBJECT_IDENTITIES = "objects", "object_ids"
"""Outputs of several objects: colours and identities."""
OF_EACH_OBJECT: dict[str, Need] = {
    "mask": Need.MATTE,
    "alpha": Need.MATTE,
    "foreground": Need.OBJECT,
    "overlay": Need.LAYERS,
}
"""Outputs that there are of each of several objects as well, under `output_of(OUTPUT, NAME)`, and what they take."""


def output_of(output: str, name: str) -> str:
    """Name of an output of one of several objects."""
    return f"{output}_{name}"


def needs_of(heads: Iterable[Head], objects: Sequence[str] = ()) -> dict[str, Need]:
    """`NEEDS`, the outputs of several objects by name, and those of heads, which are rendered with the layers.

    Args:
        heads: of the scene.
        objects: names of several objects; empty for one.
    """
    of_objects = dict.fromkeys((OBJECTS, OBJECT_IDENTITIES), Need.MATTE) if objects else {}
    for name in objects:
        of_objects |= {output_of(output, name): need for output, need in OF_EACH_OBJECT.items()}
    return NEEDS | of_objects | {name: Need.LAYERS for head in heads for name in head.output_names}


def mask_image(alpha: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """(..., 3) white where alpha (..., 1) is over the threshold, else black."""
    return (alpha > threshold).to(alpha.dtype).expand(*alpha.shape[:-1], 3)


def overlay_image(rgb: Tensor, alpha: Tensor, colours: Tensor | None = None) -> Tensor:
    """(..., 3) the view with the object tinted, half at most, by alpha (..., 1), in colours (..., 3) or in one."""
    tint = 0.5 * alpha * (tensor(OVERLAY_COLOUR, device=rgb.device) if colours is None else colours)
    return (1 - 0.5 * alpha) * rgb + tint


def matte_images(alpha: Tensor) -> dict[str, Tensor]:
    """The outputs that alpha (R,) is enough for: mask (R, 3) and alpha (R, 1)."""
    alpha = alpha.clamp(0, 1)[:, None]
    return {"mask": mask_image(alpha), "alpha": alpha}


def object_images(alpha: Tensor, each: Tensor, names: Sequence[str], threshold: float = THRESHOLD) -> dict[str, Tensor]:
    """The outputs that the mattes of several objects are enough for.

    Of a pixel that is an object's, the mask is that of the object with the largest share alone.

    Args:
        alpha: (..., 1) of all objects together.
        each: (..., K) of each, whose sum is `alpha`.
        names: of the K objects.
        threshold: of `alpha`, over which a pixel is an object's.

    Returns:
        `OBJECTS` (..., 3) over black, `OBJECT_IDENTITIES` (..., 1), which are 0 for none and 1 to K; and of each object
        its mask (..., 3) and alpha (..., 1).
    """
    each = each.clamp(0, 1)
    colours = torch.as_tensor(identity_colours(len(names)), device=each.device, dtype=each.dtype)
    found = (each.argmax(-1, keepdim=True) + 1) * (alpha > threshold)
    images = {OBJECTS: (each @ colours).clamp(0, 1), OBJECT_IDENTITIES: found.to(each.dtype)}
    for index, name in enumerate(names):
        images[output_of("mask", name)] = (found == index + 1).to(each.dtype).expand(*found.shape[:-1], 3)
        images[output_of("alpha", name)] = each[..., index : index + 1]
    return images


def object_layers(images: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """The outputs of several objects that need colours: of each its foreground and, with `rgb`, overlay (..., 3).

    An object has the share of the foreground's colour that it has of its alpha: the colours of two objects mix where
    both are in one pixel.

    Args:
        images: foreground and alpha, alpha of each object, and rgb where the whole view is rendered.
        names: of the objects.
    """
    found: dict[str, Tensor] = {}
    for name in names:
        alpha = images[output_of("alpha", name)]
        share = alpha / images["alpha"].clamp(min=1e-3)
        found[output_of("foreground", name)] = images["foreground"] * share.clamp(0, 1)
        if "rgb" in images:
            found[output_of("overlay", name)] = overlay_image(images["rgb"], alpha)
    return found


def layer_images(rendering: Rendering, frame: ObjectFrame) -> dict[str, Tensor]:
    """The outputs of rendered rays but for what the object hides, (R, 1) or (R, 3).

    Colours, alpha, mask and accumulation are 0 to 1; depths are distances along the ray in the world frame; normals
    point from 0 (-1) to 1 (+1) in the world's axes and are 0.5 where there is no object.

    Args:
        rendering: of R rays.
        frame: of the object.
    """
    rgb = rendering.rgb.clamp(0, 1)
    matte = matte_images(rendering.alpha)
    alpha = matte["alpha"]
    return {
        "rgb": rgb,
        **matte,
        "foreground": rendering.foreground.clamp(0, 1),
        "overlay": overlay_image(rgb, alpha),
        "depth": frame.world_lengths(rendering.depth)[:, None],
        "object_depth": frame.world_lengths(rendering.object_depth)[:, None],
        "normals": F.normalize(rendering.normal, dim=-1) * 0.5 * alpha + 0.5,
        "accumulation": rendering.accumulation[:, None],
    }


def plate_images(rendering: Rendering) -> dict[str, Tensor]:
    """The outputs of rays that were rendered with what the object hides: background (R, 3), the others (R, 1)."""
    return {
        "background": rendering.background.clamp(0, 1),
        "background_confidence": rendering.background_confidence[:, None],
        "shadow": rendering.shadow[:, None],
    }


class ViewImages(MutableMapping[str, Tensor]):
    """All outputs of a view by name, (H, W, 1) or (H, W, 3); those not there yet are rendered when they are asked for.

    Names are known from the start. An image that was handed out stays the same object, also when more is rendered.

    Args:
        render: returns all images of a need, those of lesser needs included.
        images: what is rendered already.
        needs: every output by name, and what it takes.
        rays: (H, W) of the view, world frame, to render more of it; None where nobody asks for more.
    """

    def __init__(
        self,
        render: Callable[[Need], dict[str, Tensor]],
        images: dict[str, Tensor] | None = None,
        needs: Mapping[str, Need] = NEEDS,
        rays: RayBundle | None = None,
    ):
        self.rays = rays
        self._render, self._needs = render, needs
        self._images = dict(images or {})
        self._names = dict.fromkeys(needs)

    def __getitem__(self, name: str) -> Tensor:
        if name in self._names and name not in self._images:
            self._images = {**self._render(self._needs[name]), **self._images}
        return self._images[name]

    def __setitem__(self, name: str, image: Tensor) -> None:
        self._names[name] = None
        self._images[name] = image

    def __delitem__(self, name: str) -> None:
        del self._names[name]
        self._images.pop(name, None)

    def __contains__(self, name: object) -> bool:  # the inherited one would render
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def keys(self) -> KeysView[str]:
        """The names; printed as those of a dict, which ns-render does when it is given a wrong one."""
        return self._names.keys()
