"""The hash grid's Triton kernels: against finite differences and the published hash, and what is special about them.

The same tests run on a GPU where there is one, and on the CPU through Triton's interpreter. That needs a process in
which it was switched on before the first import, so `test_kernels_in_the_interpreter` starts one for the tests of all
of Triton's kernels, which compares them with torch as well (`test_every_operation.py`). To see its tests one by one:
`TRITON_INTERPRET=1 pytest tests/ops/test_triton_*.py tests/ops/test_every_operation.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from surface_sos_ns.fields.hash_grid import HashGrid
from surface_sos_ns.ops import hash_grid
from surface_sos_ns.ops.cuda import grid_operator
from surface_sos_ns.ops.cuda.triton_ops import TritonOps
from surface_sos_ns.ops.layout import GridLayout
from tests.helpers.paths import ROOT
from tests.helpers.triton_kernels import needs_triton, not_interpreted

pytestmark = needs_triton

TWO = GridLayout(levels=2, features=2, log2_entries=9, base_resolution=4, max_resolution=37)
triton_encode = grid_operator.encode


def random_table(layout: GridLayout, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(int(layout.entries.sum()), layout.features, generator=generator).to(device)


def points_on_rays(rays: int, samples: int, device: torch.device) -> Tensor:
    """Samples close to each other, ray by ray: several in a cell of a coarse level, none in one of a fine level."""
    generator = torch.Generator().manual_seed(1)
    start = torch.rand(rays, 1, 3, generator=generator) * 0.6 + 0.2
    step = torch.randn(rays, 1, 3, generator=generator) * 0.015
    return (start + step * torch.arange(samples)[:, None]).reshape(-1, 3).to(device)


def awkward_points(device: torch.device) -> Tensor:
    """Corners and faces of the cube, points outside it, and some on rays."""
    corners = torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
    faces = torch.tensor([[0.0, 0.3, 0.7], [0.4, 1.0, 0.2], [0.9, 0.1, 1.0]])
    outside = torch.tensor([[-0.5, 0.3, 0.6], [0.2, 1.7, 0.4], [-3.0, 9.0, 0.5], [0.3, 0.2, float("inf")]])
    return torch.cat([corners.to(device), faces.to(device), outside.to(device), points_on_rays(4, 9, device)])


def weights(*shape: int, device: torch.device) -> Tensor:
    """Gradients of outputs, a third of the points without any."""
    generator = torch.Generator().manual_seed(2)
    result = torch.randn(*shape, generator=generator)
    result[2::3] = 0
    return result.to(device)


def run(
    encode: Callable[..., Any],
    points: Tensor,
    table: Tensor,
    layout: GridLayout,
    to_points: bool = True,
) -> dict[str, Tensor]:
    """Outputs and gradients of a weighted sum of features and Jacobian."""
    points = points.detach().clone().requires_grad_(to_points)
    table = table.detach().clone().requires_grad_()
    features, slopes = encode(points, table, layout, True)
    loss = (features * weights(*features.shape, device=points.device)).sum()
    (loss + 0.1 * (slopes * weights(*slopes.shape, device=points.device)).sum()).backward()
    results = {"features": features.detach(), "table": table.grad, "slopes": slopes.detach()}
    if to_points:
        results["points"] = points.grad
    return results


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 2e-5) -> None:
    assert ours.keys() == theirs.keys()
    for name, truth in theirs.items():
        assert ours[name].shape == truth.shape and ours[name].dtype == truth.dtype
        assert ours[name].is_contiguous()
        worst = (ours[name] - truth).abs().max() / truth.abs().max()
        assert worst < tolerance, f"{name} off by {float(worst):.1e} of its largest"


# ------------------------------------------------------------------ against torch


def test_samples_of_one_cell_are_summed_whatever_lies_between(device):
    """Runs of equal cells, broken and taken up again, ends at every place of a thread's run."""
    layout = GridLayout(levels=1, features=2, log2_entries=9, base_resolution=4, max_resolution=4)
    a, b = torch.tensor([0.3, 0.6, 0.1]), torch.tensor([0.9, 0.6, 0.1])
    orders = ["aaaa", "abab", "aabb", "abba", "baaa", "aaab", "bbbb", "ab"]
    points = torch.stack([a if letter == "a" else b for letter in "".join(orders)]).to(device)
    table = random_table(layout, device)
    ours, theirs = (run(encode, points, table, layout) for encode in (triton_encode, hash_grid.encode))
    assert_close(ours, theirs)
    assert int((ours["table"] != 0).any(1).sum()) == 16  # two cells of eight vertices


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_gradient_of_one_direction_is_a_gradient(axis, device):
    points, table, gradients = points_on_rays(1, 6, device), random_table(TWO, device), []
    for encode in (triton_encode, hash_grid.encode):
        leaf = table.clone().requires_grad_()
        slopes = encode(points, leaf, TWO, True)[1]
        (slopes[..., axis] * weights(*slopes.shape[:2], device=device)).sum().backward()
        gradients.append({"table": leaf.grad})
    assert_close(*gradients)


