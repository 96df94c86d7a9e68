"""Opacities, two-layer blending and sums along rays, by hand, by definition and by finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from surface_sos_ns.rendering.blend import (
    accumulate,
    blend_weights,
    layer_weights,
    ray_distortion,
    transmittance,
)
from surface_sos_ns.rendering.colour_space import to_display, to_light
from surface_sos_ns.rendering.neus import density_opacity, neus_opacity


def opacity(sdf: float, cosine: float, interval: float, sharpness: float, anneal: float = 1.0) -> float:
    one = torch.ones((), dtype=torch.float64)
    return float(neus_opacity(sdf * one, cosine * one, interval * one, sharpness, anneal))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# ------------------------------------------------------------------ eq. 6


def test_opacity_by_hand():
    # f = 0, cos = -1, dt = 0.1, b = 20: Phi(1) = 0.73106, Phi(-1) = 0.26894, (0.73106 - 0.26894) / 0.73106
    assert opacity(0.0, -1.0, 0.1, 20.0) == pytest.approx(0.6321206, abs=1e-6)
    # f = 0.1, cos = -0.5, dt = 0.2, b = 10: sections at f = 0.15 and 0.05
    assert opacity(0.1, -0.5, 0.2, 10.0) == pytest.approx((sigmoid(1.5) - sigmoid(0.5)) / sigmoid(1.5), abs=1e-9)


def test_opacity_is_positive_on_entry_and_zero_on_exit():
    """Eq. 6 as printed has it the other way round."""
    assert opacity(0.0, -1.0, 0.1, 50.0) > 0.9
    assert opacity(0.0, 1.0, 0.1, 50.0) == 0.0
    assert opacity(0.0, 0.0, 0.1, 50.0) == 0.0


def test_limits_of_opacity():
    assert opacity(0.5, -1.0, 0.1, 500.0) == pytest.approx(0.0, abs=1e-12)  # far outside
    assert opacity(0.0, -1.0, 0.1, 5000.0) == pytest.approx(1.0, abs=1e-6)  # a hard surface crossed
    assert opacity(0.0, -1.0, 1e-9, 50.0) == pytest.approx(0.0, abs=1e-6)  # no length
    for sdf, interval in [(-50.0, 0.1), (-1e6, 1e3), (1e6, 1e3), (0.0, 1e6)]:  # nothing overflows
        assert 0.0 <= opacity(sdf, -1.0, interval, 5000.0) <= 1.0


@pytest.mark.parametrize(("cosine", "used"), [(-1.0, -1.0), (0.0, -0.5), (1.0, 0.0)])
def test_the_annealed_cosine_starts_half_entering(cosine, used):
    assert opacity(0.02, cosine, 0.1, 20.0, anneal=0.0) == pytest.approx(opacity(0.02, used, 0.1, 20.0), abs=1e-12)


def test_sections_telescope_along_a_linear_distance():
    """`prod (1 - a_i) = Phi(f_end) / Phi(f_start)`, whatever the sections: the reason for the form of eq. 6."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.rand(1, 40, generator=generator, dtype=torch.float64).sort(-1).values * 2
    middle, length = 0.5 * (edges[:, 1:] + edges[:, :-1]), edges.diff(dim=-1)
    cosine, b = -0.7, 9.0
    a = neus_opacity(1.0 + cosine * middle, torch.full_like(middle, cosine), length, b)
    start, end = (1.0 + cosine * float(edges[0, i]) for i in (0, -1))
    assert float((1 - a).prod()) == pytest.approx(sigmoid(b * end) / sigmoid(b * start), rel=1e-9)


