"""Compositing along rays, compiled and in plain torch: by hand, by finite differences, and each against the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from surface_sos_ns.ops.cpu import threads
from surface_sos_ns.rendering.composite import (
    MIN_BACKGROUND_OPACITY,
    Listed,
    RayColours,
    RayWeights,
    background_growth_scale,
    composite_colours,
    composite_weights,
    density_section_opacity,
    nothing,
    scale_gradient,
    scale_growth,
    section_opacity,
    seen_samples,
)

both = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])


class Problem(NamedTuple):
    """Everything that goes into a rendering of random rays; leaves have gradients."""

    sdf: Tensor
    normal: Tensor
    sharpness: Tensor
    density: Tensor
    gate: Tensor
    vote: Tensor
    rgb_f: Tensor
    rgb_b: Tensor
    near: Tensor
    background: Tensor
    inside: Tensor
    directions: Tensor
    edges: Tensor
    to_object: Tensor
    crop: Tensor
    crops: Tensor

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return self[:8]


def problem(rays: int = 40, samples: int = 9, seed: int = 0, kind: torch.dtype = torch.float32) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64).to(kind)

    def pick(share: float) -> Tensor:
        return (torch.rand(rays * samples, generator=generator) < share).nonzero()[:, 0]

    near, background, inside = pick(0.4), pick(0.8), pick(0.4)
    leaves = (
        uniform(len(near)) * 0.2 - 0.06,
        uniform(len(near), 3) * 2 - 1,
        torch.tensor(30.0, dtype=kind),
        uniform(len(background)) * 0.8,
        uniform(len(inside)),
        uniform(len(inside)),
        uniform(len(near), 3),
        uniform(len(background), 3),
    )
    return Problem(
        *(leaf.requires_grad_() for leaf in leaves),
        near,
        background,
        inside,
        torch.nn.functional.normalize(uniform(rays, 3) - 0.5, dim=-1),
        1.0 + uniform(rays, samples + 1).sort(-1).values * 4,
        1.5 + uniform(rays) * 2,
        uniform(rays),
        uniform(rays * samples),
    )


def pipeline(p: Problem, compiled: bool) -> tuple[RayWeights, RayColours]:
    """All of the steps, as a renderer calls them."""
    interval = p.edges.diff(dim=-1)
    opacity, unit = section_opacity(
        p.sdf, p.normal, p.directions, interval, p.sharpness, 0.4, p.near, compiled=compiled
    )
    opacity_b = density_section_opacity(p.density, p.crops, interval, p.background, compiled=compiled)
    weights = composite_weights(
        Listed(opacity, p.near), Listed(opacity_b, p.background), Listed(p.gate, p.inside), p.vote,
        p.edges, p.to_object, p.crop, compiled=compiled,
    )  # fmt: skip
    colours = composite_colours(
        weights, Listed(p.rgb_f, p.near), Listed(p.rgb_b, p.background), Listed(unit, p.near), compiled=compiled
    )
    return weights, colours


def gradients(p: Problem, compiled: bool, seed: int = 1) -> list[Tensor]:
    """Of a random sum of everything that has a gradient, by everything that it depends on."""
    generator = torch.Generator().manual_seed(seed)
    outputs = [x for results in pipeline(p, compiled) for x in results if x.requires_grad]
    loss = sum((x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)).sum() for x in outputs)
    return list(torch.autograd.grad(loss, p.leaves))


def assert_like(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Equal to a tolerance relative to the largest number there is."""
    assert found.shape == expected.shape, what
    if expected.numel():
        largest = max(1e-3, float(expected.detach().abs().max()))
        assert float((found - expected).detach().abs().max()) <= tolerance * largest, what


