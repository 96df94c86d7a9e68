"""What the fields are fitted to before training, against a wall whose place is known."""

from __future__ import annotations

import math

import pytest
import torch

from surface_sos_ns.fields.density import DensityField
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.models.surface_sos.initialisation import SightLines, fit_density_to_points, fit_distance_to_points
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.sampling.contraction import contract, contracted_cell

GRID = GridLayout(levels=5, features=2, log2_entries=14, base_resolution=8, max_resolution=64)
REACH, RESOLUTION = 3.0, 48


def wall_seen_from_two_places() -> SightLines:
    """A wall at z = -4, with one part that only the first camera sees."""
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([torch.rand(1500, 2, generator=generator) * 6 - 3, torch.full((1500, 1), -4.0)], 1)
    cameras = torch.tensor([[0.0, 0.0, 3.0], [2.0, 0.0, 3.0]])
    seen = torch.stack([torch.ones(1500, dtype=torch.bool), points[:, 0] > 0], 1)
    return SightLines(points, cameras, seen)


@pytest.mark.seconds(3)
def test_a_density_is_where_the_points_are_and_not_in_front_of_them() -> None:
    torch.manual_seed(0)
    baco = DensityField(GRID, 3, 2.0, -3.5, 16)
    fit_density_to_points(baco, wall_seen_from_two_places(), REACH, RESOLUTION, 200)
    between = torch.tensor([[-1.5, 0.7, -4.0], [0.4, -1.1, -4.0], [2.2, 1.9, -4.0]])  # not among the points
    eye = torch.tensor([0.0, 0.0, 3.0])
    with torch.no_grad():
        on_wall = baco(contract(between / REACH))[0]
        half_way = baco(contract((0.5 * between + 0.5 * eye) / REACH))[0]
        elsewhere = baco(contract(torch.tensor([[0.0, 9.0, 6.0], [8.0, 0.0, 8.0]]) / REACH))[0]
    wanted = 2.0 / contracted_cell(contract(between / REACH), REACH, RESOLUTION)
    assert ((on_wall / wanted).log().abs() < math.log(3)).all()
    assert (half_way < 0.05 * on_wall).all() and (half_way < 0.02).all()
    assert ((elsewhere.log() + 3.5).abs() < 2).all()  # as thin as it starts


@pytest.mark.seconds(6)
def test_a_distance_is_zero_at_the_points_and_positive_in_front_of_them() -> None:
    torch.manual_seed(0)
    baco = SDFField(GRID, 3, 2.0, -1.5, 16)
    fit_distance_to_points(baco, wall_seen_from_two_places(), REACH, RESOLUTION, 300)
    between = torch.tensor([[-1.5, 0.7, -4.0], [0.4, -1.1, -4.0], [2.2, 1.9, -4.0]])
    eye = torch.tensor([0.0, 0.0, 3.0])
    with torch.no_grad():
        on_wall = baco(contract(between / REACH), normals=False).sdf
        half_way = baco(contract((0.5 * between + 0.5 * eye) / REACH), normals=False).sdf
    assert (on_wall.abs() < 0.08).all()
    assert (half_way > 0.2).all()


def test_without_points_nothing_changes() -> None:
    baco = DensityField(GRID, 3, 2.0, -3.5, 16)
    before = [parameter.clone() for parameter in baco.parameters()]
    fit_density_to_points(baco, SightLines(torch.zeros(0, 3), torch.zeros(1, 3), None), REACH, RESOLUTION, 5)
    assert all(torch.equal(a, b) for a, b in zip(before, baco.parameters(), strict=True))


def test_points_without_viewers_still_make_a_surface() -> None:
    torch.manual_seed(0)
    baco = DensityField(GRID, 3, 2.0, -3.5, 16)
    fit_density_to_points(baco, wall_seen_from_two_places()._replace(seen=None), REACH, RESOLUTION, 100)
    with torch.no_grad():
        assert float(baco(contract(torch.tensor([[0.4, -1.1, -4.0]]) / REACH))[0]) > 3


def test_a_cells_length_is_that_of_its_ends() -> None:
    at = torch.tensor([[0.0, 0.0, 0.5], [0.0, 1.6, 0.0]])
    half = 2.0 / RESOLUTION / 1000

    def uncontracted(norm: float) -> float:
        return REACH * (norm if norm < 1 else 1 / (2 - norm))

    for point, length in zip(at, contracted_cell(at, REACH, RESOLUTION).tolist(), strict=True):
        norm = float(point.norm())
        assert 1000 * (uncontracted(norm + half) - uncontracted(norm - half)) == pytest.approx(length, rel=1e-3)
