"""The images of a view by name: which there are, how much has to be rendered for each, and how they are made."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, MutableMapping

import torch.nn.functional as F
from torch import Tensor, tensor

from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.heads import Head
from surface_sos_ns.models.surface_sos.rendering import Rendering
from surface_sos_ns.utils.metrics import THRESHOLD

OVERLAY_COLOUR = (1.0, 0.35, 0.1)


class Need(enum.IntEnum):
    """How much of a view has to be rendered for an image of it. Each holds what those before it hold."""

    MATTE = 0
    """The object's alpha alone."""
    LAYERS = 1
    """Colours and geometry of both layers, as far as they can be seen."""
    PLATE = 2
    """What the object hides as well."""


PARTS, PART_IDENTITIES = "parts", "part_ids"
"""Outputs of the latest parts that were found on a run: colours and identities. Those of K parts end in _K."""

NEEDS: dict[str, Need] = {
    "rgb": Need.LAYERS,
    "mask": Need.MATTE,
    "alpha": Need.MATTE,
    "foreground": Need.LAYERS,
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


def needs_of(heads: Iterable[Head]) -> dict[str, Need]:
    """`NEEDS`, and the outputs of heads: what surfaces carry is seen with the layers."""
    return NEEDS | {name: Need.LAYERS for head in heads for name in head.output_names}


def mask_image(alpha: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """(..., 3) white where alpha (..., 1) is over the threshold, else black."""
    return (alpha > threshold).to(alpha.dtype).expand(*alpha.shape[:-1], 3)


def overlay_image(rgb: Tensor, alpha: Tensor) -> Tensor:
    """(..., 3) the view with the object tinted, half at most, by alpha (..., 1)."""
    tint = 0.5 * alpha * tensor(OVERLAY_COLOUR, device=rgb.device)
    return (1 - 0.5 * alpha) * rgb + tint


def matte_images(alpha: Tensor) -> dict[str, Tensor]:
    """The outputs that alpha (R,) is enough for: mask (R, 3) and alpha (R, 1)."""
    alpha = alpha.clamp(0, 1)[:, None]
    return {"mask": mask_image(alpha), "alpha": alpha}


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
    """

    def __init__(
        self,
        render: Callable[[Need], dict[str, Tensor]],
        images: dict[str, Tensor] | None = None,
        needs: Mapping[str, Need] = NEEDS,
    ):
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
