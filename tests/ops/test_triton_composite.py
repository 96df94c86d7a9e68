"""What happens along rays, in Triton: values computed by hand, shapes by fake tensors, and what is refused.

`test_every_operation.py` compares the kernels with torch. Where there is no GPU, those of the tests here that run
kernels run in Triton's interpreter, see `test_triton_grid.py`.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from surface_sos_ns.ops.cuda import composite as operators
from surface_sos_ns.ops.cuda import triton_ops
from surface_sos_ns.ops.cuda.triton_ops import TritonOps
from surface_sos_ns.rendering.composite import PackedValues, RayWeights
from tests.helpers.triton_kernels import not_interpreted, only_interpreted, scan_all_rows_at_once

RAYS, SAMPLES = 3, 5
COUNT = RAYS * SAMPLES


def in_order(values: Tensor) -> PackedValues:
    return PackedValues(values, torch.arange(len(values), device=values.device))


def weights_of(foreground: Tensor, background: Tensor, gate: Tensor, edges: Tensor, **of_rays: float) -> RayWeights:
    """Of opacities (R, S)."""
    given = (in_order(x.reshape(-1)) for x in (foreground, background, gate))
    of_rays = {"to_object": 2.0, "crop": 0.0} | of_rays
    rays = (edges.new_full((len(edges),), of_rays[name]) for name in ("to_object", "crop"))
    return operators.composite_weights(*given, edges, *rays)


# ------------------------------------------------------------------ by hand


def test_weights_of_three_samples(device: torch.device) -> None:
    half, one, none = (torch.full((1, 3), x, device=device) for x in (0.5, 1.0, 0.0))
    edges = torch.tensor([[1.0, 2.0, 3.0, 4.0]], device=device)
    found = weights_of(half, none, one, edges)  # the foreground alone
    assert torch.allclose(found.foreground.cpu(), torch.tensor([[0.5, 0.25, 0.125]]))
    assert float(found.background.abs().max()) == 0 and math.isclose(float(found.alpha), 0.875)
    # what is left counts at the last middle
    assert math.isclose(float(found.depth), 0.5 * 1.5 + 0.25 * 2.5 + 0.25 * 3.5, rel_tol=1e-6)
    found = weights_of(half, half, half, edges)  # each layer has opacity 1/4 everywhere
    light = torch.tensor([[1.0, 0.5625, 0.31640625]])
    assert torch.allclose(found.foreground.cpu(), 0.25 * light)
    assert torch.allclose(found.background.cpu(), 0.75 * 0.25 * light)
    assert torch.allclose(found.background_only.cpu(), torch.tensor([[0.5, 0.25, 0.125]]))


def test_a_thin_surface_has_no_distortion_but_that_of_its_length(device: torch.device) -> None:
    edges = torch.tensor([[1.0, 2.0, 3.0]] * 2, device=device)
    none = torch.zeros(2, 2, device=device)
    opaque = torch.tensor([[0.0, 1.0], [0.5, 1.0]], device=device)
    found = weights_of(none, opaque, none, edges).distortion.cpu()
    first, second, third = 1 / 3, 2 / 4, 3 / 5  # t / (t + 2)
    assert math.isclose(float(found[0]), (third - second) / 3, rel_tol=1e-5)
    apart = (third + second) / 2 - (second + first) / 2
    assert math.isclose(float(found[1]), 2 * 0.25 * apart + 0.25 * (third - first) / 3, rel_tol=1e-5)


def test_what_lies_behind_something_opaque_is_known_to_its_gradient(device: torch.device) -> None:
    """An opaque sample hides white ones: less of it would show more of them, though their weights are 0."""
    opacity = torch.tensor([[0.0, 1.0, 0.5, 1.0]], device=device, requires_grad=True)
    one, none = torch.ones(1, 4, device=device), torch.zeros(1, 4, device=device)
    edges = torch.arange(1.0, 6.0, device=device)[None]
    brightness = torch.tensor([0.0, 0.0, 1.0, 3.0], device=device)
    (weights_of(opacity, none, one, edges).foreground * brightness).sum().backward()
    # behind it: 0.5 * 1 + 0.5 * 3 = 2
    assert opacity.grad is not None and opacity.grad.tolist() == [[0.0, -2.0, 0.0, 0.0]]


def test_gradients_that_make_the_background_denser_are_scaled(device: torch.device) -> None:
    none, edges = torch.zeros(1, 2, device=device), torch.tensor([[0.0, 2.0, 4.0]], device=device)
    for sign, expected in ((1.0, [[1.0, 1.0]]), (-1.0, [[-0.25 * 0.75, -0.75]])):
        opacity = torch.zeros(1, 2, device=device, requires_grad=True)
        found = weights_of(none, opacity, none, edges, to_object=2.0, crop=0.25)
        (found.background.sum() * sign).backward()
        assert opacity.grad is not None and torch.allclose(opacity.grad.cpu(), torch.tensor(expected))
    assert not found.growth_scale.requires_grad


def test_a_section_through_the_surface(device: torch.device) -> None:
    """Entering head on with b = 2, from f = 1 to f = -1: 1 - sigmoid(-2) / sigmoid(2) = 1 - e^-2."""
    normal = torch.tensor([[0.0, 0.0, -3.0], [0.0, 0.0, 1.0]], device=device)
    sdf, directions = torch.zeros(2, device=device), torch.tensor([[0.0, 0.0, 1.0]], device=device)
    interval, sharpness = torch.tensor([[2.0 / 3.0, 2.0]], device=device), torch.tensor(2.0, device=device)
    opacity, unit = operators.section_opacity(sdf, normal, directions, interval, sharpness, 1.0)
    assert math.isclose(float(opacity[0]), 1 - math.exp(-2), rel_tol=1e-5)
    assert float(opacity[1]) == 0  # it leaves
    assert unit.tolist() == [[0, 0, -1], [0, 0, 1]]


def test_nan_stays_with_its_ray(device: torch.device) -> None:
    opacity = torch.full((3, 4), 0.3, device=device)
    opacity[1, 2] = float("nan")
    found = weights_of(
        opacity, opacity, torch.full_like(opacity, 0.5), torch.arange(1.0, 6.0, device=device).repeat(3, 1)
    )
    assert found.alpha.isnan().tolist() == found.distortion.isnan().tolist() == [False, True, False]


@only_interpreted
def test_scans_of_all_rows_at_once_are_those_of_the_interpreter() -> None:
    opacity = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    edges = torch.arange(1.0, 6.0).repeat(3, 1)

    def gradients() -> tuple[Tensor, ...]:
        leaves = [x.clone().requires_grad_() for x in (*opacity, opacity[0] * 0.5)]
        found = weights_of(*leaves, edges)
        loss = (found.combined * edges[:, 1:]).sum() + found.depth.square().sum() + found.distortion.sum()
        return torch.autograd.grad(loss, leaves)

    theirs = gradients()
    with pytest.MonkeyPatch.context() as patch:
        scan_all_rows_at_once(patch)
        ours = gradients()
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


# ------------------------------------------------------------------ operators


def per_sample(*width: int) -> Tensor:
    return torch.rand(COUNT, *width) * 0.9


def operator_calls() -> dict[str, tuple[Any, ...]]:
    """By forward operator, its arguments and those that its backward takes after these."""
    grid = [torch.rand(RAYS, SAMPLES) * 0.9 for _ in range(4)]
    edges, scalars = torch.rand(RAYS, SAMPLES + 1).cumsum(1), (torch.tensor(3.0), torch.tensor(0.5))
    of_rays, colours = [torch.rand(RAYS) for _ in range(4)], [torch.rand(RAYS, SAMPLES, 3) for _ in range(3)]
    triples = [torch.rand(RAYS, 3) for _ in range(4)]
    return {
        "section_opacity": ((per_sample(), per_sample(3), triples[0], grid[0], *scalars), (None, per_sample(3), True)),
        "density_opacity": ((per_sample(), per_sample(), per_sample()), (per_sample(),)),
        "ray_weights": ((*grid[:3], edges, of_rays[0] + 1, of_rays[1]), (grid[3], None, grid[0], *of_rays)),
        "ray_colours": ((*grid, *colours), (triples[0], None, triples[1], triples[2])),
        "accumulate": ((grid[0], torch.rand(RAYS, SAMPLES, 7)), None),
    }


SHAPES = {
    "section_opacity": [(COUNT,), (COUNT, 3)],
    "section_opacity_backward": [(COUNT,), (COUNT, 3), (RAYS, 3), ()],
    "density_opacity": [(COUNT,)],
    "density_opacity_backward": [(COUNT,)],
    "ray_weights": [(RAYS, SAMPLES)] * 4 + [(RAYS,)] * 4,
    "ray_weights_backward": [(RAYS, SAMPLES)] * 3,
    "ray_colours": [(RAYS, 3)] * 4,
    "ray_colours_backward": [(RAYS, SAMPLES)] * 3 + [(RAYS, SAMPLES, 3)] * 3,
    "accumulate": [(RAYS, 7)],
}
GRADIENTS_TO = {
    "section_opacity": (0, 1, 2, 4),
    "density_opacity": (0,),
    "ray_weights": (0, 1, 2),
    "ray_colours": (0, 1, 2, 4, 5, 6),
    "accumulate": (1,),
}
"""Arguments of forward operators that get a gradient."""


def arguments_of(operator: str) -> tuple[Any, ...]:
    forward, backward = operator_calls()[operator.removesuffix("_backward")]
    return (*forward, *backward) if operator.endswith("_backward") else forward


@not_interpreted
@pytest.mark.parametrize("operator", list(SHAPES))
def test_fake_tensors_on_a_gpu_get_the_shapes_without_one(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "surface_sos_ns.ops.cuda.composite_triton", raising=False)
    with FakeTensorMode():
        given = (torch.empty(x.shape, device="cuda") if isinstance(x, Tensor) else x for x in arguments_of(operator))
        found = getattr(torch.ops.surface_sos, operator)(*given)
    results = [found] if isinstance(found, Tensor) else found
    assert [tuple(result.shape) for result in results] == SHAPES[operator]
    assert all(result.device.type == "cuda" and result.dtype == torch.float32 for result in results)


@pytest.mark.parametrize("operator", list(SHAPES))
def test_operators_do_what_they_are_registered_for(operator: str, device: torch.device) -> None:
    """By torch's own checks: they change no input, results are no views, fake results are like the real ones, and
    gradients survive torch.compile's tracing."""
    given = [x.to(device) if isinstance(x, Tensor) else x for x in arguments_of(operator)]
    for i in GRADIENTS_TO.get(operator, ()):
        given[i].requires_grad_()
    tests = ["test_schema", "test_faketensor", *(["test_aot_dispatch_dynamic"] if operator in GRADIENTS_TO else [])]
    torch.library.opcheck(getattr(torch.ops.surface_sos, operator), tuple(given), test_utils=tests)