# ------------------------------------------------------------------ opacity of a section


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@both
def test_opacity_by_hand(compiled):
    """A ray along z with normals that lean 60 degrees: cosine -0.5; sections of 0.2 at f = 0.1 and 0.4 at f = 0."""
    sdf, normal = torch.tensor([0.1, 0.0]), torch.tensor([[0.0, 0.0, -0.5], [3.0, 0.0, -4.0]])
    along_z = torch.tensor([[0.0, 0.0, 1.0]])
    b = torch.tensor(10.0)
    opacity, unit = section_opacity(
        sdf, normal, along_z.expand(2, 3), torch.tensor([0.2, 0.4]), b, 1.0, compiled=compiled
    )
    expected = [1 - sigmoid(0.5) / sigmoid(1.5), 1 - sigmoid(-8.0) / sigmoid(8.0)]
    assert opacity.tolist() == pytest.approx(expected, abs=1e-6)
    assert unit.flatten().tolist() == pytest.approx([0.0, 0.0, -1.0, 0.6, 0.0, -0.8], abs=1e-6)
    # the same, listed: the second of two rays, whose other samples are not asked for
    listed, _ = section_opacity(
        sdf,
        normal,
        torch.cat([-along_z, along_z]),
        torch.tensor([[9.0, 9.0, 9.0], [9.0, 0.2, 0.4]]),
        b,
        1.0,
        torch.tensor([4, 5]),
        compiled=compiled,
    )
    assert torch.equal(listed, opacity)


@both
def test_opacity_far_in_and_far_out(compiled):
    """Neither ratio nor gradient is lost where both sigmoids vanish, and nothing overflows."""
    sdf = torch.tensor([-50.0, -1e6, 1e6, 0.5, 0.0, 0.0], requires_grad=True)
    interval = torch.tensor([0.1, 1e3, 1e3, 0.1, 0.0, 1e6])
    normal = torch.tensor([0.0, 0.0, -1.0]).repeat(6, 1).requires_grad_()
    b = torch.tensor(5000.0, requires_grad=True)
    opacity, _ = section_opacity(
        sdf, normal, torch.tensor([0.0, 0.0, 1.0]).repeat(6, 1), interval, b, 1.0, compiled=compiled
    )
    assert opacity.tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0, 0.0, 1.0], abs=1e-6)
    opacity.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (sdf, normal, b))


