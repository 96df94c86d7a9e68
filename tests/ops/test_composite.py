"""Compositing along rays: by hand, by finite differences, and what compiled code must not do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from surface_sos_ns.ops.cpu import threads
from surface_sos_ns.ops.cpu.numba_ops import NumbaOps
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps
from surface_sos_ns.rendering.composite import (
    MIN_BACKGROUND_OPACITY,
    PackedValues,
    RayColours,
    RayWeights,
    background_growth_scale,
    no_values,
    scale_gradient,
    scale_growth,
)
from surface_sos_ns.sampling.selection import Selection

NUMBA = NumbaOps()
each = pytest.mark.parametrize("ops", [TORCH, NUMBA], ids=["torch", "numba"])


class Problem(NamedTuple):
    """Everything that goes into a rendering of random rays; leaves have gradients."""

    sdf: Tensor
    normal: Tensor
    sharpness: Tensor
    density: Tensor
    gate: Tensor
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
        return self[:7]


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


def pipeline(p: Problem, ops: TorchOps = NUMBA) -> tuple[RayWeights, RayColours]:
    """All of the steps, as a renderer calls them."""
    interval = p.edges.diff(dim=-1)
    opacity, unit = ops.section_opacity(p.sdf, p.normal, p.directions, interval, p.sharpness, 0.4, p.near)
    opacity_b = ops.density_section_opacity(p.density, p.crops, interval, p.background)
    weights = ops.composite_weights(
        PackedValues(opacity, p.near), PackedValues(opacity_b, p.background), PackedValues(p.gate, p.inside),
        p.edges, p.to_object, p.crop
    )  # fmt: skip
    colours = ops.composite_colours(
        weights, PackedValues(p.rgb_f, p.near), PackedValues(p.rgb_b, p.background), PackedValues(unit, p.near)
    )
    return weights, colours


def gradients(p: Problem, seed: int = 1) -> list[Tensor]:
    """Of a random sum of everything that has a gradient, by everything that it depends on."""
    generator = torch.Generator().manual_seed(seed)
    outputs = [x for results in pipeline(p) for x in results if x.requires_grad]
    loss = sum((x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)).sum() for x in outputs)
    return list(torch.autograd.grad(loss, p.leaves))


# ------------------------------------------------------------------ opacity of a section


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@each
def test_opacity_by_hand(ops):
    """A ray along z with normals that lean 60 degrees: cosine -0.5; sections of 0.2 at f = 0.1 and 0.4 at f = 0."""
    sdf, normal = torch.tensor([0.1, 0.0]), torch.tensor([[0.0, 0.0, -0.5], [3.0, 0.0, -4.0]])
    along_z = torch.tensor([[0.0, 0.0, 1.0]])
    b = torch.tensor(10.0)
    opacity, unit = ops.section_opacity(sdf, normal, along_z.expand(2, 3), torch.tensor([0.2, 0.4]), b, 1.0)
    expected = [1 - sigmoid(0.5) / sigmoid(1.5), 1 - sigmoid(-8.0) / sigmoid(8.0)]
    assert opacity.tolist() == pytest.approx(expected, abs=1e-6)
    assert unit.flatten().tolist() == pytest.approx([0.0, 0.0, -1.0, 0.6, 0.0, -0.8], abs=1e-6)
    # the same, listed: the second of two rays, whose other samples are not asked for
    listed, _ = ops.section_opacity(
        sdf,
        normal,
        torch.cat([-along_z, along_z]),
        torch.tensor([[9.0, 9.0, 9.0], [9.0, 0.2, 0.4]]),
        b,
        1.0,
        torch.tensor([4, 5]),
    )
    assert torch.equal(listed, opacity)


@each
def test_opacity_far_in_and_far_out(ops):
    """Neither ratio nor gradient is lost where both sigmoids vanish, and nothing overflows."""
    sdf = torch.tensor([-50.0, -1e6, 1e6, 0.5, 0.0, 0.0], requires_grad=True)
    interval = torch.tensor([0.1, 1e3, 1e3, 0.1, 0.0, 1e6])
    normal = torch.tensor([0.0, 0.0, -1.0]).repeat(6, 1).requires_grad_()
    b = torch.tensor(5000.0, requires_grad=True)
    opacity, _ = ops.section_opacity(sdf, normal, torch.tensor([0.0, 0.0, 1.0]).repeat(6, 1), interval, b, 1.0)
    assert opacity.tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0, 0.0, 1.0], abs=1e-6)
    opacity.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (sdf, normal, b))


@pytest.mark.parametrize("anneal", [0.0, 0.3, 1.0])
def test_gradients_of_the_surfaces_opacity(anneal):
    p = problem(8, 4, seed=3, kind=torch.float64)
    interval = p.edges.diff(dim=-1) * 0.1

    def run(sdf: Tensor, normal: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
        return NUMBA.section_opacity(sdf, normal, p.directions, interval, sharpness, anneal, p.near)

    # the compiled exponential is a polynomial: good to 2e-7, which differences over 2e-3 hardly see
    assert torch.autograd.gradcheck(run, p.leaves[:3], eps=1e-3, atol=2e-3, rtol=2e-3)


def test_gradients_of_the_densitys_opacity():
    p = problem(8, 4, seed=3, kind=torch.float64)
    interval = p.edges.diff(dim=-1)

    def run(density: Tensor) -> Tensor:
        return NUMBA.density_section_opacity(density, p.crops, interval, p.background)

    assert torch.autograd.gradcheck(run, (p.density,), eps=1e-3, atol=1e-4, rtol=1e-3)


@each
def test_density_by_hand(ops):
    density, crop = torch.tensor([math.log(2.0), math.log(2.0), 7.0]), torch.tensor([0.0, 0.5, 1.0])
    opacity = ops.density_section_opacity(density, crop, torch.tensor([1.0, 4.0, 5.0]))
    assert opacity.tolist() == pytest.approx([0.5, 0.75, 0.0], abs=1e-6)
    assert torch.equal(opacity[2], torch.zeros(()))


@each
def test_a_normal_of_no_length(ops):
    normal = torch.zeros(1, 3, requires_grad=True)
    opacity, unit = ops.section_opacity(torch.zeros(1), normal, torch.ones(1, 3), torch.ones(1), torch.ones(()), 1.0)
    assert not unit.any() and not opacity.any()
    (opacity.sum() + 0.0 * unit.sum()).backward()
    assert normal.grad is not None and not normal.grad.any()


# ------------------------------------------------------------------ weights


def two_samples(ops: TorchOps) -> RayWeights:
    index = torch.tensor([0, 1])

    def of(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float32)

    return ops.composite_weights(
        PackedValues(of(0.5, 1.0), index), PackedValues(of(0.2, 0.5), index), PackedValues(of(0.5, 1.0), index),
        of(1.0, 2.0, 4.0)[None], of(2.0), of(0.25)
    )  # fmt: skip


@each
def test_weights_of_two_samples_by_hand(ops):
    w = two_samples(ops)
    # gated: aF 0.25, 1; aB 0.1, 0; light behind the first 0.75 x 0.9
    assert w.foreground.tolist() == [pytest.approx([0.25, 0.675])]
    assert w.background.tolist() == [pytest.approx([0.075, 0.0])]
    assert w.background_only.tolist() == [pytest.approx([0.2, 0.8 * 0.5])]
    assert w.alpha.tolist() == pytest.approx([0.925])
    assert w.accumulation.tolist() == pytest.approx([1.0])
    assert w.depth.tolist() == pytest.approx([0.325 * 1.5 + 0.675 * 3.0])
    assert w.combined.tolist() == [pytest.approx([0.325, 0.675])]
    # (1.5 / 2)^2 and more than 1, on a ray that is free for three quarters
    assert w.growth_scale.tolist() == [pytest.approx([0.5625 * 0.75, 0.75])]
    # edges at 1/3, 1/2, 2/3: middles 1/6 apart, both 1/6 long
    assert w.distortion.tolist() == pytest.approx([2 * 0.2 * 0.4 / 6 + (0.2**2 + 0.4**2) / 6 / 3])


@each
def test_rays_without_any_sample(ops):
    """The second of three rays has some; the others see nothing and have no gradient to give."""
    edges = torch.tensor([1.0, 2.0, 4.0]).repeat(3, 1)
    opacity = torch.tensor([0.5], requires_grad=True)
    none = no_values(edges)
    w = ops.composite_weights(
        none, PackedValues(opacity, torch.tensor([2])), none, edges, torch.ones(3) * 2, torch.zeros(3)
    )  # fmt: skip
    c = ops.composite_colours(
        w, no_values(edges, 3), PackedValues(torch.ones(1, 3), torch.tensor([2])), no_values(edges, 3)
    )
    assert w.accumulation.tolist() == [0.0, 0.5, 0.0]
    assert w.depth.tolist() == pytest.approx([3.0, 0.5 * 1.5 + 0.5 * 3.0, 3.0])
    assert c.background.tolist() == [[0.0] * 3, [1.0] * 3, [0.0] * 3]
    assert c.rgb.tolist() == [[0.0] * 3, [0.5] * 3, [0.0] * 3]
    (w.accumulation.sum() + c.rgb.sum()).backward()
    assert opacity.grad is not None and opacity.grad.tolist() == pytest.approx([4.0])


def weights_of(p: Problem) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """A function of the opacities and gate of a problem without distrust, whose gradient is the true one."""
    generator = torch.Generator().manual_seed(6)

    def run(opacity_f: Tensor, opacity_b: Tensor, gate: Tensor) -> tuple[Tensor, ...]:
        w = NUMBA.composite_weights(
            PackedValues(opacity_f, p.near), PackedValues(opacity_b, p.background), PackedValues(gate, p.inside),
            p.edges, torch.ones_like(p.to_object), torch.zeros_like(p.crop)
        )  # fmt: skip
        assert (w.growth_scale == 1).all()
        return (*w[:3], *w[4:7], w.distortion)

    values = [
        torch.rand(len(x), generator=generator, dtype=torch.float64).requires_grad_()
        for x in (p.near, p.background, p.inside)
    ]
    return run, values


def test_gradients_of_weights_by_differences():
    run, values = weights_of(problem(6, 5, seed=7, kind=torch.float64))
    assert torch.autograd.gradcheck(run, values)


def test_gradients_where_opacity_is_exactly_one_or_zero():
    """No light passes, and yet what a little less opacity would let through counts."""
    run, values = weights_of(problem(12, 6, seed=8, kind=torch.float64))
    with torch.no_grad():
        for x in values:
            x.copy_((x * 3).floor() / 2)  # a third each of 0, 0.5 and 1
    assert all((x == 0).any() and (x == 1).any() for x in values)
    assert torch.autograd.gradcheck(run, values)


@each
def test_the_background_thins_always_and_grows_as_far_as_trusted(ops):
    opacity = torch.full((4,), 0.5, requires_grad=True)
    edges = torch.tensor([[1.0, 2.0, 4.0]] * 2)
    none = no_values(edges)
    w = ops.composite_weights(
        none, PackedValues(opacity, torch.arange(4)), none, edges, torch.tensor([2.0, 2.0]),
        torch.tensor([0.0, 1.0])
    )  # fmt: skip
    assert w.growth_scale.tolist() == [[0.5625, 1.0], [0.0, 0.0]]
    # accumulation is 1 - (1 - a)(1 - b): its derivative by either is what the other lets through
    (thinner,) = torch.autograd.grad(w.accumulation.sum(), opacity, retain_graph=True)
    (thicker,) = torch.autograd.grad(-w.accumulation.sum(), opacity)
    assert thinner.tolist() == pytest.approx([0.5] * 4)
    assert thicker.tolist() == pytest.approx([-0.5 * 0.5625, -0.5, 0.0, 0.0])


@each
def test_the_one_sided_gradient_judges_the_sum_of_all_losses(ops):
    """Where one loss thins by more than another one grows, nothing of either is scaled."""
    opacity = torch.tensor([0.5], requires_grad=True)
    edges, none = torch.tensor([[1.0, 2.0]]), no_values(torch.zeros(0))
    w = ops.composite_weights(
        none, PackedValues(opacity, torch.tensor([0])), none, edges, torch.tensor([3.0]),
        torch.tensor([0.5])
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


@each
def test_colours_of_two_samples_by_hand(ops):
    w = two_samples(ops)  # foreground 0.25, 0.675; background 0.075, 0; alone 0.2, 0.4
    red, green = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    c = ops.composite_colours(
        w,
        PackedValues(red, torch.tensor([1])),
        PackedValues(torch.cat([green, red]), torch.tensor([0, 1])),
        PackedValues(torch.cat([green, -green]), torch.tensor([0, 1])),
    )
    assert c.foreground.tolist() == [pytest.approx([0.675, 0.0, 0.0])]
    assert c.rgb.tolist() == [pytest.approx([0.675, 0.075, 0.0])]
    assert c.background.tolist() == [pytest.approx([0.4 / 0.6, 0.2 / 0.6, 0.0])]
    assert c.normal.tolist() == [pytest.approx([0.0, 0.25 - 0.675, 0.0])]


@each
def test_a_thin_plate_is_not_blown_up(ops):
    """A ray that the background covers by less than MIN_BACKGROUND_OPACITY stays darker than what little was hit."""
    covered = torch.tensor([MIN_BACKGROUND_OPACITY / 5, MIN_BACKGROUND_OPACITY * 2])
    w = ops.composite_weights(
        no_values(covered), PackedValues(covered, torch.tensor([0, 1])), no_values(covered),
        torch.tensor([[1.0, 2.0]] * 2), torch.ones(2), torch.zeros(2)
    )  # fmt: skip
    white = PackedValues(torch.ones(2, 3), torch.tensor([0, 1]))
    c = ops.composite_colours(w, no_values(covered, 3), white, no_values(covered, 3))
    assert c.background[:, 0].tolist() == pytest.approx([0.2, 1.0])


def test_gradients_of_colours_by_differences():
    """With trust everywhere the gradient is the true one; one ray's plate is thinner than MIN_BACKGROUND_OPACITY."""
    p = problem(6, 5, seed=11, kind=torch.float64)
    generator = torch.Generator().manual_seed(12)
    weights = [torch.rand(6, 5, generator=generator, dtype=torch.float64) for _ in range(3)]
    weights[2][3] *= 1e-3
    sums = [p.to_object] * 4
    seen_f, seen_b = p.near[::2], p.background[1::2]
    leaves = [
        *(w.requires_grad_() for w in weights),
        p.rgb_f.detach()[::2].clone().requires_grad_(),
        p.rgb_b.detach()[1::2].clone().requires_grad_(),
        p.normal,
    ]

    def run(*x: Tensor) -> tuple[Tensor, ...]:
        given = RayWeights(x[0], x[1], x[2], torch.ones_like(x[0]), *sums)
        return NUMBA.composite_colours(
            given, PackedValues(x[3], seen_f), PackedValues(x[4], seen_b), PackedValues(x[5], p.near)
        )

    assert torch.autograd.gradcheck(run, leaves)


