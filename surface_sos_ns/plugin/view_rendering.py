"""Whole views: rays in chunks (on a GPU as many as fit), smooth outlines of the object, and clean plates completed."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from surface_sos_ns.clean_plate.inpainting import inpaint
from surface_sos_ns.models.surface_sos.gpu_memory import MIN_RAYS_AT_ONCE, rays_at_once
from surface_sos_ns.models.surface_sos.renderer import Shown
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.plugin.console import say
from surface_sos_ns.plugin.outputs import (
    PARTS,
    Need,
    layer_images,
    matte_images,
    object_images,
    object_layers,
    output_of,
    plate_images,
)
from surface_sos_ns.rendering.antialiasing import edge_pixels, sub_pixel_directions
from surface_sos_ns.utils.errors import UserError

__all__ = ["FILLED", "ROOM", "BeforeChunk", "ViewRenderer", "ray_times", "render_rays", "with_room"]

ROOM = "room_directions"
"""Key of the rays' metadata under which their directions in the camera's axes are."""

BeforeChunk = Callable[[int], None]
"""Called with the number of rays that are rendered next; may raise to break off."""

FILLED = "background_filled"
"""Name of the image of the share of the background that the support map fills in; it is needed to complete a view, and
removed then."""


def ray_times(scene: SurfaceSOS, rays: RayBundle) -> Tensor | None:
    """(R,) in [0, 1], when each ray was taken, for an object that may deform; else None."""
    return None if scene.deformation is None or rays.times is None else rays.times[..., 0]


def with_room(scene: SurfaceSOS, rays: RayBundle, camera: Cameras) -> RayBundle:
    """The rays of a camera (1,), with their directions in its axes (`ROOM`) where the scene has a standing room."""
    if getattr(scene, "room", None) is not None:
        axes = camera.camera_to_worlds[0, :3, :3].to(rays.directions)
        rays.metadata[ROOM] = rays.directions @ axes
    return rays


def render_rays(
    scene: SurfaceSOS, rays: RayBundle, need: Need, shown: Shown | None = None, code: Tensor | None = None
) -> dict[str, Tensor]:
    """Images of rays by name, float (R, 1) or (R, 3); of `Need.PLATE` also `FILLED`.

    Args:
        scene: the trained model.
        rays: (R,), world frame.
        need: how much to render.
        shown: some of several objects, see `SurfaceSOS.showing`; colours are rendered then. None renders all.
        code: (1, C) appearance, see `SurfaceSOS.render`; None takes the mean of the training photos'.
    """
    origins, directions = scene.frame.rays(rays.origins, rays.directions)
    time = ray_times(scene, rays)
    if need < Need.LAYERS and shown is None:
        mattes = scene.mattes(origins, directions, time=time)
        images = matte_images(mattes.alpha)
        if need is Need.OBJECT:
            meet = mattes.alpha > 0
            images["foreground"] = torch.zeros_like(directions)
            images["foreground"][meet] = render_rays(scene, rays[meet], Need.LAYERS, code=code)["foreground"]
        return _with_objects(images, mattes.objects, scene)
    choices: dict[str, Any] = {} if shown is None else {"shown": shown}
    if code is not None:
        choices["code"] = code
    if ROOM in (rays.metadata or {}):
        choices["room"] = rays.metadata[ROOM]
    rendering = scene.render(origins, directions, plate=need is Need.PLATE, time=time, **choices)
    images = _with_objects(layer_images(rendering, scene.frame), rendering.objects, scene)
    for head in scene.painted_heads:
        images |= head.outputs(rendering)
    if need is Need.PLATE:
        images |= plate_images(rendering)
        images[FILLED] = rendering.background_filled[:, None]
    return images


def _with_objects(images: dict[str, Tensor], each: Tensor | None, scene: SurfaceSOS) -> dict[str, Tensor]:
    """Images of rays, and those of several objects, of mattes (R, K)."""
    if each is None:
        return images
    images |= object_images(images["alpha"], each, scene.objects)
    return images | object_layers(images, scene.objects) if "foreground" in images else images


@dataclass(frozen=True)
class ViewRenderer:
    """Renders views of a scene, a number of rays at a time; on a GPU as many as its memory takes."""

    scene: SurfaceSOS
    """In evaluation mode."""
    rays_at_once: int
    """Rays that are rendered together on a CPU: fewer take less memory."""
    shown: Shown | None = None
    """Some of several objects, see `SurfaceSOS.showing`; None renders all."""
    code: Tensor | None = None
    """(1, C) appearance, see `SurfaceSOS.render`; None takes the mean of the training photos'."""

    @torch.no_grad()
    def view(
        self, rays: RayBundle, need: Need, edge_samples: int = 1, before_chunk: BeforeChunk | None = None
    ) -> dict[str, Tensor]:
        """Images (H, W, C) of a view by name, as far as `need` says.

        Args:
            rays: (H, W), world frame.
            need: how much to render.
            edge_samples: rays per axis of a pixel at the object's outline, odd; 1 renders the pixels' middles alone.
            before_chunk: see `BeforeChunk`.
        """
        images = self._in_chunks(rays, need, before_chunk)
        if edge_samples > 1:
            self._smooth_edges(rays, images, need, edge_samples, before_chunk)
        if need is Need.PLATE:
            seen = torch.maximum(images["background_confidence"], images.pop(FILLED))
            images["background"] = inpaint(images["background"], seen[..., 0])
        return images

    def _in_chunks(self, rays: RayBundle, need: Need, before_chunk: BeforeChunk | None) -> dict[str, Tensor]:
        """Images (H, W, C) of rays (H, W), on the rays' device.

        Raises:
            UserError: the GPU's memory is full.
        """
        height, width = rays.origins.shape[:2]
        device = self.scene.frame.centre.device
        parts: dict[str, list[Tensor]] = defaultdict(list)
        objects = max(len(self.scene.objects), 1)
        count, start = rays_at_once(self.scene.config, device, self.rays_at_once, objects), 0
        if count != self.rays_at_once:
            _say_once(f"Rendering {count} rays at a time, as the GPU's memory allows.")
        while start < len(rays):
            chunk = rays.get_row_major_sliced_ray_bundle(start, start + count)
            if before_chunk is not None:
                before_chunk(len(chunk))
            try:
                found = render_rays(self.scene, chunk.to(device), need, self.shown, self.code)
            except torch.cuda.OutOfMemoryError as error:
                count = _fewer(count, error)
                continue
            for name, image in found.items():
                parts[name].append(image.to(rays.directions.device))
            start += count
        return {name: torch.cat(chunks).view(height, width, -1) for name, chunks in parts.items()}

    def _smooth_edges(
        self,
        rays: RayBundle,
        images: dict[str, Tensor],
        need: Need,
        edge_samples: int,
        before_chunk: BeforeChunk | None,
    ) -> None:
        """Render more rays through the pixels of the object's outline and average, in place."""
        names = self.scene.objects
        chosen = edge_pixels(images["alpha"][..., 0])
        for name in names:  # two objects may meet where alpha of all has no edge
            chosen = chosen | edge_pixels(images[output_of("alpha", name)][..., 0])
        if min(chosen.shape) < 2 or not chosen.any():
            return
        directions = sub_pixel_directions(rays.directions, chosen, edge_samples)
        shape = directions.shape[:2]  # an image with a pixel a row
        parts = RayBundle(
            origins=rays.origins[chosen][:, None].expand(*shape, 3).contiguous(),
            directions=directions,
            pixel_area=rays.pixel_area[chosen][:, None].expand(*shape, 1) / (shape[1] + 1),
            times=None if rays.times is None else rays.times[chosen][:, None].expand(*shape, 1).contiguous(),
        )
        if ROOM in (rays.metadata or {}):
            parts.metadata[ROOM] = sub_pixel_directions(rays.metadata[ROOM], chosen, edge_samples)
        found = self._in_chunks(parts, min(need, Need.LAYERS), before_chunk)
        colours = {name for name in found if name.partition("_")[0] == PARTS}
        for name in ("alpha", "rgb", "foreground", "overlay", *(output_of("alpha", name) for name in names), *colours):
            if name in found:
                images[name][chosen] = (images[name][chosen] + found[name].sum(1)) / (shape[1] + 1)
        images["mask"][chosen] = matte_images(images["alpha"][chosen][..., 0])["mask"]
        if names:
            each = torch.cat([images[output_of("alpha", name)] for name in names], -1)
            images |= object_images(images["alpha"], each, names)
            images |= object_layers(images, names) if "foreground" in images else {}


_say_once = functools.cache(say)


def _fewer(count: int, error: Exception) -> int:
    """Half as many rays, after so many did not fit into the GPU's memory."""
    if count <= MIN_RAYS_AT_ONCE:
        raise UserError(
            f"The GPU's memory is full: {count} rays cannot be rendered. Stop other programs on it."
        ) from error
    torch.cuda.empty_cache()
    _say_once(f"Rendering {count // 2} rays at a time: {count} do not fit into the GPU's memory.")
    return count // 2