@pytest.mark.parametrize("anneal", [0.0, 0.3, 1.0])
def test_gradients_of_the_surfaces_opacity(anneal):
    p = problem(8, 4, seed=3, kind=torch.float64)
    interval = p.edges.diff(dim=-1) * 0.1

    def run(sdf: Tensor, normal: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
        return section_opacity(sdf, normal, p.directions, interval, sharpness, anneal, p.near, compiled=True)

    # the compiled exponential is a polynomial: good to 2e-7, which differences over 2e-3 hardly see
    assert torch.autograd.gradcheck(run, p.leaves[:3], eps=1e-3, atol=2e-3, rtol=2e-3)


def test_gradients_of_the_densitys_opacity():
    p = problem(8, 4, seed=3, kind=torch.float64)
    interval = p.edges.diff(dim=-1)

    def run(density: Tensor) -> Tensor:
        return density_section_opacity(density, p.crops, interval, p.background, compiled=True)

    assert torch.autograd.gradcheck(run, (p.density,), eps=1e-3, atol=1e-4, rtol=1e-3)


@both
def test_density_by_hand(compiled):
    density, crop = torch.tensor([math.log(2.0), math.log(2.0), 7.0]), torch.tensor([0.0, 0.5, 1.0])
    opacity = density_section_opacity(density, crop, torch.tensor([1.0, 4.0, 5.0]), compiled=compiled)
    assert opacity.tolist() == pytest.approx([0.5, 0.75, 0.0], abs=1e-6)
    assert torch.equal(opacity[2], torch.zeros(()))


@both
def test_a_normal_of_no_length(compiled):
    normal = torch.zeros(1, 3, requires_grad=True)
    opacity, unit = section_opacity(
        torch.zeros(1), normal, torch.ones(1, 3), torch.ones(1), torch.ones(()), 1.0, compiled=compiled
    )
    assert not unit.any() and not opacity.any()
    (opacity.sum() + 0.0 * unit.sum()).backward()
    assert normal.grad is not None and not normal.grad.any()


# ------------------------------------------------------------------ weights


def two_samples(compiled: bool, kind: torch.dtype = torch.float32) -> RayWeights:
    index = torch.tensor([0, 1])

    def of(*values: float) -> Tensor:
        return torch.tensor(values, dtype=kind)

    return composite_weights(
        Listed(of(0.5, 1.0), index), Listed(of(0.2, 0.5), index), Listed(of(0.5, 1.0), index), of(0.3, 0.6),
        of(1.0, 2.0, 4.0)[None], of(2.0), of(0.25), compiled=compiled,
    )  # fmt: skip


@both
def test_weights_of_two_samples_by_hand(compiled):
    w = two_samples(compiled)
    # gated: aF 0.25, 1; aB 0.1, 0; light behind the first 0.75 x 0.9
    assert w.foreground.tolist() == [pytest.approx([0.25, 0.675])]
    assert w.background.tolist() == [pytest.approx([0.075, 0.0])]
    assert w.background_only.tolist() == [pytest.approx([0.2, 0.8 * 0.5])]
    assert w.alpha.tolist() == pytest.approx([0.925])
    assert w.accumulation.tolist() == pytest.approx([1.0])
    assert w.depth.tolist() == pytest.approx([0.325 * 1.5 + 0.675 * 3.0])
    assert w.vote.tolist() == pytest.approx([0.325 * 0.3 + 0.675 * 0.6])
    # (1.5 / 2)^2 and more than 1, on a ray that is free for three quarters
    assert w.growth_scale.tolist() == [pytest.approx([0.5625 * 0.75, 0.75])]
    # edges at 1/3, 1/2, 2/3: middles 1/6 apart, both 1/6 long
    assert w.distortion.tolist() == pytest.approx([2 * 0.2 * 0.4 / 6 + (0.2**2 + 0.4**2) / 6 / 3])


@both
def test_rays_without_any_sample(compiled):
    """The second of three rays has some; the others see nothing and have no gradient to give."""
    edges = torch.tensor([1.0, 2.0, 4.0]).repeat(3, 1)
    opacity = torch.tensor([0.5], requires_grad=True)
    none = nothing(edges)
    w = composite_weights(
        none, Listed(opacity, torch.tensor([2])), none, none.values, edges, torch.ones(3) * 2, torch.zeros(3),
        compiled=compiled,
    )  # fmt: skip
    c = composite_colours(
        w, nothing(edges, 3), Listed(torch.ones(1, 3), torch.tensor([2])), nothing(edges, 3), compiled=compiled
    )
    assert w.accumulation.tolist() == [0.0, 0.5, 0.0]
    assert w.depth.tolist() == pytest.approx([3.0, 0.5 * 1.5 + 0.5 * 3.0, 3.0])
    assert c.background.tolist() == [[0.0] * 3, [1.0] * 3, [0.0] * 3]
    assert c.rgb.tolist() == [[0.0] * 3, [0.5] * 3, [0.0] * 3]
    (w.accumulation.sum() + c.rgb.sum()).backward()
    assert opacity.grad is not None and opacity.grad.tolist() == pytest.approx([4.0])


@pytest.mark.parametrize(("rays", "samples"), [(0, 5), (7, 1), (1, 3), (130, 24)])
def test_any_number_of_rays_and_samples(rays, samples):
    p = problem(rays, samples, seed=5, kind=torch.float64)
    for expected, found in zip(pipeline(p, False), pipeline(p, True), strict=True):
        for name, one, two in zip(expected._fields, expected, found, strict=True):
            assert_like(two, one, 1e-6, name)
    for name, one, two in zip(p._fields, gradients(p, False), gradients(p, True), strict=False):
        assert_like(two, one, 1e-5, name)


def weights_of(p: Problem) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """A function of the opacities, gate and vote of a problem without distrust, whose gradient is the true one."""
    generator = torch.Generator().manual_seed(6)

    def run(opacity_f: Tensor, opacity_b: Tensor, gate: Tensor, vote: Tensor) -> tuple[Tensor, ...]:
        w = composite_weights(
            Listed(opacity_f, p.near), Listed(opacity_b, p.background), Listed(gate, p.inside), vote,
            p.edges, torch.ones_like(p.to_object), torch.zeros_like(p.crop), compiled=True,
        )  # fmt: skip
        assert (w.growth_scale == 1).all()
        return (*w[:3], *w[4:7], w.distortion)

    values = [
        torch.rand(len(x), generator=generator, dtype=torch.float64).requires_grad_()
        for x in (p.near, p.background, p.inside, p.inside)
    ]
    return run, values


def test_gradients_of_weights_by_differences():
    run, values = weights_of(problem(6, 5, seed=7, kind=torch.float64))
    assert torch.autograd.gradcheck(lambda *x: run(*x, values[3].detach()), values[:3])


def test_gradients_where_opacity_is_exactly_one_or_zero():
    """No light passes, and yet what a little less opacity would let through counts."""
    run, values = weights_of(problem(12, 6, seed=8, kind=torch.float64))
    with torch.no_grad():
        for x in values:
            x.copy_((x * 3).floor() / 2)  # a third each of 0, 0.5 and 1
    assert all((x == 0).any() and (x == 1).any() for x in values)
    assert torch.autograd.gradcheck(lambda *x: run(*x, values[3].detach()), values[:3])


@pytest.mark.parametrize("predicted", [False, True])
def test_gradients_with_the_label_in_both_roles(predicted):
    """Votes alone teach a gate that is cut off; a predicted alpha is gate and vote in one, and learns from both."""
    p = problem(30, 8, seed=9)
    found = []
    for compiled in (True, False):
        label = p.gate.detach().clone().requires_grad_()
        interval = p.edges.diff(dim=-1)
        opacity, _ = section_opacity(
            p.sdf, p.normal, p.directions, interval, p.sharpness, 1.0, p.near, compiled=compiled
        )
        background = density_section_opacity(p.density, p.crops, interval, p.background, compiled=compiled)
        w = composite_weights(
            Listed(opacity, p.near), Listed(background, p.background),
            Listed(label if predicted else label.detach() * 0.5, p.inside), label, p.edges, p.to_object, p.crop,
            compiled=compiled,
        )  # fmt: skip
        (by_vote,) = torch.autograd.grad(w.vote.square().sum(), label, retain_graph=True)
        (by_alpha,) = torch.autograd.grad(w.alpha.square().sum(), label, allow_unused=True, retain_graph=True)
        geometry = torch.autograd.grad(w.vote.sum(), (p.sdf, p.density), allow_unused=True)
        assert all(g is None or not g.any() for g in geometry)  # masks do not move the geometry
        assert by_vote.any() and (by_alpha is not None and by_alpha.any()) == predicted
        found.append((by_vote, torch.zeros(1) if by_alpha is None else by_alpha))
    for one, two in zip(*found, strict=True):
        assert_like(one, two, 1e-5, "label") if predicted or one.any() else None


@both
def test_the_background_thins_always_and_grows_as_far_as_trusted(compiled):
    opacity = torch.full((4,), 0.5, requires_grad=True)
    edges = torch.tensor([[1.0, 2.0, 4.0]] * 2)
    none = nothing(edges)
    w = composite_weights(
        none, Listed(opacity, torch.arange(4)), none, none.values, edges, torch.tensor([2.0, 2.0]),
        torch.tensor([0.0, 1.0]), compiled=compiled,
    )  # fmt: skip
    assert w.growth_scale.tolist() == [[0.5625, 1.0], [0.0, 0.0]]
    # accumulation is 1 - (1 - a)(1 - b): its derivative by either is what the other lets through
    (thinner,) = torch.autograd.grad(w.accumulation.sum(), opacity, retain_graph=True)
    (thicker,) = torch.autograd.grad(-w.accumulation.sum(), opacity)
    assert thinner.tolist() == pytest.approx([0.5] * 4)
    assert thicker.tolist() == pytest.approx([-0.5 * 0.5625, -0.5, 0.0, 0.0])


@both
def test_the_one_sided_gradient_judges_the_sum_of_all_losses(compiled):
    """Where one loss thins by more than another one grows, nothing of either is scaled."""
    opacity = torch.tensor([0.5], requires_grad=True)
    edges, none = torch.tensor([[1.0, 2.0]]), nothing(torch.zeros(0))
    w = composite_weights(
        none, Listed(opacity, torch.tensor([0])), none, none.values, edges, torch.tensor([3.0]),
        torch.tensor([0.5]), compiled=compiled,
    )  # fmt: skip
    (3.0 * w.background.sum() - w.background_only.sum()).backward(retain_graph=True)
    assert opacity.grad is not None and opacity.grad.tolist() == pytest.approx([2.0])
    opacity.grad = None
    (w.background.sum() - 3.0 * w.background_only.sum()).backward()
    assert opacity.grad is not None and opacity.grad.tolist() == pytest.approx([-2.0 * 0.25 * 0.5])


def test_the_background_is_trusted_beyond_the_camera_and_off_the_object():
    scale = background_growth_scale(
        torch.tensor([[1.0, 2.0, 4.0, 9.0]] * 2), torch.tensor([4.0, 4.0]), torch.tensor([0, 0.75])
    )
    assert scale.tolist() == [[1 / 16, 1 / 4, 1.0, 1.0], [1 / 64, 1 / 16, 1 / 4, 1 / 4]]


def test_gradients_are_bent_and_values_are_not():
    values, scale = torch.tensor([1.0, -2.0, 3.0, 4.0], requires_grad=True), torch.tensor([0.0, 0.5, 0.0, 0.25])
    for bent in (scale_gradient(values, scale), scale_growth(values, scale)):
        assert torch.equal(bent, values)
    upstream = torch.tensor([-1.0, -2.0, 3.0, 4.0])
    (scaled,) = torch.autograd.grad(scale_gradient(values, scale), values, upstream)
    (one_sided,) = torch.autograd.grad(scale_growth(values, scale), values, upstream)
    assert scaled.tolist() == [0.0, -1.0, 0.0, 1.0] and one_sided.tolist() == [0.0, -1.0, 3.0, 4.0]


# ------------------------------------------------------------------ colours


@both
def test_colours_of_two_samples_by_hand(compiled):
    w = two_samples(compiled)  # foreground 0.25, 0.675; background 0.075, 0; alone 0.2, 0.4
    red, green = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    c = composite_colours(
        w,
        Listed(red, torch.tensor([1])),
        Listed(torch.cat([green, red]), torch.tensor([0, 1])),
        Listed(torch.cat([green, -green]), torch.tensor([0, 1])),
        compiled=compiled,
    )
    assert c.foreground.tolist() == [pytest.approx([0.675, 0.0, 0.0])]
    assert c.rgb.tolist() == [pytest.approx([0.675, 0.075, 0.0])]
    assert c.background.tolist() == [pytest.approx([0.4 / 0.6, 0.2 / 0.6, 0.0])]
    assert c.normal.tolist() == [pytest.approx([0.0, 0.25 - 0.675, 0.0])]


@both
def test_a_thin_plate_is_not_blown_up(compiled):
    """A ray that the background covers by less than MIN_BACKGROUND_OPACITY stays darker than what little was hit."""
    covered = torch.tensor([MIN_BACKGROUND_OPACITY / 5, MIN_BACKGROUND_OPACITY * 2])
    w = composite_weights(
        nothing(covered), Listed(covered, torch.tensor([0, 1])), nothing(covered), covered[:0],
        torch.tensor([[1.0, 2.0]] * 2), torch.ones(2), torch.zeros(2), compiled=compiled,
    )  # fmt: skip
    white = Listed(torch.ones(2, 3), torch.tensor([0, 1]))
    c = composite_colours(w, nothing(covered, 3), white, nothing(covered, 3), compiled=compiled)
    assert c.background[:, 0].tolist() == pytest.approx([0.2, 1.0])


def test_gradients_of_colours_by_differences():
    """With trust everywhere the gradient is the true one; one ray's plate is thinner than MIN_BACKGROUND_OPACITY."""
    p = problem(6, 5, seed=11, kind=torch.float64)
    generator = torch.Generator().manual_seed(12)
    weights = [torch.rand(6, 5, generator=generator, dtype=torch.float64) for _ in range(3)]
    weights[2][3] *= 1e-3
    sums = [p.to_object] * 5
    seen_f, seen_b = p.near[::2], p.background[1::2]
    leaves = [
        *(w.requires_grad_() for w in weights),
        p.rgb_f.detach()[::2].clone().requires_grad_(),
        p.rgb_b.detach()[1::2].clone().requires_grad_(),
        p.normal,
    ]

    def run(*x: Tensor) -> tuple[Tensor, ...]:
        given = RayWeights(x[0], x[1], x[2], torch.ones_like(x[0]), *sums)
        return composite_colours(given, Listed(x[3], seen_f), Listed(x[4], seen_b), Listed(x[5], p.near), compiled=True)

    assert torch.autograd.gradcheck(run, leaves)


@both
def test_the_backgrounds_colours_learn_as_far_as_trusted(compiled):
    rgb = torch.ones(2, 3, requires_grad=True)
    w = two_samples(compiled)
    background = Listed(rgb, torch.tensor([0, 1]))
    c = composite_colours(w, nothing(rgb, 3), background, nothing(rgb, 3), compiled=compiled)
    c.rgb.sum().backward(retain_graph=True)
    assert rgb.grad is not None and rgb.grad[:, 0].tolist() == pytest.approx([0.075 * 0.5625 * 0.75, 0.0])
    rgb.grad = None
    c.background.sum().backward()
    assert rgb.grad is not None
    assert rgb.grad[:, 0].tolist() == pytest.approx([0.2 / 0.6 * 0.5625 * 0.75, 0.4 / 0.6 * 0.75])


# ------------------------------------------------------------------ what can be seen


@both
def test_seen_samples_by_hand(compiled):
    weights = torch.tensor([[0.2, 0.1, 0.0], [0.5, 0.3, 0.1]])
    others = torch.tensor([[0.0, 0.0, 0.9], [0.0, 0.0, 0.2]])
    index = torch.tensor([0, 1, 2, 4, 5])  # 3 is seen, but not listed
    places, positions = seen_samples(index, 0.1, weights, compiled=compiled)
    assert places.tolist() == [0, 3] and positions.tolist() == [0, 4]  # more than, not as much as, the threshold
    places, positions = seen_samples(index, 0.1, weights, others, compiled=compiled)
    assert places.tolist() == [0, 2, 3, 4] and positions.tolist() == [0, 2, 4, 5]
    places, positions = seen_samples(index[:0], 0.1, weights, compiled=compiled)
    assert places.shape == positions.shape == (0,) and places.dtype == torch.int64


def test_seen_samples_are_the_same_compiled():
    p = problem(200, 24, seed=13)
    weights, _ = pipeline(p, True)
    one = seen_samples(p.background, 1e-2, weights.background, weights.background_only, compiled=True)
    two = seen_samples(p.background, 1e-2, weights.background, weights.background_only)
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1]) and 0 < len(one[0]) < len(p.background)


