"""The hash grid: its layout, interpolation by hand, finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

from surface_sos_ns.ops import hash_grid
from surface_sos_ns.ops.cpu import threads
from surface_sos_ns.ops.cpu.numba_ops import NumbaOps
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps

LAYOUTS = {
    "dense and hashed": GridLayout(levels=5, features=2, log2_entries=10, base_resolution=4, max_resolution=37),
    "all dense": GridLayout(levels=3, features=2, log2_entries=14, base_resolution=2, max_resolution=15),
    "all hashed": GridLayout(levels=2, features=1, log2_entries=6, base_resolution=9, max_resolution=200),
    "four features": GridLayout(levels=3, features=4, log2_entries=9, base_resolution=5, max_resolution=33),
}
each = pytest.mark.parametrize("ops", [TORCH, NumbaOps()], ids=["torch", "numba"])


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def layout(request: pytest.FixtureRequest) -> GridLayout:
    return request.param


def random_table(layout: GridLayout, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(int(layout.entries.sum()), layout.features, generator=generator, dtype=dtype)


def awkward_points(count: int = 300) -> Tensor:
    """Random points, the cube's corners and faces, and points outside it."""
    generator = torch.Generator().manual_seed(1)
    inside = torch.rand(count, 3, generator=generator)
    corners = torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
    faces = torch.tensor([[0.0, 0.3, 0.7], [0.4, 1.0, 0.2], [0.9, 0.1, 1.0]])
    outside = torch.tensor([[-0.5, 0.3, 0.6], [0.2, 1.7, 0.4], [-3.0, 9.0, 0.5]])
    return torch.cat([inside, corners, faces, outside])


# ------------------------------------------------------------------ layout


def test_the_papers_layout():
    layout = GridLayout()
    assert layout.width == 32
    assert layout.resolutions[0] == 16 and layout.resolutions[-1] == 2048
    growth = layout.resolutions[1:] / layout.resolutions[:-1]
    assert np.allclose(growth, 128 ** (1 / 15), rtol=0.05)
    # 17^3 .. 79^3 vertices fit into 2^19 entries
    assert layout.hashed.tolist() == [(int(n) + 1) ** 3 > 2**19 for n in layout.resolutions]
    assert 0 < layout.hashed.sum() < 16
    assert layout.offsets[-1] + layout.entries[-1] == layout.entries.sum()


@pytest.mark.parametrize(
    "sizes", [{"levels": 0}, {"features": 0}, {"base_resolution": 1}, {"base_resolution": 32, "max_resolution": 16}]
)
def test_impossible_layouts_are_refused(sizes):
    with pytest.raises(ValueError, match="hash grid|max_resolution"):
        GridLayout(**sizes)


# ------------------------------------------------------------------ values against independent interpolation


@each
def test_a_dense_level_is_trilinear_interpolation(ops: TorchOps):
    n = 6
    layout = GridLayout(levels=1, features=2, log2_entries=12, base_resolution=n, max_resolution=n)
    table = random_table(layout)
    # entry x + (n+1)(y + (n+1) z): z is the slowest axis of the table
    volume = table.double().numpy().reshape(n + 1, n + 1, n + 1, 2).transpose(2, 1, 0, 3)
    truth = RegularGridInterpolator([np.linspace(0, 1, n + 1)] * 3, volume)
    points = awkward_points()
    features, _ = ops.hash_grid(points, table, layout)
    assert np.allclose(features, truth(points.clamp(0, 1).double().numpy()), atol=1e-5)


@each
def test_a_hashed_level_reads_the_entry_of_the_published_hash(ops: TorchOps):
    n, entries = 9, 64
    layout = GridLayout(levels=1, features=1, log2_entries=6, base_resolution=n, max_resolution=n)
    vertices = np.array([[0, 0, 0], [1, 2, 3], [9, 9, 9], [5, 0, 8], [3, 7, 1]])
    expected = [((x * 1) ^ (y * 2654435761) ^ (z * 805459861)) % 2**32 % entries for x, y, z in vertices.tolist()]
    features, _ = ops.hash_grid(torch.from_numpy(vertices / n).float(), torch.arange(float(entries))[:, None], layout)
    assert np.allclose(features[:, 0], expected, atol=1e-3)


def test_the_jacobian_is_the_slope_of_the_features(layout):
    table = random_table(layout, dtype=torch.float64)
    points = torch.rand(40, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.98 + 0.01
    _, jacobian = hash_grid.encode(points, table, layout, jacobian=True)
    assert jacobian is not None and jacobian.shape == (40, layout.width, 3)
    step = 1e-7
    for axis in range(3):
        offset = torch.zeros(3, dtype=torch.float64)
        offset[axis] = step
        after, before = (hash_grid.encode(points + s * offset, table, layout)[0] for s in (1, -1))
        assert torch.allclose(jacobian[..., axis], (after - before) / (2 * step), atol=1e-4, rtol=1e-5)


def test_it_differentiates_to_points_and_table():
    layout = GridLayout(levels=2, features=2, log2_entries=6, base_resolution=3, max_resolution=5)
    table = random_table(layout, dtype=torch.float64).requires_grad_()
    points = (torch.rand(4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, t: hash_grid.encode(x, t, layout, True), (points, table))


# ------------------------------------------------------------------ compiled


def test_compiled_code_refuses_nan_and_clamps_infinity():
    layout, broken = LAYOUTS["all dense"], torch.rand(5, 3)
    broken[2, 1] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        NumbaOps().hash_grid(broken, random_table(layout), layout)
    infinite, clamped = torch.tensor([[float("inf"), -float("inf"), 0.5]]), torch.tensor([[1.0, 0.0, 0.5]])
    one, two = (NumbaOps().hash_grid(points, random_table(layout), layout)[0] for points in (infinite, clamped))
    assert torch.equal(one, two)


def test_any_number_of_threads_gives_the_same():
    layout, results, before = LAYOUTS["dense and hashed"], [], threads.thread_count()
    try:
        for count in (1, 3):
            threads.set_thread_count(count)
            table = random_table(layout).requires_grad_()
            features, slopes = NumbaOps().hash_grid(awkward_points(9000), table, layout, jacobian=True)
            assert slopes is not None
            (features.sum() + slopes.square().sum()).backward()
            results.append((features.detach(), slopes.detach(), table.grad))
    finally:
        threads.set_thread_count(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
