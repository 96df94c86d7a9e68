"""A scene whose surface is known exactly: a ball with a rod on either side, three parts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.ops.layout import GridLayout

GRID = GridLayout(levels=2, features=2, log2_entries=8, base_resolution=4, max_resolution=8)
CENTRE, SCALE = np.array([1.0, 2.0, 3.0]), 2.0
BALL, ROD, REACH = 0.4, 0.07, 0.85
"""Radius of the ball and of the rods, and how far their ends are from the middle; object frame."""


def distances(points: Tensor) -> Tensor:
    """Signed distances (P, 3) to the ball, the rod along +x and the rod along -x."""
    found = [points.norm(dim=-1) - BALL]
    for side in (1.0, -1.0):
        along = (points[:, 0] * side).clamp(0.0, REACH)
        nearest = torch.stack([along * side, torch.zeros_like(along), torch.zeros_like(along)], -1)
        found.append((points - nearest).norm(dim=-1) - ROD)
    return torch.stack(found, -1)


def true_parts(points: Tensor) -> np.ndarray:
    """(P,) 1 for the ball, 2 and 3 for the rods, of surface points (P, 3)."""
    return (distances(points).abs().argmin(-1) + 1).numpy()


def ball_with_handles(monkeypatch: pytest.MonkeyPatch) -> SurfaceSOS:
    """The scene; all of it is labelled object."""
    config = SceneConfig(
        foreground_grid=GRID, background_grid=GRID, label_grid=GRID, cache_resolution=32, probability_resolution=8
    )
    scene = SurfaceSOS(config, views=1)
    scene.frame.take(ObjectFrame(torch.tensor(CENTRE), SCALE))
    scene.object_grid.hull.fill_(1.0)

    def surface(points: Tensor, normals: bool = True) -> SimpleNamespace:
        sdf = distances(points).amin(-1)
        normal = nn.functional.normalize(points, dim=-1) if normals else None
        return SimpleNamespace(sdf=sdf, normal=normal, geometry=points.new_zeros(len(points), 12))

    monkeypatch.setattr(scene.foreground.field, "forward", surface)
    monkeypatch.setattr(scene.label, "forward", lambda points: torch.full_like(points[:, 0], 10.0))
    return scene
