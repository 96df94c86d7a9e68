"""A map of the plane that the object stands on, seen from above: inpainted under the object, its shadow removed.

No photo shows what the object touches, and the surface around it lies in its shadow. Both are easier to correct on a
map than in an image: the hidden part is small there, its surroundings are seen from all sides, and all views agree. A
wall that the object hangs at is treated like a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.clean_plate.inpainting import pull_push
from surface_sos_ns.clean_plate.shadow import blocked, fit_light, hemisphere, tangents, visible_past
from surface_sos_ns.rendering.colour_space import to_display, to_light
from surface_sos_ns.rendering.ray_context import NO_CONTEXT, RayContext
from surface_sos_ns.sampling.field_cache import cell_centres

if TYPE_CHECKING:
    from surface_sos_ns.capture.support_plane import SupportPlane

EXTENT = 2.0
"""Half a side of the map, object radii: shadows reach farther than the object."""
PLANE_TOLERANCE = 0.12
"""Distance from the plane, object radii, within which a sample belongs to it."""
SHADOW_RAY_OFFSET = 0.03
"""Distance from the plane, object radii, at which shadow rays start: cells of the object may reach into the plane."""
MAX_GAP = 0.3
"""Largest gap, object radii, between the object and a plane that it stands on: its feet may be missing."""
MAX_PENETRATION = 0.1
"""Largest depth, object radii, to which the object may reach through the plane: both surfaces are inexact."""
MIN_OBSERVED = 0.8
"""Confidence, and share of a ray's light, above which a point counts as observed."""
SEARCH_RAYS = 8192
"""Rays whose surface points the plane is fitted to."""
CAMERAS_PER_CELL = 6
"""Cameras, drawn at random, from which each cell of the map is rendered."""
LIGHT_DIRECTIONS = 128
"""Directions in the hemisphere over the plane from which light is fitted."""
MAX_SHADOW = 0.85
"""Largest share of blocked light that is corrected. Where more is blocked, the correction would amplify noise: such
places are inpainted instead."""
MIN_SHADOW = 0.03
"""Share of blocked light that does not count as shadow."""
MIN_OBSERVED_SHARE = 0.1
"""Share of the map's cells that have to be observed for the map to be used."""
INPAINT_RADIUS = 5
"""Radius, in cells, of the neighbourhood that inpainting takes colours and gradients from."""


class BackgroundView(NamedTuple):
    """R rays of S samples, object frame, rendered through the background alone."""

    colours: Tensor  # (R, 3) in the space in which colours are blended
    confidence: Tensor  # (R,) in [0, 1] that training has observed it
    weights: Tensor  # (R, S) rendering weights of the samples
    edges: Tensor  # (R, S + 1) distances of the edges of the samples' intervals

    @property
    def middles(self) -> Tensor:
        """(R, S) distances of the samples."""
        return 0.5 * (self.edges[:, 1:] + self.edges[:, :-1])

    def heights(self, origins: Tensor, directions: Tensor, point: Tensor, normal: Tensor) -> Tensor:
        """Heights (R, S) of the samples over a plane through `point`, (3,) or (R, 3); rays (R, 3) of this view."""
        return ((origins - point) @ normal)[:, None] + (directions @ normal)[:, None] * self.middles


class RenderBackground(Protocol):
    """Renders rays through the background alone."""

    def __call__(self, origins: Tensor, directions: Tensor, context: RayContext = NO_CONTEXT) -> BackgroundView:
        """Of rays, origins and directions (R, 3) of the object frame.

        Without a context in the mean of the training photos' light, and without a room that stands before the camera.
        """


class CompletedBackground(NamedTuple):
    """The background of R rays, inpainted where hidden and without the object's shadow."""

    colours: Tensor  # (R, 3)
    filled: Tensor  # (R,) share that no photo shows and the map fills in
    shadow: Tensor  # (R,) share of the light that the object blocks


