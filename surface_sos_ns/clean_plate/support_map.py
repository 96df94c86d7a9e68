"""What the object stands on, seen straight from above: completed where the object touches it, and in full light.

No photo shows what the object touches, and what is around it lies in its shadow. Both are easier to mend on a map of
the surface than in a picture: the hidden part is small there, what is around it is seen from all sides, and all views
get the same. A wall that the object hangs at is as good as a table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.clean_plate.inpainting import pull_push
from surface_sos_ns.clean_plate.shadow import blocked, fit_light, hemisphere, seen_past, tangents
from surface_sos_ns.rendering.colour_space import to_display, to_light
from surface_sos_ns.sampling.field_cache import cell_centres

if TYPE_CHECKING:
    from surface_sos_ns.capture.support_plane import SupportPlane

EXTENT = 2.0
"""Half a side of the map, object radii: shadows reach further than the object."""
THICKNESS = 0.12
"""What is nearer than this to the plane, in object radii, belongs to it."""
LIFT = 0.03
"""From so far above the plane, object radii, light is followed: a cell of the object may reach into it."""
TOUCHES = 0.3
"""So near to the plane the object has to come, object radii, for it to stand there: its feet may be missing."""
SINKS = 0.1
"""And so far it may reach through it: neither is known better."""
SURE = 0.8
"""Confidence and share of a ray's light from which on a point counts as seen."""
RAYS = 8192
"""Rays that look for the plane."""
LOOKS = 6
"""Cameras, drawn at random, from which each cell of the map is looked at."""
LIGHTS = 128
"""Directions that light may come from."""
MOST_SHADE = 0.85
"""Share of the light that can be given back: from less than the rest, noise is made."""
FAINT_SHADE = 0.03
"""Share up to which a shadow is none."""
LEAST_SEEN = 0.1
"""Share of the map that has to be seen for it to say anything."""
PAINT_REACH = 5
"""Cells around a hidden one of which lines are continued into it."""


class BackgroundView(NamedTuple):
    """What rays see of the background alone. R rays of S samples, object frame."""

    colours: Tensor  # (R, 3) as they add up
    confidence: Tensor  # (R,) how surely training has seen it
    weights: Tensor  # (R, S) light stopped at each sample
    edges: Tensor  # (R, S + 1) distances of the samples' sections

    @property
    def middles(self) -> Tensor:
        """(R, S) distances of the samples."""
        return 0.5 * (self.edges[:, 1:] + self.edges[:, :-1])

    def heights(self, origins: Tensor, directions: Tensor, point: Tensor, normal: Tensor) -> Tensor:
        """(R, S) of the samples over a plane through a point (3,) or (R, 3); the rays (R, 3) are those of this view."""
        return ((origins - point) @ normal)[:, None] + (directions @ normal)[:, None] * self.middles


class Mended(NamedTuple):
    """The background of R rays, completed and lit."""

    colours: Tensor  # (R, 3)
    filled: Tensor  # (R,) share of it that no photo shows and the map fills in
    shadow: Tensor  # (R,) share of the light on it that the object keeps away