# ------------------------------------------------------------------ all of it


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_compiled_and_torch_agree_from_distances_to_colours(kind):
    p = problem(64, 24, seed=14, kind=kind)
    exact = kind == torch.float64
    for expected, found in zip(pipeline(p, False), pipeline(p, True), strict=True):
        for name, one, two in zip(expected._fields, expected, found, strict=True):
            assert two.dtype == kind
            assert_like(two, one, 1e-6 if exact else 5e-6, name)
    for name, one, two in zip(p._fields, gradients(p, False), gradients(p, True), strict=False):
        assert two.isfinite().all() and two.any(), name
        assert_like(two, one, 3e-6 if exact else 3e-5, name)


def test_the_number_of_threads_does_not_change_a_bit():
    p = problem(2000, 24, seed=15)  # several pieces of work for every kernel
    before = threads.thread_count()
    results = []
    try:
        for count in (1, 3):
            threads.set_thread_count(count)
            results.append([x for parts in pipeline(p, True) for x in parts] + gradients(p, True))
    finally:
        threads.set_thread_count(before)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_where_a_kernel_finds_its_memory_does_not_change_a_bit():
    """Compilers ask at run time whether arrays might overlap, and sum in another order where they cannot be sure."""
    p = problem(2000, 24, seed=15)
    first, held = gradients(p, True), []
    for i in range(150):
        held = [*held[-(i % 13) :], torch.empty(37 * (i % 29 + 1))]  # so that the next arrays lie elsewhere
        assert all(torch.equal(one, two) for one, two in zip(first, gradients(p, True), strict=True)), i


