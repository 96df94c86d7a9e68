"""The object as a mesh, from fields that are known exactly."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.mesh import MeshError, object_mesh, surface_mesh
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.sampling.field_cache import grid_centres

GRID = GridLayout(levels=2, features=2, log2_entries=8, base_resolution=4, max_resolution=8)
CONFIG = SceneConfig(
    foreground_grid=GRID, background_grid=GRID, label_grid=GRID, cache_resolution=8, probability_resolution=8
)
CENTRE, RADIUS = np.array([1.0, 2.0, 3.0]), 2.0
BALL = 0.5


def ball(points: Tensor) -> Tensor:
    return points.norm(dim=-1) - BALL


def scene(monkeypatch: pytest.MonkeyPatch, split: str = "votes") -> SurfaceSOS:
    """A ball of radius 0.5 in the object frame; its label is object below the plane z = 0.1, by a steep curve."""
    found = SurfaceSOS(SceneConfig(**{**vars(CONFIG), "split": split}), views=1)
    found.frame.take(ObjectFrame(CENTRE, RADIUS))
    found.object_grid.hull.fill_(1.0)

    def surface(points: Tensor, normals: bool = True) -> SimpleNamespace:
        normal = nn.functional.normalize(points, dim=-1) if normals else None
        return SimpleNamespace(sdf=ball(points), normal=normal, geometry=points.new_zeros(len(points), 12))

    monkeypatch.setattr(found.foreground.field, "forward", surface)
    monkeypatch.setattr(found.label, "forward", lambda points: 40.0 * (0.1 - points[:, 2]))
    return found


def cap(height: float) -> float:
    """Volume of the part of the ball above a plane at `height`, object frame."""
    h = BALL - height
    return float(np.pi * h**2 * (3 * BALL - h) / 3)


WHOLE = cap(-BALL)


def test_a_label_cuts_the_surface_where_it_changes_its_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = object_mesh(scene(monkeypatch), resolution=80)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume == pytest.approx((WHOLE - cap(0.1)) * RADIUS**3, rel=5e-3)  # positive: normals point outwards
    low, high = (mesh.bounds - CENTRE) / RADIUS
    assert low == pytest.approx([-BALL] * 3, abs=3e-3)
    assert high == pytest.approx([BALL, BALL, 0.1], abs=3e-3)


def test_a_predicted_alpha_cuts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    found = scene(monkeypatch, "predicted")

    def colour(inputs: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        points, normals = inputs[:, :3], inputs[:, 3:6]
        assert torch.allclose(directions, -normals), "seen straight from the outside"
        return points, torch.sigmoid(40.0 * (0.1 - points[:, 2]))

    monkeypatch.setattr(found.foreground.colour, "forward", colour)
    mesh = object_mesh(found, resolution=80)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx((WHOLE - cap(0.1)) * RADIUS**3, rel=5e-3)


def test_nothing_is_object_beyond_the_reach_of_the_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = scene(monkeypatch)
    found.object_grid.hull[:4] = 0.0  # x < 0
    mesh = object_mesh(found, resolution=80)
    assert (mesh.bounds[0, 0] - CENTRE[0]) / RADIUS == pytest.approx(0.0, abs=0.25)  # between two cells of the hull


def test_nothing_floats_and_nothing_is_hidden_inside() -> None:
    n = 64
    points = grid_centres(n, 1.0)
    apart = (points - torch.tensor([0.8, 0.8, 0.8])).norm(dim=-1) - 0.12
    field = torch.minimum(torch.maximum(ball(points), 0.2 - points.norm(dim=-1)), apart)  # a hollow ball, and a speck
    mesh = surface_mesh(field.reshape(n, n, n).numpy(), ObjectFrame())
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(WHOLE, rel=1e-2)
    assert mesh.bounds == pytest.approx(np.array([[-BALL] * 3, [BALL] * 3]), abs=3e-3)


def test_what_leaves_the_cube_is_closed() -> None:
    n = 16
    below = grid_centres(n, 1.0)[:, 2].reshape(n, n, n).numpy()
    mesh = surface_mesh(below, ObjectFrame())
    assert mesh.is_watertight and mesh.volume == pytest.approx(4.0, rel=0.1)


def test_without_a_surface_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = scene(monkeypatch)
    monkeypatch.setattr(found.label, "forward", lambda points: points[:, 2] - 5.0)
    with pytest.raises(MeshError, match="no surface"):
        object_mesh(found, resolution=16)
    found.config = replace(found.config, foreground="density")
    with pytest.raises(MeshError, match="density"):
        object_mesh(found, resolution=16)