@each
def test_the_backgrounds_colours_learn_as_far_as_trusted(ops):
    rgb = torch.ones(2, 3, requires_grad=True)
    w = two_samples(ops)
    background = PackedValues(rgb, torch.tensor([0, 1]))
    c = ops.composite_colours(w, no_values(rgb, 3), background, no_values(rgb, 3))
    c.rgb.sum().backward(retain_graph=True)
    assert rgb.grad is not None and rgb.grad[:, 0].tolist() == pytest.approx([0.075 * 0.5625 * 0.75, 0.0])
    rgb.grad = None
    c.background.sum().backward()
    assert rgb.grad is not None
    assert rgb.grad[:, 0].tolist() == pytest.approx([0.2 / 0.6 * 0.5625 * 0.75, 0.4 / 0.6 * 0.75])


# ------------------------------------------------------------------ what can be seen


@each
def test_seen_samples_by_hand(ops):
    weights = torch.tensor([[0.2, 0.1, 0.0], [0.5, 0.3, 0.1]])
    others = torch.tensor([[0.0, 0.0, 0.9], [0.0, 0.0, 0.2]])
    index = torch.tensor([0, 1, 2, 4, 5])  # 3 is seen, but not listed
    listed = Selection(3, index)
    places, seen = ops.seen_samples(listed, 0.1, weights)
    assert places.tolist() == [0, 3] and seen.positions.tolist() == [0, 4]  # more than, not as much as, the threshold
    places, seen = ops.seen_samples(listed, 0.1, weights, others)
    assert places.tolist() == [0, 2, 3, 4] and seen.positions.tolist() == [0, 2, 4, 5]
    places, seen = ops.seen_samples(Selection(3, index[:0]), 0.1, weights)
    assert places.shape == seen.positions.shape == (0,) and places.dtype == torch.int64