def test_how_tensors_lie_in_memory_does_not_matter():
    p = problem(20, 7, seed=16)
    strewn = p._replace(
        normal=p.normal.detach().t().contiguous().t().requires_grad_(),
        sdf=torch.stack([p.sdf.detach(), p.sdf.detach()], -1)[:, 0].requires_grad_(),
        rgb_b=p.rgb_b.detach().t().contiguous().t().requires_grad_(),
        edges=p.edges.t().contiguous().t(),
    )
    assert not any(x.is_contiguous() for x in (strewn.normal, strewn.sdf, strewn.rgb_b, strewn.edges))
    for one, two in zip(gradients(p, True), gradients(strewn, True), strict=True):
        assert torch.equal(one, two)


def test_a_loss_of_one_output_alone():
    """Most outputs of a step have no loss: their gradients are not given at all."""
    p = problem(20, 7, seed=17)
    for name in ("alpha", "distortion"):
        one, two = (torch.autograd.grad(getattr(pipeline(p, c)[0], name).sum(), p.density, allow_unused=True)[0]
                    for c in (True, False))  # fmt: skip
        if two is None:
            two = torch.zeros_like(p.density)
        assert_like(one, two, 1e-5, name)
    for name in RayColours._fields:
        one, two = (torch.autograd.grad(getattr(pipeline(p, c)[1], name).square().sum(), p.sdf, allow_unused=True)[0]
                    for c in (True, False))  # fmt: skip
        if two is None:
            two = torch.zeros_like(p.sdf)
        assert_like(one, two, 1e-5, name)