@not_interpreted
@pytest.mark.parametrize("where", ["cuda", "cpu"])
def test_a_chain_of_operations_under_fake_tensors(where: str) -> None:
    """Nothing reads a tensor on the host, whether the annealing is a number or a tensor on the device. The backward of
    fake tensors on a GPU would need one, so that is done with those on the CPU."""
    ops = TritonOps()
    with FakeTensorMode():

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, device=where, requires_grad=True)

        interval, every = empty(RAYS, SAMPLES), torch.empty(COUNT, dtype=torch.int64, device=where)
        for anneal in (0.3, empty().detach()):
            leaves = sdf, normal, directions, b = empty(COUNT), empty(COUNT, 3), empty(RAYS, 3), empty()
            opacity, unit = ops.section_opacity(sdf, normal, directions, interval, b, anneal)
            fog = ops.density_section_opacity(sdf, empty(RAYS, SAMPLES), interval)
            layers = (PackedValues(x, every) for x in (opacity, fog, opacity))
            weights = ops.composite_weights(*layers, empty(RAYS, SAMPLES + 1), empty(RAYS), empty(RAYS))
            colours = ops.composite_colours(weights, *(PackedValues(x, every) for x in (unit, unit, unit)))
            label = ops.accumulate_detached(weights.combined, PackedValues(fog, every))
            features = ops.accumulate_detached(weights.combined, PackedValues(unit, every))
            results = (opacity, unit, *weights, *colours, label, features)
            if where == "cpu":
                loss = torch.stack([result.sum() for result in results]).sum()
                gradients = torch.autograd.grad(loss, leaves)
                assert [x.shape for x in gradients] == [x.shape for x in leaves]
        assert colours.rgb.shape == features.shape == (RAYS, 3) and label.shape == weights.depth.shape == (RAYS,)
        assert {result.device.type for result in results} == {where}


