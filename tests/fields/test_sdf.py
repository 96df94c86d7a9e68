"""The SDF network: its sphere, its normals, and gradients that train through the normals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from surface_sos_ns.fields.sdf import SDFField, sphere_directions
from surface_sos_ns.ops.layout import GridLayout

SMALL = GridLayout(levels=3, features=2, log2_entries=8, base_resolution=4, max_resolution=12)


def points_in_cube(count: int, extent: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, 3, generator=generator, dtype=dtype) * 2 - 1) * extent


def trained_field(extent: float = 1.0) -> SDFField:
    """A field whose hash features matter, as after training."""
    torch.manual_seed(1)
    field = SDFField(SMALL, 4, extent=extent, hidden=16).double()
    with torch.no_grad():
        field.grid.table.normal_(0.0, 0.2)
        field.out.weight.add_(torch.randn_like(field.out.weight) * 0.05)
    return field


def test_directions_are_unit_and_even():
    directions = sphere_directions(64)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(64))
    assert directions.mean(0).abs().max() < 0.02
    second_moment = directions.T @ directions / 64
    assert torch.allclose(second_moment, torch.eye(3) / 3, atol=0.02)


@pytest.mark.parametrize("extent", [1.0, 2.0])
@pytest.mark.parametrize("radius", [0.5, 0.9])
def test_it_starts_as_a_sphere(radius, extent):
    torch.manual_seed(0)
    field = SDFField(GridLayout(levels=8, log2_entries=12, max_resolution=128), 12, extent=extent, radius=radius)
    points = points_in_cube(2000, extent)
    sample = field(points)
    distance = points.norm(dim=-1)
    assert sample.normal is not None and sample.geometry.shape == (2000, 12)
    # 64 directions read |p| to 3 %; the softplus (beta 100) adds up to 4 log(2) / 100 near the centre
    assert ((sample.sdf - (distance - radius)).abs() < 0.03 * distance + 0.028).all()
    away = distance > 0.2
    outward = torch.nn.functional.normalize(points[away], dim=-1)
    assert (sample.normal[away] - outward).norm(dim=-1).max() < 0.25
    assert sample.normal[away].norm(dim=-1).mean().item() == pytest.approx(1.0, abs=0.02)


def test_a_negative_radius_is_a_room_seen_from_within():
    field = SDFField(SMALL, 7, extent=2.0, radius=-1.5)
    points = points_in_cube(1000, 2.0)
    sample = field(points)
    assert sample.normal is not None
    distance = points.norm(dim=-1)
    assert ((sample.sdf - (1.5 - distance)).abs() < 0.03 * distance + 0.03).all()
    away = distance > 0.3
    assert ((sample.normal[away] * points[away]).sum(-1) < 0).all()


@pytest.mark.parametrize("extent", [1.0, 2.0])
def test_the_normal_is_the_slope_of_the_distance(extent):
    field = trained_field(extent=extent)
    points = points_in_cube(200, 0.95 * extent, torch.float64)
    normal = field(points).normal
    assert normal is not None
    step = 1e-7
    slopes = []
    for axis in range(3):
        offset = torch.zeros(3, dtype=torch.float64)
        offset[axis] = step
        after, before = (field(points + s * offset, normals=False).sdf for s in (1, -1))
        slopes.append((after - before) / (2 * step))
    assert torch.allclose(normal, torch.stack(slopes, -1), atol=1e-5)
    assert (normal - torch.nn.functional.normalize(points, dim=-1)).abs().max() > 0.05  # the grid takes part


def eikonal_gradients(field: SDFField, points: Tensor, by_autograd: bool) -> dict[str, Tensor]:
    """Gradients of an eikonal loss plus a loss on the value."""
    if by_autograd:
        at = points.clone().requires_grad_()
        sdf = field(at, normals=False).sdf
        (normal,) = torch.autograd.grad(sdf.sum(), at, create_graph=True)
    else:
        sdf, normal, _ = field(points)
    loss = (normal.norm(dim=-1) - 1).square().mean() + 0.3 * sdf.square().mean()
    field.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in field.named_parameters() if p.grad is not None}


def test_training_through_normals_equals_autograds_double_backward():
    field, points = trained_field(), points_in_cube(64, 0.9, torch.float64)
    direct, double = (eikonal_gradients(field, points, by_autograd) for by_autograd in (False, True))
    assert set(direct) == set(double) >= {"grid.table", "hidden.weight", "hidden.bias", "out.weight"}
    for name in direct:
        assert torch.allclose(direct[name], double[name], atol=1e-9, rtol=1e-7), name
    assert direct["grid.table"].abs().max() > 1e-4


def test_without_normals_there_are_none_and_the_distance_is_the_same():
    field, points = trained_field(), points_in_cube(30, dtype=torch.float64)
    assert field(points, normals=False).normal is None
    assert torch.equal(field(points, normals=False).sdf, field(points).sdf)