def test_what_is_not_a_number_is_not_hidden():
    p = problem(10, 6, seed=18)
    place = int(torch.isin(p.near, p.inside).nonzero()[0])  # a sample that the label does not hide
    ray = int(p.near[place]) // 6
    with torch.no_grad():
        p.sdf[place] = math.nan
    weights, colours = pipeline(p, True)
    assert weights.alpha.isnan().nonzero().tolist() == [[ray]]
    assert colours.rgb.isnan().any(-1).nonzero().tolist() == [[ray]]
    assert all(g.isnan().any() for g in gradients(p, True)[:5])


# ------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize("index", [[3, 2], [2, 2], [-1, 2], [2, 8], [2]], ids=["order", "twice", "low", "high", "few"])
def test_positions_are_checked(index):
    w = two_samples(True)
    edges, pair = torch.tensor([[1.0, 2.0, 4.0]] * 4), torch.tensor([0.5, 0.5])
    listed, none = Listed(pair, torch.tensor(index)), nothing(pair)
    tail = (none.values, edges, torch.ones(4), torch.zeros(4))
    with pytest.raises(ValueError, match="positions"):
        composite_weights(listed, none, none, *tail, compiled=True)
    with pytest.raises(ValueError, match="positions"):
        composite_weights(none, listed, none, *tail, compiled=True)
    with pytest.raises(ValueError, match="positions"):
        composite_weights(none, none, listed, pair, *tail[1:], compiled=True)
    with pytest.raises(ValueError, match="positions"):
        density_section_opacity(pair, edges[:, 1:], edges[:, 1:], listed.positions, compiled=True)
    if len(index) == 2:
        with pytest.raises(ValueError, match="positions"):
            seen_samples(listed.positions, 0.1, torch.zeros(4, 2), compiled=True)
    with pytest.raises(ValueError, match="positions"):
        composite_colours(
            w, nothing(pair, 3), Listed(torch.ones(2, 3), listed.positions), nothing(pair, 3), compiled=True
        )


