"""A small model, started from an analytic ball's hull."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.rendering import Rendering
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.sampling.field_cache import grid_centres

GRID = GridLayout(levels=4, features=2, log2_entries=12, base_resolution=8, max_resolution=48)
TINY = SceneConfig(
    foreground_grid=GRID,
    background_grid=GRID,
    label_grid=GridLayout(levels=3, features=2, log2_entries=12, base_resolution=4, max_resolution=16),
    hidden=32,
    samples=24,
    candidates=(8, 32, 8),
    cache_resolution=32,
    probability_resolution=32,
)
PAPER = replace(TINY, split="predicted", background="sdf")
DIRECTIONAL = replace(TINY, background="directional")
BALL = 0.5


def start(config: SceneConfig, steps: int = 300, objects: Sequence[str] = ()) -> SurfaceSOS:
    """A scene model started from the exact hull of a ball of radius 0.5 at the centre of the object frame.

    Several objects share it: cut into equal slices along x (see `slice_of`), the first at the lowest x.
    """
    torch.manual_seed(0)
    scene = SurfaceSOS(config, views=3, objects=objects)
    n = 48
    centres = grid_centres(n, 1.0)
    distance = (centres.norm(dim=-1) - BALL).reshape(n, n, n)
    identity = slice_of(centres, len(objects)).reshape(n, n, n).to(torch.uint8) if objects else None
    scene.initialise(
        ObjectFrame(torch.tensor([1.0, 2.0, 3.0]), 2.0),
        1.0,
        (distance < 0).float(),
        distance,
        steps=steps,
        identity=identity,
    )
    scene.zero_grad()
    return scene


def slice_of(points: Tensor, count: int) -> Tensor:
    """(P,) int64 in 1 to `count`: the slice of the ball in which points (P, 2 or 3) of the object frame are."""
    return ((points[:, 0] + BALL) / (2 * BALL) * count).floor().long().clamp(0, count - 1) + 1


def rays_at(points: Tensor, distance: float = 3.0) -> tuple[Tensor, Tensor]:
    """Rays along -z, through points (R, 2) of the plane z = 0."""
    origins = torch.cat([points, torch.full_like(points[:, :1], distance)], -1)
    return origins, torch.tensor([0.0, 0.0, -1.0]).expand(len(points), 3)


def tensors(rendering: Rendering) -> Iterator[tuple[str, Tensor]]:
    """What rays see, by name."""
    for name, value in rendering._asdict().items():
        if isinstance(value, Tensor):
            yield name, value
        elif name == "head_values":
            yield from value.items()


def a_batch(count: int = 64) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor, Tensor]:
    """Rays that see the ball or pass it, noise for their colours, the true mask, and weights of one."""
    generator = torch.Generator().manual_seed(4)
    points = torch.rand(count, 2, generator=generator) * 2 - 1
    mask = (points.norm(dim=-1) < BALL).float()
    return rays_at(points), torch.rand(count, 3, generator=generator), mask, torch.ones(count)