@pytest.mark.parametrize("samples", [8, 64, 512])
def test_a_ray_through_a_plane_is_stopped_there(samples):
    """The plane z = 0.3 seen at 60 degrees from z = 2: distance 1.7 / cos 60."""
    cosine = -0.5
    t = torch.linspace(2.0, 5.0, samples + 1, dtype=torch.float64)[None]
    middle, length = 0.5 * (t[:, 1:] + t[:, :-1]), t.diff(dim=-1)
    sdf = (2.0 + cosine * middle) - 0.3
    weights = layer_weights(neus_opacity(sdf, torch.full_like(sdf, cosine), length, 400.0))
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-6)
    assert float((weights * middle).sum()) == pytest.approx(3.4, abs=3.0 / samples)


def test_neus_opacity_gradients():
    generator = torch.Generator().manual_seed(1)
    sdf = (torch.rand(12, generator=generator, dtype=torch.float64) * 0.2 - 0.05).requires_grad_()
    cosine = (-torch.rand(12, generator=generator, dtype=torch.float64) * 0.9 - 0.05).requires_grad_()
    interval = torch.rand(12, generator=generator, dtype=torch.float64) * 0.1 + 0.01
    b = torch.tensor(15.0, dtype=torch.float64, requires_grad=True)
    for anneal in (0.0, 0.4, 1.0):
        assert torch.autograd.gradcheck(lambda f, c, s, a=anneal: neus_opacity(f, c, interval, s, a), (sdf, cosine, b))


def test_density_opacity_by_hand():
    density, interval = torch.tensor([0.0, math.log(2.0), 5.0]), torch.tensor([1.0, 1.0, 0.0])
    assert density_opacity(density, interval).tolist() == pytest.approx([0.0, 0.5, 0.0], abs=1e-6)
    # halves of an interval let through what the whole does
    whole = 1 - density_opacity(torch.tensor(3.0), torch.tensor(0.4))
    half = 1 - density_opacity(torch.tensor(3.0), torch.tensor(0.2))
    assert float(half * half) == pytest.approx(float(whole), rel=1e-6)


# ------------------------------------------------------------------ two layers


def test_transmittance_by_hand():
    assert transmittance(torch.tensor([[0.5, 0.2, 1.0]])).tolist() == [pytest.approx([1.0, 0.5, 0.4, 0.0])]


def test_blending_three_samples_by_hand():
    foreground = torch.tensor([[0.5, 0.0, 1.0]])
    background = torch.tensor([[0.2, 0.5, 1.0]])
    weights = blend_weights(foreground, background)
    # T: 1, (0.5)(0.8) = 0.4, 0.4 (1)(0.5) = 0.2, then 0
    assert weights.foreground.tolist() == [pytest.approx([0.5, 0.0, 0.2])]
    assert weights.background.tolist() == [pytest.approx([0.5 * 0.2, 0.4 * 0.5, 0.0])]
    assert weights.transmittance.tolist() == pytest.approx([0.0])


def test_the_label_gates_both_layers():
    """Eq. 3 and 5: aF = label * foreground, aB = (1 - label) * background."""
    foreground = torch.tensor([[0.8, 0.5, 1.0]])
    background = torch.tensor([[0.4, 0.5, 1.0]])
    label = torch.tensor([[0.5, 0.0, 1.0]])
    weights = blend_weights(foreground, background, label)
    # gated: F 0.4, 0, 1; B 0.2, 0.5, 0; T: 1, 0.6 * 0.8 = 0.48, 0.24
    assert weights.foreground.tolist() == [pytest.approx([0.4, 0.0, 0.24])]
    assert weights.background.tolist() == [pytest.approx([0.6 * 0.2, 0.48 * 0.5, 0.0])]
    assert weights.transmittance.tolist() == pytest.approx([0.0])


def test_a_label_of_one_or_zero_is_one_layer_alone():
    generator = torch.Generator().manual_seed(2)
    foreground, background = torch.rand(2, 5, 9, generator=generator)
    only_f = blend_weights(foreground, background, torch.ones(5, 9))
    assert torch.allclose(only_f.foreground, layer_weights(foreground), atol=1e-6)
    assert not only_f.background.any()
    only_b = blend_weights(foreground, background, torch.zeros(5, 9))
    assert torch.allclose(only_b.background, layer_weights(background), atol=1e-6)
    assert not only_b.foreground.any()