def test_shapes_and_kinds_are_checked():
    two, three = torch.ones(2), torch.ones(2, 3)
    b = torch.tensor(1.0)
    with pytest.raises(ValueError, match="normals"):
        section_opacity(two, torch.ones(3, 3), three, two, b, 1.0, compiled=True)
    with pytest.raises(ValueError, match="directions"):
        section_opacity(two, three, torch.ones(1, 3), two, b, 1.0, compiled=True)
    with pytest.raises(ValueError, match="directions"):
        section_opacity(two, three, three, torch.ones(3), b, 1.0, compiled=True)
    with pytest.raises(TypeError, match="float32"):
        section_opacity(two, three.double(), three, two, b, 1.0, compiled=True)
    with pytest.raises(TypeError, match="float32"):
        density_section_opacity(two.half(), two.half(), two.half(), compiled=True)
    with pytest.raises(ValueError, match="alike"):
        density_section_opacity(two, torch.ones(3), two, compiled=True)
    with pytest.raises(ValueError, match="intervals"):
        density_section_opacity(two, torch.ones(3), torch.ones(3), compiled=True)
    edges, none = torch.tensor([[1.0, 2.0]]), nothing(two)
    with pytest.raises(ValueError, match="crop"):
        composite_weights(none, none, none, none.values, edges, torch.ones(1), two, compiled=True)
    with pytest.raises(ValueError, match="vote"):
        composite_weights(none, none, none, two, edges, torch.ones(1), torch.ones(1), compiled=True)
    with pytest.raises(ValueError, match="edges"):
        composite_weights(none, none, none, none.values, edges[:, :1], torch.ones(1), torch.ones(1), compiled=True)
    w = two_samples(True)
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        composite_colours(w, nothing(two, 4), nothing(two, 3), nothing(two, 3), compiled=True)
    with pytest.raises(ValueError, match="weights"):
        composite_colours(
            w._replace(alone=torch.ones(1, 3)), nothing(two, 3), nothing(two, 3), nothing(two, 3), compiled=True
        )