def test_second_derivatives_are_refused(device: torch.device) -> None:
    density = torch.rand(8, device=device, requires_grad=True)
    opacity = operators.density_section_opacity(density, torch.zeros(8, device=device), torch.ones(8, device=device))
    (gradient,) = torch.autograd.grad(opacity.square().sum(), density, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


def test_shapes_that_do_not_fit_are_refused(device: torch.device) -> None:
    def ones(*shape: int) -> Tensor:
        return torch.ones(shape, device=device)

    with pytest.raises(ValueError, match=r"sdf must be \(6,\), got \(5,\)"):
        operators.section_opacity(ones(5), ones(6, 3), ones(2, 3), ones(2, 3), ones(), 1.0)
    with pytest.raises(ValueError, match=r"directions must be \(2, 3\)"):
        operators.section_opacity(ones(6), ones(6, 3), ones(6, 3), ones(2, 3), ones(), 1.0)
    with pytest.raises(ValueError, match=r"crop must be \(6,\)"):
        operators.density_section_opacity(ones(6), ones(2, 2), ones(2, 3))
    with pytest.raises(ValueError, match=r"to_object must be \(2,\)"):
        operators.composite_weights(*[in_order(ones(6))] * 3, ones(2, 4), ones(3), ones(2))
    weights = weights_of(ones(2, 3), ones(2, 3), ones(2, 3), ones(2, 4).cumsum(1))
    with pytest.raises(ValueError, match=r"colours and normals of all samples must be \(2, 3, 3\)"):
        operators.composite_colours(weights, *[in_order(ones(6, 4))] * 3)


def test_listed_samples_and_other_types_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    ops, called = TritonOps(), []

    class Kernels(ModuleType):
        def __getattr__(self, name: str) -> Any:
            return lambda *_: called.append(name)

    monkeypatch.setattr(triton_ops, "composite", Kernels("kernels"))
    sdf, normal, directions = torch.rand(2), torch.rand(2, 3), torch.rand(1, 3)
    interval, b, index = torch.rand(1, 5), torch.tensor(3.0), torch.tensor([1, 4])
    opacity, _ = ops.section_opacity(sdf, normal, directions, interval, b, 1.0, index)
    density = ops.density_section_opacity(sdf, interval, interval, index)
    sums = ops.accumulate_detached(interval.double(), PackedValues(sdf.double(), index))
    assert opacity.shape == density.shape == (2,) and sums.shape == (1,) and not called
    ops.section_opacity(sdf, normal, directions, interval[:, :2], b, 1.0)
    assert called == ["section_opacity"]


def test_the_probe_is_content_with_what_is_right_and_notices_what_is_not(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode():
        operators.probe(device)
    right = operators.composite_colours

    def without_gradient(weights: RayWeights, *values: PackedValues) -> Any:
        return right(RayWeights(*(x.detach() for x in weights)), *values)

    monkeypatch.setattr(operators, "composite_colours", without_gradient)
    with pytest.raises(RuntimeError, match="give different results"):
        operators.probe(device)


# ------------------------------------------------------------------ on a GPU


@not_interpreted
def test_rendering_can_be_captured_in_a_cuda_graph(device: torch.device) -> None:
    count, samples = 300, 32
    opacity = torch.rand(count, samples, device=device, requires_grad=True)
    edges = torch.rand(count, samples + 1, device=device).cumsum(1)

    def step() -> Tensor:
        found = weights_of(opacity, opacity, opacity, edges)
        (gradient,) = torch.autograd.grad(found.depth.square().sum() + found.distortion.sum(), opacity)
        return gradient

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        opacity.mul_(0.5)  # other values in the same place
    graph.replay()
    assert torch.equal(captured.clone(), step())