def test_what_is_in_front_hides_what_is_behind():
    wall_in_front = blend_weights(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    assert wall_in_front.foreground.sum() == 0 and wall_in_front.background.sum() == 1
    object_in_front = blend_weights(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert object_in_front.foreground.sum() == 1 and object_in_front.background.sum() == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_light_is_lost(seed):
    generator = torch.Generator().manual_seed(seed)
    foreground, background, label = torch.rand(3, 50, 30, generator=generator, dtype=torch.float64) ** (1 + 3 * seed)
    for gate in (None, label):
        weights = blend_weights(foreground, background, gate)
        total = weights.foreground.sum(-1) + weights.background.sum(-1) + weights.transmittance
        assert torch.allclose(total, torch.ones_like(total), atol=1e-12)
        assert (weights.foreground >= 0).all() and (weights.background >= 0).all()


def test_blending_gradients():
    generator = torch.Generator().manual_seed(3)
    parts = torch.rand(3, 2, 4, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    foreground, background, label = (p.clone().requires_grad_() for p in parts)
    assert torch.autograd.gradcheck(lambda f, b, a: tuple(blend_weights(f, b, a)), (foreground, background, label))
    assert torch.autograd.gradcheck(layer_weights, (foreground,))


def test_gradients_are_finite_behind_an_opaque_sample():
    foreground = torch.tensor([[1.0, 0.5, 1.0]], requires_grad=True)
    blend_weights(foreground, torch.zeros(1, 3)).foreground.sum().backward()
    assert foreground.grad is not None and foreground.grad.isfinite().all()


# ------------------------------------------------------------------ sums along rays


def test_light_is_that_of_srgb_and_comes_back():
    values = torch.linspace(0, 1, 101, dtype=torch.float64)
    light = to_light(values)
    assert (float(light[0]), float(light[-1])) == (0.0, 1.0) and bool((light.diff() > 0).all())
    srgb = torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    assert float((light - srgb).abs().max()) < 0.07  # values themselves are 0.29 from it
    torch.testing.assert_close(to_display(light), values)
    dark = torch.tensor([-0.5, 0.0, 1e-6], requires_grad=True)
    to_display(dark).sum().backward()
    assert bool(torch.isfinite(dark.grad).all()) and float(to_display(dark)[0].detach()) == 0.0


def test_accumulate_by_hand():
    weights = torch.tensor([[0.25, 0.5]])
    colours = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]]])
    assert accumulate(weights, colours).tolist() == [[0.25, 0.5, 0.25]]


def test_distortion_equals_its_definition():
    generator = torch.Generator().manual_seed(4)
    weights = torch.rand(6, 20, generator=generator, dtype=torch.float64)
    weights = weights / weights.sum(-1, keepdim=True) * 0.8
    edges = torch.rand(6, 21, generator=generator, dtype=torch.float64).sort(-1).values
    middle, length = 0.5 * (edges[:, 1:] + edges[:, :-1]), edges.diff(dim=-1)
    pairs = (middle[:, :, None] - middle[:, None, :]).abs() * weights[:, :, None] * weights[:, None, :]
    expected = pairs.sum((1, 2)) + (weights.square() * length).sum(-1) / 3
    assert torch.allclose(ray_distortion(weights, edges), expected, atol=1e-12)
    assert torch.autograd.gradcheck(ray_distortion, (weights.requires_grad_(), edges))


def test_a_thin_surface_has_no_distortion_and_fog_has_some():
    edges = torch.linspace(0, 1, 101)[None]
    surface = torch.zeros(1, 100)
    surface[0, 40] = 1.0
    fog = torch.full((1, 100), 0.01)
    assert float(ray_distortion(surface, edges)) == pytest.approx(0.01 / 3, rel=1e-3)
    assert float(ray_distortion(fog, edges)) == pytest.approx(1 / 3, abs=1e-3)  # E |x - y| of the unit interval
