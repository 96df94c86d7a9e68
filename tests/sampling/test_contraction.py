"""Contraction of unbounded space."""

from __future__ import annotations

import pytest
import torch

from surface_sos_ns.sampling.contraction import contract, contract_direction, expand


def points(count: int, scale: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0), dtype=dtype) * scale


def test_the_object_sphere_stays_as_it_is():
    inside = torch.nn.functional.normalize(points(100, 1.0), dim=-1) * torch.rand(100, 1, dtype=torch.float64)
    assert torch.allclose(contract(inside), inside)


def test_expanding_is_the_way_back():
    anywhere = points(200, 3.0)
    assert torch.allclose(expand(contract(anywhere)), anywhere)
    corner = expand(torch.full((1, 3), 2.0, dtype=torch.float64))
    assert torch.isfinite(corner).all() and float(corner.norm()) == pytest.approx(100.0), "1 / (2 - 1.99)"


@pytest.mark.parametrize(("radius", "contracted"), [(1.0, 1.0), (2.0, 1.5), (4.0, 1.75), (1e6, 2.0)])
def test_radii_by_hand(radius, contracted):
    """2 - 1 / r"""
    direction = torch.nn.functional.normalize(points(10, 1.0), dim=-1)
    image = contract(direction * radius)
    assert torch.allclose(image, direction * contracted, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e8])
def test_everything_lands_within_radius_two_and_keeps_its_direction(scale):
    far = points(1000, scale)
    image = contract(far)
    assert (image.norm(dim=-1) <= 2.0 + 1e-12).all()
    cosine = torch.nn.functional.cosine_similarity(image, far, dim=-1)
    assert torch.allclose(cosine, torch.ones_like(cosine))


def test_gradients_by_finite_differences_on_both_sides_and_at_the_origin():
    assert torch.autograd.gradcheck(contract, points(20, 0.3).requires_grad_())
    assert torch.autograd.gradcheck(contract, (points(20, 5.0)).requires_grad_())
    origin = torch.zeros(1, 3, requires_grad=True)
    contract(origin).sum().backward()
    assert origin.grad is not None and torch.equal(origin.grad, torch.ones(1, 3))


@pytest.mark.parametrize("scale", [0.3, 2.0, 50.0])
def test_directions_are_carried_along_by_finite_differences(scale):
    at, along = points(200, scale), torch.nn.functional.normalize(points(400, 1.0)[200:], dim=-1)
    at = at[(at.norm(dim=-1) - 1.0).abs() > 1e-3]  # the derivative jumps on the unit sphere
    along, step = along[: len(at)], 1e-6 * scale
    slope = (contract(at + step * along) - contract(at - step * along)) / (2 * step)
    assert torch.allclose(contract_direction(at, along), slope, rtol=1e-6, atol=1e-8)


def test_a_direction_outwards_shrinks_more_than_one_across():
    """At radius 4: 1 / r^2 along the radius, (2 - 1 / r) / r across it."""
    at, both = torch.tensor([[4.0, 0.0, 0.0]]), torch.eye(3)[:2]
    carried = contract_direction(at.expand(2, 3), both)
    assert torch.allclose(carried, torch.tensor([[1 / 16, 0.0, 0.0], [0.0, 1.75 / 4, 0.0]]))


def test_shapes_are_kept():
    assert contract(torch.rand(2, 5, 7, 3)).shape == (2, 5, 7, 3)