class SupportMap(nn.Module):
    """A map of the plane that carries the object. All of it are buffers, so that a loaded checkpoint renders at once.

    Args:
        resolution: cells a side.
    """

    found: Tensor
    frame: Tensor
    colour: Tensor
    shade: Tensor
    fill: Tensor
    hidden: Tensor

    def __init__(self, resolution: int = 128):
        super().__init__()
        n = resolution
        self.register_buffer("found", torch.zeros((), dtype=torch.bool))
        self.register_buffer("frame", torch.zeros(4, 3))  # the middle, two axes and the normal
        self.register_buffer("colour", torch.zeros(3, n, n))  # as it is seen, mean over views
        self.register_buffer("shade", torch.zeros(1, n, n))  # share of the light that the object keeps away
        self.register_buffer("fill", torch.zeros(3, n, n))  # in full light, also where it is not seen
        self.register_buffer("hidden", torch.zeros(1, n, n))  # how surely no photo shows it

    # ------------------------------------------------------------------ use

    def mend(self, origins: Tensor, directions: Tensor, view: BackgroundView) -> Mended:
        """Complete and light what rays see of the background.

        Where the plane lies in the object's shadow, the light that is missing is added: as much as the surface sends
        to all sides, since what mirrors in it has lost nothing.

        Args:
            origins, directions: (R, 3), object frame, unit directions.
            view: of the same rays.
        """
        none = torch.zeros_like(view.confidence)
        if not self.found:
            return Mended(view.colours, none, none)
        middle, normal = self.frame[0], self.frame[3]
        distance = ((middle - origins) @ normal) / (directions @ normal)
        meets = torch.isfinite(distance) & (distance > 0)
        place = (origins + directions * torch.where(meets, distance, 0.0)[:, None] - middle) @ self.frame[1:3].T
        meets &= (place.abs() < EXTENT).all(-1)
        if not meets.any():
            return Mended(view.colours, none, none)
        height = view.heights(origins, directions, middle, normal)
        on_plane = (view.weights * (height.abs() < THICKNESS)).sum(-1) * meets
        before = (view.weights * ((height > THICKNESS) & (view.middles < distance[:, None]))).sum(-1)
        at = (place / EXTENT).flip(-1)[None, None]  # grid_sample wants (x, y) as (column, row)
        maps = torch.cat([self.colour, self.fill, self.shade, self.hidden])
        values = F.grid_sample(maps[None], at, align_corners=False, padding_mode="border")[0, :, 0].T
        colour, fill, shade, hidden = values[:, :3], values[:, 3:6], values[:, 6], values[:, 7]
        missing = (on_plane * shade / (1.0 - shade))[:, None] * torch.minimum(view.colours, colour)
        lit = view.colours + missing
        shadow = 1.0 - view.colours.sum(-1) / lit.sum(-1).clamp(min=1e-6)
        filled = hidden * (1.0 - before).clamp(0, 1) * meets
        shadow = torch.lerp(torch.where(meets, shadow, none), shade, filled)
        return Mended(torch.lerp(lit, fill, filled[:, None]), filled, shadow)

    # ------------------------------------------------------------------ making

    @torch.no_grad()
    def make(
        self, look: Callable[[Tensor, Tensor], BackgroundView], solid: Tensor, around: Tensor, cameras: Tensor
    ) -> bool:
        """Make the map anew.

        Args:
            look: what rays (R, 3), (R, 3) of the object frame see of the background alone.
            solid: (N, N, N) bool, where the object is, over the object cube, indexed [x, y, z].
            around: the same, grown: what may be hidden or stained by the object's last cells.
            cameras: (V, 3) centres of the training views, object frame.

        Returns:
            Whether there is such a plane. If not, the map says nothing.
        """
        self.found.fill_(False)
        random = torch.Generator().manual_seed(0)  # the run's own is not touched
        plane = self._plane(look, solid, cameras, random)
        if plane is None:
            return False
        normal = torch.as_tensor(plane.normal, dtype=torch.float32, device=cameras.device)
        first, second = tangents(normal)
        middle = _centres(solid).mean(0)
        middle = middle - normal * (middle @ normal - plane.offset)
        self.frame.copy_(torch.stack([middle, first, second, normal]))
        n = self.shade.shape[-1]
        axis = ((torch.arange(n, device=cameras.device) + 0.5) / n * 2 - 1) * EXTENT
        offsets = axis[:, None, None] * first + axis[None, :, None] * second
        points = (middle + offsets).reshape(-1, 3)

        colour, known = self._colours(look, points, normal, cameras, random)
        seen = seen_past(around, points, cameras).reshape(n, n)
        lights = hemisphere(normal, LIGHTS)
        visible = torch.stack([~blocked(solid, points, light.expand_as(points), LIFT) for light in lights])
        visible = visible.reshape(LIGHTS, n, n)
        shares = fit_light(colour, known * (seen >= 1), visible)
        shade = torch.tensordot(shares, (~visible).float(), 1)
        shade = ((shade - FAINT_SHADE) / (1.0 - FAINT_SHADE)).clamp(0, MOST_SHADE)
        seen = seen * (shade < MOST_SHADE)  # so dark that it says nothing
        # Towards the map's edge it fades: a shadow that is cut off there would be seen.
        shade = shade * ((EXTENT - offsets.norm(dim=-1)) / (0.25 * EXTENT)).clamp(0, 1)

        self.colour.copy_(colour)
        self.shade.copy_(shade)
        sure = (known > 0.5 * SURE) & (seen >= 1)
        if sure.float().mean() < LEAST_SEEN:
            return False
        self.hidden.copy_(1.0 - seen)
        self.fill.copy_(_filled(colour / (1.0 - shade), seen, sure))
        self.found.fill_(True)
        return True

    @staticmethod
    def _plane(
        look: Callable[[Tensor, Tensor], BackgroundView], solid: Tensor, cameras: Tensor, random: torch.Generator
    ) -> SupportPlane | None:
        """The plane that the object touches, all of it on the cameras' side."""
        # Only the making needs these, once at the end of a run; rendering does without.
        from surface_sos_ns.capture.sphere import ObjectSphere
        from surface_sos_ns.capture.support_plane import find_support_plane

        cells = _centres(solid)
        if not len(cells):
            return None
        device = cameras.device
        target = F.normalize(torch.randn(RAYS, 3, generator=random), dim=-1)
        target = target * 1.5 * torch.rand(RAYS, 1, generator=random) ** (1 / 3)
        origins = cameras[torch.randint(len(cameras), (RAYS,), generator=random).to(device)]
        directions = F.normalize(target.to(device) - origins, dim=-1)
        view = look(origins, directions)
        stopped = view.weights.cumsum(-1)
        half = (stopped < 0.5 * stopped[:, -1:]).sum(-1, keepdim=True).clamp(max=stopped.shape[1] - 1)
        points = origins + directions * view.middles.gather(1, half)
        found = (view.confidence > SURE) & (stopped[:, -1] > SURE)
        points = points[found & (points.norm(dim=-1) < 1.5 * EXTENT)]
        # The largest plane may be another one: the floor, where the object stands on a box.
        for _ in range(3):
            plane = find_support_plane(cameras.cpu().numpy(), points.cpu().numpy(), ObjectSphere(np.zeros(3), 1.0))
            if plane is None:
                return None
            height = np.quantile(plane.height(cells.cpu().numpy()), 0.02)
            if -SINKS < height < TOUCHES:
                return plane
            points = points[torch.as_tensor(np.abs(plane.height(points.cpu().numpy())) > plane.tolerance)]
        return None

    @staticmethod
    def _colours(
        look: Callable[[Tensor, Tensor], BackgroundView],
        points: Tensor,
        normal: Tensor,
        cameras: Tensor,
        random: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """(3, n, n) mean colours of points (n * n, 3) on the plane, and (n, n) how surely they are of it."""
        n = round(len(points) ** 0.5)
        total, amount = torch.zeros_like(points), torch.zeros_like(points[:, 0])
        for _ in range(LOOKS):
            origins = cameras[torch.randint(len(cameras), (len(points),), generator=random).to(points.device)]
            directions = F.normalize(points - origins, dim=-1)
            view = look(origins, directions)
            height = view.heights(origins, directions, points, normal)
            on_plane = (view.weights * (height.abs() < THICKNESS)).sum(-1)
            weight = (on_plane > SURE) * view.confidence
            total += view.colours * weight[:, None]
            amount += weight
        colours = total / amount.clamp(min=1e-6)[:, None]
        return colours.T.reshape(3, n, n), (amount / LOOKS).reshape(n, n)


def _centres(solid: Tensor) -> Tensor:
    """(P, 3) centres of the cells that are solid, object frame."""
    return cell_centres(solid.reshape(-1).nonzero()[:, 0], solid.shape[0], 1.0)


def _filled(colours: Tensor, seen: Tensor, sure: Tensor) -> Tensor:
    """(3, n, n) colours, light, also where they are not sure (n, n): lines run on into what is not seen (n, n)."""
    import cv2  # as above

    smooth = pull_push(colours.movedim(0, -1), sure.to(colours))
    hidden = F.max_pool2d((seen[None] < 1).float(), 2 * PAINT_REACH - 1, stride=1, padding=PAINT_REACH - 1)[0] > 0
    hole = (seen < 1) | (hidden & ~sure)
    picture = np.rint(to_display(smooth).clamp(0, 1).cpu().numpy() * 255).astype(np.uint8)
    painted = cv2.inpaint(picture, hole.cpu().numpy().astype(np.uint8), PAINT_REACH, cv2.INPAINT_NS)
    light = to_light(torch.as_tensor(painted.astype(np.float32) / 255, device=colours.device))
    return torch.where(hole[..., None], light, smooth).movedim(-1, 0)