@pytest.mark.parametrize("kind", ["rows of a wider matrix", "one row for all", "expanded", "transposed"])
def test_gradients_need_not_be_contiguous(kind, device):
    points, table, gradients = awkward_points(device), random_table(TWO, device), []
    for encode in (triton_encode, hash_grid.encode):
        leaf = table.clone().requires_grad_()
        features, slopes = encode(points, leaf, TWO, True)
        if kind == "rows of a wider matrix":
            wide = torch.cat([points.nan_to_num(posinf=1.0), features], -1)
            (wide * weights(*wide.shape, device=device)).sum().backward()
        elif kind == "expanded":
            (features.sum() + slopes.sum()).backward()
        elif kind == "one row for all":
            features.sum(0).backward(weights(features.shape[1], device=device))
        else:
            other = weights(features.shape[1], features.shape[0], device=device)
            ((features.T * other).sum() + (slopes.permute(2, 1, 0) * other).sum()).backward()
        gradients.append({"table": leaf.grad})
    assert_close(*gradients)


def test_what_needs_no_gradient_gets_none(device):
    points, table = awkward_points(device), random_table(TWO, device)
    with_points = run(triton_encode, points, table, TWO)
    assert_close(
        run(triton_encode, points, table, TWO, to_points=False), {k: v for k, v in with_points.items() if k != "points"}
    )
    points.requires_grad_()
    features, slopes = triton_encode(points, table, TWO, True)
    loss = (features * weights(*features.shape, device=device)).sum()
    (loss + 0.1 * (slopes * weights(*slopes.shape, device=device)).sum()).backward()
    assert table.grad is None and torch.allclose(points.grad, with_points["points"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_table_is_summed_in_single_precision(dtype, device):
    points, table = awkward_points(device), random_table(TWO, device).to(dtype)
    ours, theirs = (run(triton_encode, points, values, TWO) for values in (table, table.float()))
    assert ours["table"].dtype == dtype
    theirs["table"] = theirs["table"].to(dtype)
    assert_close(ours, theirs, 1e-2)  # sums in another order round differently


def test_the_grid_hands_over_to_the_kernels(device):
    grid = HashGrid(TWO, TritonOps()).to(device)
    features, _ = grid(awkward_points(device))
    assert type(features.grad_fn) is type(triton_encode(awkward_points(device), grid.table, TWO)[0].grad_fn)


def test_the_probe_is_content(device):
    from surface_sos_ns.ops.cuda import grid_triton

    with torch.inference_mode():
        grid_triton.probe(device)


def test_the_probe_notices_wrong_results(monkeypatch, device):
    from surface_sos_ns.ops.cuda import grid_triton

    class Doubled(torch.autograd.Function):
        """Right forward, wrong gradient."""

        @staticmethod
        def forward(ctx: Any, x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool) -> Any:
            features, slopes = hash_grid.encode(x, table, layout, jacobian)
            ctx.save_for_backward(x, table)
            return features, slopes

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            x, table = ctx.saved_tensors
            return torch.zeros_like(x), torch.zeros_like(table), None, None

    monkeypatch.setattr(grid_triton, "encode", Doubled.apply)
    with pytest.raises(RuntimeError, match="give different results"):
        grid_triton.probe(device)


def test_torch_is_told_right_shapes_and_gradients(device):
    """By torch's own check of operators: schema, fake tensors, autograd, forward and backward as traced."""
    points, table = points_on_rays(2, 5, device).requires_grad_(), random_table(TWO, device).requires_grad_()
    sizes = grid_operator._sizes(TWO)
    for jacobian in (False, True):
        torch.library.opcheck(grid_operator._gather, (points, table, sizes, jacobian), atol=1e-4, rtol=1e-4)
    features, slopes = (part.detach() for part in grid_operator._gather(points, table, sizes, True))
    points, table = points.detach(), table.detach()
    for gradients in ((features, None), (None, slopes), (features, slopes)):
        torch.library.opcheck(grid_operator._scatter, (points, *gradients, sizes), atol=1e-4, rtol=1e-4)
        torch.library.opcheck(
            grid_operator._scatter_to_points, (points, table, *gradients, sizes), atol=1e-2, rtol=1e-4
        )


# ------------------------------------------------------------------ against independent truth


def test_a_hashed_level_reads_the_entry_of_the_published_hash(device):
    n = 2048
    layout = GridLayout(levels=1, features=1, log2_entries=19, base_resolution=n, max_resolution=n)
    table = torch.arange(2.0**19, device=device)[:, None]
    vertices = torch.tensor([[0, 0, 0], [1, 2, 3], [n, n, n], [1500, 0, 8], [3, 2047, 1]])
    expected = [((x * 1) ^ (y * 2654435761) ^ (z * 805459861)) % 2**32 % 2**19 for x, y, z in vertices.tolist()]
    features, _ = triton_encode((vertices / n).float().to(device), table, layout)
    assert features[:, 0].tolist() == expected


def test_the_table_gradient_is_the_adjoint_of_the_encoding(device):
    """The encoding is linear in the table: a weighted sum of its results is a product of table and gradient."""
    points, table = awkward_points(device), random_table(TWO, device)
    results = run(triton_encode, points, table, TWO, to_points=False)
    value = (results["features"] * weights(*results["features"].shape, device=device)).double().sum()
    value = value + 0.1 * (results["slopes"] * weights(*results["slopes"].shape, device=device)).double().sum()
    product = (table.double() * results["table"].double()).sum()
    assert torch.isclose(value, product, rtol=0, atol=1e-6 * float(table.norm() * results["table"].norm()))


def test_gradients_to_points_are_the_slopes_of_the_outputs(device):
    """Within a cell all outputs are linear along each axis, so that differences over wide steps are exact."""
    layout = GridLayout(levels=2, features=2, log2_entries=6, base_resolution=3, max_resolution=6)
    table, step = random_table(layout, device), 0.02
    generator = torch.Generator().manual_seed(4)
    cell = torch.randint(0, 6, (30, 3), generator=generator)
    points = ((cell + 0.3 + 0.4 * torch.rand(30, 3, generator=generator)) / 6).to(device)
    leaf = points.clone().requires_grad_()
    features, slopes = triton_encode(leaf, table, layout, True)
    weigh, weigh_slopes = weights(*features.shape, device=device), weights(*slopes.shape, device=device)
    ((features * weigh).sum() + (slopes * weigh_slopes).sum()).backward()
    for axis in range(3):
        offset = torch.zeros(3, device=device)
        offset[axis] = step
        (after, slopes_after), (before, slopes_before) = (
            triton_encode(points + side * offset, table, layout, True) for side in (1, -1)
        )
        assert torch.allclose(slopes[..., axis], (after - before) / (2 * step), atol=1e-3)
        difference = ((after - before) * weigh).sum(1) + ((slopes_after - slopes_before) * weigh_slopes).sum((1, 2))
        assert torch.allclose(leaf.grad[:, axis], difference / (2 * step), atol=5e-4 * float(leaf.grad.abs().max()))


# ------------------------------------------------------------------ what cannot be done


def test_nan_stays_with_its_point(device):
    points, table = awkward_points(device), random_table(TWO, device)
    broken = points.clone()
    broken[5, 1] = float("nan")
    fine = torch.arange(len(points), device=device) != 5
    features, slopes = triton_encode(broken, table, TWO, True)
    truth, true_slopes = hash_grid.encode(points, table, TWO, True)
    assert features[5].isnan().all() and slopes[5].isnan().any()
    assert torch.allclose(features[fine], truth[fine], atol=1e-5)
    assert torch.allclose(slopes[fine], true_slopes[fine], atol=1e-3)
    assert run(triton_encode, broken, table, TWO, to_points=False)["table"].shape == table.shape


def test_second_derivatives_through_autograd_are_refused(device):
    points, table = awkward_points(device).requires_grad_(), random_table(TWO, device).requires_grad_()
    features, _ = triton_encode(points, table, TWO)
    (gradient,) = torch.autograd.grad(features.square().sum(), points, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_other_tensors_are_refused(device):
    points, table = awkward_points(device), random_table(TWO, device)
    with pytest.raises(ValueError, match="float32 points"):
        triton_encode(points.double(), table, TWO)
    with pytest.raises(ValueError, match="float32 points"):
        triton_encode(points[:, :2], table, TWO)
    with pytest.raises(ValueError, match="not a table"):
        triton_encode(points, table.double(), TWO)
    with pytest.raises(ValueError, match="not a table"):
        triton_encode(points, table[1:], TWO)
    with pytest.raises(ValueError, match="32 bits"):
        huge = GridLayout(levels=1, features=2, log2_entries=30, base_resolution=2000, max_resolution=2000)
        triton_encode(points, table, huge)


@not_interpreted
def test_cpu_tensors_are_refused():
    cpu = torch.device("cpu")
    with pytest.raises(ValueError, match="CUDA"):
        grid_operator.encode(awkward_points(cpu), random_table(TWO, cpu), TWO)


# ------------------------------------------------------------------ without and with a GPU


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_fake_tensors_need_neither_triton_nor_a_gpu(where, monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    monkeypatch.setitem(sys.modules, "surface_sos_ns.ops.cuda.grid_triton", None)  # importing it raises
    encode = TritonOps().hash_grid
    with FakeTensorMode():
        points = torch.empty(70, 3, device=where)
        table = torch.empty(int(TWO.entries.sum()), 2, device=where).requires_grad_()
        features, slopes = encode(points, table, TWO, True)
        assert slopes is not None and encode(points, table, TWO)[1] is None
        assert (features.shape, slopes.shape) == ((70, 4), (70, 4, 3))
        assert {(part.dtype, part.device.type, part.requires_grad) for part in (features, slopes)} == {
            (torch.float32, where, True)
        }
        if where == "cpu":  # the backward of fake CUDA tensors asks the driver
            points.requires_grad_()
            features, slopes = encode(points, table, TWO, True)
            gradients = torch.autograd.grad(features.sum() + slopes.sum(), (points, table))
            assert [gradient.shape for gradient in gradients] == [points.shape, table.shape]


@pytest.mark.seconds(40)
@not_interpreted
def test_kernels_in_the_interpreter():
    """In two processes at once, each with about half of the work."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    here = Path(__file__).parent
    quiet = ["-q", "-p", "no:cacheprovider", "-W", "ignore"]
    command = [sys.executable, "-m", "pytest", *quiet]
    files = [sorted(here.glob("test_triton_*.py")), [here / "test_every_operation.py"]]

    def run(files):
        return subprocess.run(
            [*command, *files], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600
        )

    with ThreadPoolExecutor() as pool:
        for done, least in zip(pool.map(run, files), (60, 240), strict=True):
            assert done.returncode == 0, done.stdout + done.stderr
            passed = re.search(r"(\d+) passed", done.stdout)
            assert passed is not None and int(passed[1]) >= least, done.stdout


@not_interpreted
def test_the_papers_grid_on_a_gpu(device):
    layout = GridLayout()
    points, table = points_on_rays(800, 24, device), random_table(layout, device)
    ours, theirs = (run(encode, points, table, layout) for encode in (triton_encode, hash_grid.encode))
    assert_close(ours, theirs, 1e-3)


@not_interpreted
def test_a_step_can_be_captured_in_a_cuda_graph(device):
    points = points_on_rays(50, 24, device).requires_grad_()
    table = random_table(TWO, device).requires_grad_()

    def step() -> Tensor:
        features, slopes = triton_encode(points, table, TWO, True)
        loss = features.square().mean() + 0.1 * slopes.square().mean()
        points.grad = table.grad = None
        loss.backward()
        return loss.detach()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    captured_points, captured_table = points.grad, table.grad
    with torch.no_grad():
        points.add_(0.01)  # other values in the same place
    graph.replay()
    results = {"loss": captured.clone(), "points": captured_points.clone(), "table": captured_table.clone()}
    loss = step()
    assert_close(results, {"loss": loss, "points": points.grad, "table": table.grad})


@not_interpreted
def test_nan_points_leave_the_gpu_usable(device):
    layout, points = GridLayout(), torch.full((1000, 3), float("nan"), device=device)
    results = run(triton_encode, points, random_table(layout, device), layout, to_points=False)
    torch.cuda.synchronize()
    assert results["features"].isnan().all()