class SupportMap(nn.Module):
    """A map of the plane that the object stands on. All of it are buffers, so in checkpoints.

    Args:
        resolution: cells per side.
        several: whether there are several objects, so that the shadow of some of them may be asked for.
    """

    found: Tensor
    frame: Tensor
    colour: Tensor
    shade: Tensor
    fill: Tensor
    hidden: Tensor
    lights: Tensor

    def __init__(self, resolution: int = 128, several: bool = False):
        super().__init__()
        n = resolution
        self.register_buffer("found", torch.zeros((), dtype=torch.bool))
        self.register_buffer("frame", torch.zeros(4, 3))  # origin, two axes and normal of the plane, object frame
        self.register_buffer("colour", torch.zeros(3, n, n))  # as photos show it, mean over cameras
        self.register_buffer("shade", torch.zeros(1, n, n))  # share of the light that the object blocks
        self.register_buffer("fill", torch.zeros(3, n, n))  # without the shadow, inpainted where hidden
        self.register_buffer("hidden", torch.zeros(1, n, n))  # in [0, 1], 1 where no photo shows it
        self.several = several
        if several:  # share of the light from each direction, see `fit_light`
            self.register_buffer("lights", torch.zeros(LIGHT_DIRECTIONS))

    # ------------------------------------------------------------------ use

    def complete(
        self, origins: Tensor, directions: Tensor, view: BackgroundView, kept_shade: Tensor | None = None
    ) -> CompletedBackground:
        """Inpaint the background of rays where the object hides it, and remove the object's shadow.

        In the shadow the blocked light is added back, in proportion to the diffuse colour: the mean over cameras, or
        the view's own colour where that is darker. Specular reflections are not affected by the shadow.

        Args:
            origins, directions: (R, 3), object frame, directions unit.
            view: of the same rays.
            kept_shade: (1, n, n) `shade_of` objects that stay, whose shadow stays, too; None for none.
        """
        none = torch.zeros_like(view.confidence)
        if not self.found:
            return CompletedBackground(view.colours, none, none)
        centre, normal = self.frame[0], self.frame[3]
        distance = ((centre - origins) @ normal) / (directions @ normal)
        meets = torch.isfinite(distance) & (distance > 0)
        place = (origins + directions * torch.where(meets, distance, 0.0)[:, None] - centre) @ self.frame[1:3].T
        meets &= (place.abs() < EXTENT).all(-1)
        if not meets.any():
            return CompletedBackground(view.colours, none, none)
        height = view.heights(origins, directions, centre, normal)
        on_plane = (view.weights * (height.abs() < PLANE_TOLERANCE)).sum(-1) * meets
        in_front = (view.weights * ((height > PLANE_TOLERANCE) & (view.middles < distance[:, None]))).sum(-1)
        at = (place / EXTENT).flip(-1)[None, None]  # grid_sample wants (x, y) as (column, row)
        maps = torch.cat(
            [self.colour, self.fill, self.shade, self.hidden, *([] if kept_shade is None else [kept_shade])]
        )
        values = F.grid_sample(maps[None], at, align_corners=False, padding_mode="border")[0, :, 0].T
        colour, fill, shade, hidden = values[:, :3], values[:, 3:6], values[:, 6], values[:, 7]
        blocked_light = (on_plane * shade / (1.0 - shade))[:, None] * torch.minimum(view.colours, colour)
        lit = view.colours + blocked_light
        shadow = 1.0 - view.colours.sum(-1) / lit.sum(-1).clamp(min=1e-6)
        filled = hidden * (1.0 - in_front).clamp(0, 1) * meets
        shadow = torch.lerp(torch.where(meets, shadow, none), shade, filled)
        colours = torch.lerp(lit, fill, filled[:, None])
        if kept_shade is None:
            return CompletedBackground(colours, filled, shadow)
        kept = values[:, 8] * torch.lerp(on_plane.clamp(0, 1), torch.ones_like(filled), filled)
        light = 1.0 - kept
        return CompletedBackground(
            colours * light[:, None], filled, 1.0 - ((1.0 - shadow) / light.clamp(min=1e-3)).clamp(max=1)
        )

    @torch.no_grad()
    def shade_of(self, solid: Tensor) -> Tensor | None:
        """(1, n, n) share of the light that some of several objects block; None where there is no map.

        Args:
            solid: (N, N, N) bool, the cells of these objects over the object cube.
        """
        if not self.found or not self.several:
            return None
        points, offsets = self._points()
        normal = self.frame[3]
        visible = _visible(solid, points, normal, self.shade.shape[-1])
        return (_blocked_share(visible, self.lights) * _fading(offsets))[None]

    def _points(self) -> tuple[Tensor, Tensor]:
        """Points (n * n, 3) of the cells of the map, and their offsets (n, n, 3) from its centre, object frame."""
        centre, first, second, _ = self.frame
        n = self.shade.shape[-1]
        axis = ((torch.arange(n, device=centre.device) + 0.5) / n * 2 - 1) * EXTENT
        offsets = axis[:, None, None] * first + axis[None, :, None] * second
        return (centre + offsets).reshape(-1, 3), offsets

    # ------------------------------------------------------------------ building

    @torch.no_grad()
    def build(self, render_background: RenderBackground, solid: Tensor, dilated: Tensor, cameras: Tensor) -> bool:
        """Build the map, at the end of training.

        Args:
            render_background: see `RenderBackground`.
            solid: (N, N, N) bool, the object's cells over the object cube, indexed [x, y, z].
            dilated: the same, dilated: the object's outermost cells may hide the background there, or colour it.
            cameras: (V, 3) centres of the training views, object frame.

        Returns:
            Whether there is such a plane, and enough of it was observed. If not, the map changes nothing.
        """
        self.found.fill_(False)
        random = torch.Generator().manual_seed(0)  # not the global one, whose state belongs to the run
        plane = self._find_plane(render_background, solid, cameras, random)
        if plane is None:
            return False
        normal = torch.as_tensor(plane.normal, dtype=torch.float32, device=cameras.device)
        first, second = tangents(normal)
        centre = _solid_centres(solid).mean(0)
        centre = centre - normal * (centre @ normal - plane.offset)
        self.frame.copy_(torch.stack([centre, first, second, normal]))
        n = self.shade.shape[-1]
        points, offsets = self._points()

        colour, known = self._observe_colours(render_background, points, normal, cameras, random)
        seen = visible_past(dilated, points, cameras).reshape(n, n)
        visible = _visible(solid, points, normal, n)
        lights = fit_light(colour, known * (seen >= 1), visible)
        if self.several:
            self.lights.copy_(lights)
        shade = _blocked_share(visible, lights)
        seen = seen * (shade < MAX_SHADOW)  # too dark to be used
        shade = shade * _fading(offsets)

        self.colour.copy_(colour)
        self.shade.copy_(shade)
        sure = (known > 0.5 * MIN_OBSERVED) & (seen >= 1)
        if sure.float().mean() < MIN_OBSERVED_SHARE:
            return False
        self.hidden.copy_(1.0 - seen)
        self.fill.copy_(_inpainted(colour / (1.0 - shade), seen, sure))
        self.found.fill_(True)
        return True

    @staticmethod
    def _find_plane(
        render_background: RenderBackground, solid: Tensor, cameras: Tensor, random: torch.Generator
    ) -> SupportPlane | None:
        """The plane that the object stands on, with the object on the cameras' side; None if there is none."""
        # Imported here: building the map needs them once, rendering does not.
        from surface_sos_ns.capture.sphere import ObjectSphere
        from surface_sos_ns.capture.support_plane import find_support_plane

        cells = _solid_centres(solid)
        if not len(cells):
            return None
        device = cameras.device
        target = F.normalize(torch.randn(SEARCH_RAYS, 3, generator=random), dim=-1)
        target = target * 1.5 * torch.rand(SEARCH_RAYS, 1, generator=random) ** (1 / 3)
        origins = cameras[torch.randint(len(cameras), (SEARCH_RAYS,), generator=random).to(device)]
        directions = F.normalize(target.to(device) - origins, dim=-1)
        view = render_background(origins, directions)
        stopped = view.weights.cumsum(-1)
        half = (stopped < 0.5 * stopped[:, -1:]).sum(-1, keepdim=True).clamp(max=stopped.shape[1] - 1)
        points = origins + directions * view.middles.gather(1, half)
        found = (view.confidence > MIN_OBSERVED) & (stopped[:, -1] > MIN_OBSERVED)
        points = points[found & (points.norm(dim=-1) < 1.5 * EXTENT)]
        # The largest plane may be another one, such as the floor under a table: drop its points and try again.
        for _ in range(3):
            plane = find_support_plane(cameras.cpu().numpy(), points.cpu().numpy(), ObjectSphere(np.zeros(3), 1.0))
            if plane is None:
                return None
            height = np.quantile(plane.height(cells.cpu().numpy()), 0.02)
            if -MAX_PENETRATION < height < MAX_GAP:
                return plane
            points = points[torch.as_tensor(np.abs(plane.height(points.cpu().numpy())) > plane.tolerance)]
        return None

    @staticmethod
    def _observe_colours(
        render_background: RenderBackground,
        points: Tensor,
        normal: Tensor,
        cameras: Tensor,
        random: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Mean colours (3, n, n) over cameras of points (n * n, 3) on the plane, and their confidence (n, n)."""
        n = round(len(points) ** 0.5)
        total, amount = torch.zeros_like(points), torch.zeros_like(points[:, 0])
        for _ in range(CAMERAS_PER_CELL):
            origins = cameras[torch.randint(len(cameras), (len(points),), generator=random).to(points.device)]
            directions = F.normalize(points - origins, dim=-1)
            view = render_background(origins, directions)
            height = view.heights(origins, directions, points, normal)
            on_plane = (view.weights * (height.abs() < PLANE_TOLERANCE)).sum(-1)
            weight = (on_plane > MIN_OBSERVED) * view.confidence
            total += view.colours * weight[:, None]
            amount += weight
        colours = total / amount.clamp(min=1e-6)[:, None]
        return colours.T.reshape(3, n, n), (amount / CAMERAS_PER_CELL).reshape(n, n)


def _visible(solid: Tensor, points: Tensor, normal: Tensor, n: int) -> Tensor:
    """(L, n, n) bool, whether light from each of `LIGHT_DIRECTIONS` reaches points (n * n, 3) past solid cells."""
    lights = hemisphere(normal, LIGHT_DIRECTIONS)
    visible = torch.stack([~blocked(solid, points, light.expand_as(points), SHADOW_RAY_OFFSET) for light in lights])
    return visible.reshape(LIGHT_DIRECTIONS, n, n)


def _blocked_share(visible: Tensor, lights: Tensor) -> Tensor:
    """(n, n) share of the light that is blocked, from `visible` (L, n, n) bool and the lights' shares (L,)."""
    shade = torch.tensordot(lights, (~visible).float(), 1)
    return ((shade - MIN_SHADOW) / (1.0 - MIN_SHADOW)).clamp(0, MAX_SHADOW)


def _fading(offsets: Tensor) -> Tensor:
    """(n, n) from 1 to 0 towards the edge of the map, where a sudden end of a correction would be visible."""
    return ((EXTENT - offsets.norm(dim=-1)) / (0.25 * EXTENT)).clamp(0, 1)


def _solid_centres(solid: Tensor) -> Tensor:
    """Centres (P, 3) of the solid cells, object frame."""
    return cell_centres(solid.reshape(-1).nonzero()[:, 0], solid.shape[0], 1.0)


def _inpainted(colours: Tensor, seen: Tensor, sure: Tensor) -> Tensor:
    """Colours (3, n, n), linear light, with hidden cells inpainted (Navier-Stokes, Bertalmio et al. 2001).

    Args:
        colours: (3, n, n) linear light.
        seen: (n, n) in [0, 1], visibility from the cameras.
        sure: (n, n) bool, where colours are reliable; elsewhere they are interpolated first.
    """
    import cv2  # imported here for the same reason

    smooth = pull_push(colours.movedim(0, -1), sure.to(colours))
    margin = INPAINT_RADIUS - 1
    near_hidden = F.max_pool2d((seen[None] < 1).float(), 2 * margin + 1, stride=1, padding=margin)[0] > 0
    hole = (seen < 1) | (near_hidden & ~sure)
    picture = np.rint(to_display(smooth).clamp(0, 1).cpu().numpy() * 255).astype(np.uint8)
    painted = cv2.inpaint(picture, hole.cpu().numpy().astype(np.uint8), INPAINT_RADIUS, cv2.INPAINT_NS)
    light = to_light(torch.as_tensor(painted.astype(np.float32) / 255, device=colours.device))
    return torch.where(hole[..., None], light, smooth).movedim(-1, 0)
