"""Learns a part head on the surface of a finished scene, which stays as it is.

Parts of one of several objects are learned in a frame of its own, in which the cube about it is [-1, 1]^3: lengths are
those of the object then, however small it is in the object sphere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from surface_sos_ns.capture.views import Views
from surface_sos_ns.models.parts.identities import areas, order_by_area, order_by_overlap
from surface_sos_ns.models.parts.lifting import Obstacles, lift, without_signs
from surface_sos_ns.models.parts.shape import thickness_at, thickness_features
from surface_sos_ns.models.parts.starts import best_start, with_no_part_empty
from surface_sos_ns.models.parts.surface import Surface, draw_points, surface_of
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.heads.parts import PartHead
from surface_sos_ns.models.surface_sos.mesh import WHOLE, Cube, object_cube, object_field, surface_mesh
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.training.parts import PartObjective, part_centres, part_losses

if TYPE_CHECKING:
    import trimesh

POINTS = 6000
"""Points on the surface from which parts are learned."""
RESOLUTION = 160
"""Cells per axis of the grid that surface and inside are taken from."""
SHAPE_DISTANCE, APPEARANCE_DISTANCE = 0.15, 0.3
"""Standard deviations, object radii, of the averages of both kinds of features along the surface. That of appearance is
larger, so that small painted details do not become parts."""
APPEARANCE_WEIGHT = 0.3
"""Length of the features of appearance; those of shape have length 1."""
START_STEPS, STEPS = 100, 100
"""Steps of Adam that fit the head to the labels of the start, and that minimise the losses."""
RATE = 1e-2
"""Of Adam."""
SPECK = 0.005
"""Share of the surface below which a part counts as vanished after training; its channel is switched off."""
NEVER = -1e4
"""Bias of a channel that is switched off: its logit is the lowest everywhere."""


class PartFeatures(NamedTuple):
    """The surface of a scene and its features; they do not depend on the number of parts."""

    mesh: trimesh.Trimesh  # that the points are drawn on, world frame
    solid: torch.Tensor  # (N, N, N) bool, cells of the cube inside the object
    surface: Surface  # in the frame of the cube: the object frame, but of one of several objects its own
    shape: np.ndarray  # (P, B) of thickness
    appearance: np.ndarray  # (P, D) of the photos' features
    cube: Cube = WHOLE  # the object cube, or that about one of several objects
    object: tuple[str, int] | None = None  # name and identity of one of several

    @property
    def features(self) -> np.ndarray:
        """(P, B + D), none negative."""
        return np.concatenate([self.shape, APPEARANCE_WEIGHT * self.appearance], axis=1)


def describe_surface(
    scene: SurfaceSOS,
    views: Views,
    grids: Sequence[np.ndarray],
    points: int = POINTS,
    seed: int = 0,
    object: str | None = None,
) -> PartFeatures:
    """Points on the object's surface and their features.

    Args:
        scene: a trained model.
        views: of V photos, world frame.
        grids: V grids (h, w, D) of features that tile the photos.
        points: P.
        seed: of the drawing.
        object: name of one of several; None with one.

    Raises:
        MeshError: the scene has no surface.
    """
    identity = None if object is None else scene.objects.index(object) + 1
    cube, frame, obstacles = WHOLE, scene.frame, None
    if identity is not None:
        cube = object_cube(scene, identity)
        frame = ObjectFrame(scene.frame.to_world(cube.centre), float(scene.frame.radius) * cube.half)
        obstacles = _others(scene, identity)
    field = object_field(scene, RESOLUTION, identity, cube)
    mesh = surface_mesh(field, scene.frame, None if identity is None else cube)
    places, normals = draw_points(mesh, points, seed)
    places = frame.points(torch.as_tensor(places, dtype=torch.float32)).cpu().numpy()
    surface = surface_of(places, normals)
    solid = field < 0
    shape = thickness_features(thickness_at(solid, surface.points, surface.normals))
    lifted = lift(surface.points, surface.normals, solid, frame, views, grids, obstacles)
    seen = lifted.seen > 0
    look = surface.spread(lifted.features, seen, APPEARANCE_DISTANCE)
    reached = surface.spread(np.ones((len(seen), 1)), seen, APPEARANCE_DISTANCE)[:, 0] > 0.5  # a seen point is near
    return PartFeatures(
        mesh,
        torch.as_tensor(solid),
        surface,
        surface.spread(shape, np.ones(len(shape)), SHAPE_DISTANCE).astype(np.float32),
        without_signs(look, reached),
        cube,
        None if identity is None else (scene.objects[identity - 1], identity),
    )


def _others(scene: SurfaceSOS, identity: int) -> Obstacles:
    """The cells of all objects but one."""
    solid, _ = scene.object_grid.solid_cells()
    return Obstacles((solid & (scene.object_grid.cell_owners() != identity)).cpu(), scene.frame)


def fit_parts(
    scene: SurfaceSOS,
    data: PartFeatures,
    parts: int,
    objective: PartObjective,
    seed: int = 0,
    earlier: PartHead | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> PartHead:
    """A head of K parts, their numbers by area or as an earlier result had them.

    Args:
        scene: a trained model.
        data: of `describe_surface`.
        parts: K.
        objective: weights of the losses.
        seed: of the head's weights and of the start.
        earlier: result whose numbers are taken over.
        progress: called with the fraction that is done.
    """
    start = best_start(data.surface, data.features, parts, objective, seed)
    head = _learn(scene, data, parts, objective, start, seed, lambda done: progress(0.5 * done))
    labels = _labels(head, data)
    if len(np.unique(labels)) < parts:  # small parts have vanished: others are divided instead
        start = with_no_part_empty(data.surface, data.features, labels, parts, objective, seed)
        head = _learn(scene, data, parts, objective, start, seed, lambda done: progress(0.5 + 0.5 * done))
    _number(head, data, earlier)
    return head.requires_grad_(False)


def _learn(
    scene: SurfaceSOS,
    data: PartFeatures,
    parts: int,
    objective: PartObjective,
    start: np.ndarray,
    seed: int,
    progress: Callable[[float], None],
) -> PartHead:
    """A head that minimises the losses, from labels (P,), 0 to K - 1, of the points; arguments as of `fit_parts`."""
    device = scene.progress.device
    points, normals, pairs, weights = (torch.as_tensor(array, device=device) for array in data.surface)
    features, labels = (torch.as_tensor(array, device=device) for array in (data.features, start))
    generator = torch.Generator(device=device).manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = PartHead(parts, scene.ops, data.object).to(device)
        if data.object is not None:
            head.place.copy_(torch.tensor([*data.cube.centre.tolist(), data.cube.half]))
    basis = torch.nn.Parameter(part_centres(F.one_hot(labels, parts).float(), features))
    optimizer = torch.optim.Adam([*head.parameters(), basis], lr=RATE)
    with torch.enable_grad():
        for step in range(START_STEPS + STEPS):
            # A little off the surface as well: rays have their samples there.
            offset = torch.rand(len(points), 1, generator=generator, device=device) * 2 - 1
            logits = head.field(points + scene.cache.cell / data.cube.half * offset * normals)
            if step < START_STEPS:
                loss = F.cross_entropy(logits, labels)
            else:
                losses = part_losses(objective, logits.softmax(-1), points, features, basis, pairs, weights)
                loss = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                basis.clamp_(min=0.0)
            progress((step + 1) / (START_STEPS + STEPS))
    _switch_off_specks(head, data)
    return head


def _labels(head: PartHead, data: PartFeatures) -> np.ndarray:
    """(P,) int64, 0 to K - 1, of the points."""
    return head.identities_in_cube(torch.as_tensor(data.surface.points)).cpu().numpy() - 1


@torch.no_grad()
def _switch_off_specks(head: PartHead, data: PartFeatures) -> None:
    """Switch off the channels of parts below `SPECK`: their points go to the part with the next highest logit."""
    specks = torch.as_tensor(part_areas(head, data) < SPECK, device=head.field.out.weight.device)
    head.field.out.weight[specks] = 0.0
    head.field.out.bias[specks] = NEVER


@torch.no_grad()
def _number(head: PartHead, data: PartFeatures, earlier: PartHead | None) -> None:
    """Put the head's channels into the order of the numbers."""
    labels = _labels(head, data)
    if earlier is None:
        order = order_by_area(labels, head.parts)
    else:
        order = order_by_overlap(labels, head.parts, _labels(earlier, data))
    for parameter in (head.field.out.weight, head.field.out.bias):
        parameter.copy_(parameter[torch.as_tensor(order)])


def part_areas(head: PartHead, data: PartFeatures) -> np.ndarray:
    """(K,) share of the surface of each part."""
    return areas(_labels(head, data), head.parts)