# ------------------------------------------------------------------ what surfaces carry


@each
def test_what_surfaces_carry_by_hand(ops):
    stopped, both = two_samples(ops).combined, torch.tensor([0, 1])  # light stopped: 0.325, 0.675
    values = torch.tensor([[0.3, 1.0, 0.0], [0.6, 0.0, -2.0]], requires_grad=True)
    expected = [0.325 * 0.3 + 0.675 * 0.6, 0.325, -2 * 0.675]
    carried = ops.accumulate_detached(stopped, PackedValues(values, both))
    assert carried.tolist() == [pytest.approx(expected)]
    assert ops.accumulate_detached(stopped, PackedValues(values[:, 0], both)).tolist() == pytest.approx(expected[:1])
    second = PackedValues(values[1:], both[1:])
    assert ops.accumulate_detached(stopped, second).tolist() == [pytest.approx([0.675 * 0.6, 0.0, -2 * 0.675])]
    (carried * torch.tensor([1.0, 10.0, 0.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [pytest.approx([0.325, 3.25, 0.0]), pytest.approx([0.675, 6.75, 0.0])]


@each
def test_what_surfaces_carry_does_not_move_them(ops):
    """A predicted alpha is gate and label in one: as a label it learns, and what it splits does not."""
    p = problem(30, 8, seed=9)
    weights, _ = pipeline(p, ops)
    assert weights.combined.requires_grad
    carried = ops.accumulate_detached(weights.combined, PackedValues(p.gate, p.inside))
    by_label, *by_geometry = torch.autograd.grad(carried.sum(), (p.gate, p.sdf, p.density), allow_unused=True)
    assert torch.equal(by_label, weights.combined.detach().reshape(-1)[p.inside])
    assert all(gradient is None or not gradient.any() for gradient in by_geometry)


# ------------------------------------------------------------------ all of it


def test_the_number_of_threads_does_not_change_a_bit():
    p = problem(2000, 24, seed=15)  # several pieces of work for every kernel
    before = threads.thread_count()
    results = []
    try:
        for count in (1, 3):
            threads.set_thread_count(count)
            results.append([x for parts in pipeline(p) for x in parts] + gradients(p))
    finally:
        threads.set_thread_count(before)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.seconds(2)
def test_where_a_kernel_finds_its_memory_does_not_change_a_bit():
    """Compilers ask at run time whether arrays might overlap, and sum in another order where they cannot be sure."""
    p = problem(2000, 24, seed=15)
    first, held = gradients(p), []
    for i in range(150):
        held = [*held[-(i % 13) :], torch.empty(37 * (i % 29 + 1))]  # so that the next arrays lie elsewhere
        assert all(torch.equal(one, two) for one, two in zip(first, gradients(p), strict=True)), i


def test_what_is_not_a_number_is_not_hidden():
    p = problem(10, 6, seed=18)
    place = int(torch.isin(p.near, p.inside).nonzero()[0])  # a sample that the label does not hide
    ray = int(p.near[place]) // 6
    with torch.no_grad():
        p.sdf[place] = math.nan
    weights, colours = pipeline(p)
    assert weights.alpha.isnan().nonzero().tolist() == [[ray]]
    assert colours.rgb.isnan().any(-1).nonzero().tolist() == [[ray]]
    assert all(g.isnan().any() for g in gradients(p)[:5])


# ------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize("index", [[3, 2], [2, 2], [-1, 2], [2, 8], [2]], ids=["order", "twice", "low", "high", "few"])
def test_positions_are_checked(index):
    w = two_samples(NUMBA)
    edges, pair = torch.tensor([[1.0, 2.0, 4.0]] * 4), torch.tensor([0.5, 0.5])
    listed, none = PackedValues(pair, torch.tensor(index)), no_values(pair)
    tail = (edges, torch.ones(4), torch.zeros(4))
    with pytest.raises(ValueError, match="positions"):
        NUMBA.composite_weights(listed, none, none, *tail)
    with pytest.raises(ValueError, match="positions"):
        NUMBA.composite_weights(none, listed, none, *tail)
    with pytest.raises(ValueError, match="positions"):
        NUMBA.composite_weights(none, none, listed, *tail)
    with pytest.raises(ValueError, match="positions"):
        NUMBA.density_section_opacity(pair, edges[:, 1:], edges[:, 1:], listed.positions)
    if len(index) == 2:
        with pytest.raises(ValueError, match="positions"):
            NUMBA.seen_samples(Selection(2, listed.positions), 0.1, torch.zeros(4, 2))
    with pytest.raises(ValueError, match="positions"):
        NUMBA.accumulate_detached(torch.zeros(4, 2), listed)
    with pytest.raises(ValueError, match="positions"):
        NUMBA.composite_colours(
            w, no_values(pair, 3), PackedValues(torch.ones(2, 3), listed.positions), no_values(pair, 3)
        )


def test_shapes_and_kinds_are_checked():
    two, three = torch.ones(2), torch.ones(2, 3)
    b = torch.tensor(1.0)
    with pytest.raises(ValueError, match="normals"):
        NUMBA.section_opacity(two, torch.ones(3, 3), three, two, b, 1.0)
    with pytest.raises(ValueError, match="directions"):
        NUMBA.section_opacity(two, three, torch.ones(1, 3), two, b, 1.0)
    with pytest.raises(ValueError, match="directions"):
        NUMBA.section_opacity(two, three, three, torch.ones(3), b, 1.0)
    with pytest.raises(TypeError, match="float32"):
        NUMBA.section_opacity(two, three.double(), three, two, b, 1.0)
    with pytest.raises(TypeError, match="float32"):
        NUMBA.density_section_opacity(two.half(), two.half(), two.half())
    with pytest.raises(ValueError, match="alike"):
        NUMBA.density_section_opacity(two, torch.ones(3), two)
    with pytest.raises(ValueError, match="intervals"):
        NUMBA.density_section_opacity(two, torch.ones(3), torch.ones(3))
    edges, none = torch.tensor([[1.0, 2.0]]), no_values(two)
    with pytest.raises(ValueError, match="crop"):
        NUMBA.composite_weights(none, none, none, edges, torch.ones(1), two)
    with pytest.raises(ValueError, match="edges"):
        NUMBA.composite_weights(none, none, none, edges[:, :1], torch.ones(1), torch.ones(1))
    with pytest.raises(ValueError, match=r"\(N, C\)"):
        NUMBA.accumulate_detached(torch.ones(1, 2), PackedValues(torch.ones(1, 3, 2), torch.tensor([0])))
    w = two_samples(NUMBA)
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        NUMBA.composite_colours(w, no_values(two, 4), no_values(two, 3), no_values(two, 3))
    with pytest.raises(ValueError, match="weights"):
        NUMBA.composite_colours(
            w._replace(background_only=torch.ones(1, 3)), no_values(two, 3), no_values(two, 3), no_values(two, 3)
        )
