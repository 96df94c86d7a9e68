"""The hash grid's backends against each other, finite differences and interpolation by hand."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor, nn

from surface_sos_ns.fields import grid_tcnn, grid_torch, hash_grid
from surface_sos_ns.fields.hash_grid import GridLayout, HashGrid, choose_backend, tcnn_problem, triton_problem

LAYOUTS = {
    "dense and hashed": GridLayout(levels=5, features=2, log2_entries=10, base_resolution=4, max_resolution=37),
    "all dense": GridLayout(levels=3, features=2, log2_entries=14, base_resolution=2, max_resolution=15),
    "all hashed": GridLayout(levels=2, features=1, log2_entries=6, base_resolution=9, max_resolution=200),
    "four features": GridLayout(levels=3, features=4, log2_entries=9, base_resolution=5, max_resolution=33),
}
on_cuda = pytest.mark.skipif(
    not torch.cuda.is_available() or tcnn_problem() is not None,
    reason="needs a CUDA device and the package tinycudann",
)


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


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_dense_level_is_trilinear_interpolation(backend):
    n = 6
    grid = HashGrid(GridLayout(levels=1, features=2, log2_entries=12, base_resolution=n, max_resolution=n), backend)
    with torch.no_grad():
        grid.table.copy_(random_table(grid.layout))
    # entry x + (n+1)(y + (n+1) z): z is the slowest axis of the table
    volume = grid.table.detach().double().numpy().reshape(n + 1, n + 1, n + 1, 2).transpose(2, 1, 0, 3)
    truth = RegularGridInterpolator([np.linspace(0, 1, n + 1)] * 3, volume)
    points = awkward_points()
    features, _ = grid(points)
    assert np.allclose(features.detach(), truth(points.clamp(0, 1).double().numpy()), atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_hashed_level_reads_the_entry_of_the_published_hash(backend):
    n, entries = 9, 64
    grid = HashGrid(GridLayout(levels=1, features=1, log2_entries=6, base_resolution=n, max_resolution=n), backend)
    with torch.no_grad():
        grid.table.copy_(torch.arange(float(entries))[:, None])
    vertices = np.array([[0, 0, 0], [1, 2, 3], [9, 9, 9], [5, 0, 8], [3, 7, 1]])
    expected = [((x * 1) ^ (y * 2654435761) ^ (z * 805459861)) % 2**32 % entries for x, y, z in vertices.tolist()]
    features, _ = grid(torch.from_numpy(vertices / n).float())
    assert np.allclose(features.detach()[:, 0], expected, atol=1e-3)


def test_the_jacobian_is_the_slope_of_the_features(layout):
    table = random_table(layout, dtype=torch.float64)
    points = torch.rand(40, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.98 + 0.01
    _, jacobian = grid_torch.encode(points, table, layout, jacobian=True)
    assert jacobian is not None and jacobian.shape == (40, layout.width, 3)
    step = 1e-7
    for axis in range(3):
        offset = torch.zeros(3, dtype=torch.float64)
        offset[axis] = step
        after, before = (grid_torch.encode(points + s * offset, table, layout)[0] for s in (1, -1))
        assert torch.allclose(jacobian[..., axis], (after - before) / (2 * step), atol=1e-4, rtol=1e-5)


def test_the_torch_twin_differentiates_to_points_and_table():
    layout = GridLayout(levels=2, features=2, log2_entries=6, base_resolution=3, max_resolution=5)
    table = random_table(layout, dtype=torch.float64).requires_grad_()
    points = (torch.rand(4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, t: grid_torch.encode(x, t, layout, True), (points, table))


# ------------------------------------------------------------------ numba against its torch twin


@pytest.mark.parametrize("jacobian", [False, True])
@pytest.mark.parametrize("count", [1, 255, 256, 257, 600])
def test_numba_equals_its_torch_twin(layout, jacobian, count):
    from surface_sos_ns.ops.cpu import grid as grid_numba

    points = awkward_points(600)[-count:]
    outputs, gradients = [], []
    generator = torch.Generator().manual_seed(4)
    weigh_features = torch.randn(count, layout.width, generator=generator)
    weigh_jacobian = torch.randn(count, layout.width, 3, generator=generator)
    for encode in (grid_torch.encode, grid_numba.encode):
        table = random_table(layout).requires_grad_()
        features, slopes = encode(points, table, layout, jacobian)
        loss = (features * weigh_features).sum()
        if slopes is not None:
            loss = loss + 0.1 * (slopes * weigh_jacobian).sum()
        loss.backward()
        outputs.append((features, slopes))
        gradients.append(table.grad)
    (features, slopes), (other_features, other_slopes) = outputs
    assert torch.allclose(features, other_features, atol=1e-4)
    assert (slopes is None) == (other_slopes is None) == (not jacobian)
    if slopes is not None:
        assert torch.allclose(slopes, other_slopes, atol=1e-2, rtol=1e-4)
    scale = gradients[0].abs().max()
    assert torch.allclose(gradients[0] / scale, gradients[1] / scale, atol=1e-5)


def test_numba_trains_through_the_jacobian_alone():
    from surface_sos_ns.ops.cpu import grid as grid_numba

    layout, gradients = LAYOUTS["dense and hashed"], []
    for encode in (grid_torch.encode, grid_numba.encode):
        table = random_table(layout).requires_grad_()
        _, slopes = encode(awkward_points(50), table, layout, True)
        assert slopes is not None
        slopes.square().mean().backward()
        gradients.append(table.grad)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-4 * float(gradients[0].abs().max()))


def test_numba_takes_no_points_and_refuses_nan():
    grid = HashGrid(LAYOUTS["all dense"], "numba")
    features, jacobian = grid(torch.zeros(0, 3), jacobian=True)
    assert features.shape == (0, 6) and jacobian is not None and jacobian.shape == (0, 6, 3)
    broken = torch.rand(5, 3)
    broken[2, 1] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        grid(broken)
    infinite = torch.tensor([[float("inf"), -float("inf"), 0.5]])
    clamped, _ = grid(infinite)
    assert torch.allclose(clamped, grid(torch.tensor([[1.0, 0.0, 0.5]]))[0])


@pytest.mark.parametrize("jacobian", [False, True])
def test_numbas_gradient_to_points_equals_the_twins(layout, jacobian):
    from surface_sos_ns.ops.cpu import grid as grid_numba

    generator, gradients = torch.Generator().manual_seed(6), []
    weigh_features = torch.randn(311, layout.width, generator=generator)
    weigh_jacobian = torch.randn(311, layout.width, 3, generator=generator)
    for encode in (grid_torch.encode, grid_numba.encode):
        points = awkward_points(297).requires_grad_()
        features, slopes = encode(points, random_table(layout), layout, jacobian)
        loss = (features * weigh_features).sum()
        if slopes is not None:
            loss = loss + (slopes * weigh_jacobian).sum()
        (gradient,) = torch.autograd.grad(loss, points)
        gradients.append(gradient)
    # cell borders, where the two may take either side, are left out: the corners and faces among the points
    strictly = ((awkward_points(297) % 1.0) != 0).all(-1)
    assert strictly.sum() > 290
    scale = float(gradients[0].abs().max())
    assert torch.allclose(gradients[0][strictly] / scale, gradients[1][strictly] / scale, atol=1e-5)
    outside = (awkward_points(297) < 0) | (awkward_points(297) > 1)
    assert outside.any() and (gradients[1][outside] == 0).all()


def test_numba_gives_the_same_for_any_number_of_threads():
    from surface_sos_ns.ops.cpu import threads

    layout, results, before = LAYOUTS["dense and hashed"], [], threads.thread_count()
    try:
        for count in (1, 3):
            threads.set_thread_count(count)
            grid = HashGrid(layout, "numba")
            with torch.no_grad():
                grid.table.copy_(random_table(layout))
            features, slopes = grid(awkward_points(9000), jacobian=True)
            assert slopes is not None
            (features.sum() + slopes.square().sum()).backward()
            results.append((features.detach(), slopes.detach(), grid.table.grad))
    finally:
        threads.set_thread_count(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


# ------------------------------------------------------------------ which backend


def test_auto_takes_what_is_there(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(hash_grid, "_numba_installed", lambda: True)
    assert choose_backend("auto", cpu) == "numba"
    monkeypatch.setattr(hash_grid, "_numba_installed", lambda: False)
    assert choose_backend("auto", cpu) == "torch"
    monkeypatch.setattr(hash_grid, "tcnn_problem", lambda: None)
    monkeypatch.setattr(hash_grid, "triton_problem", lambda device: None)
    assert choose_backend("auto", cuda) == "triton"
    assert choose_backend("auto", cuda, features=3) == "triton"
    assert choose_backend("tcnn", cuda) == "tcnn"
    monkeypatch.setattr(hash_grid, "triton_problem", lambda device: "no C compiler")
    assert choose_backend("auto", cuda) == "tcnn"
    assert choose_backend("auto", cuda, features=3) == "torch"
    monkeypatch.setattr(hash_grid, "tcnn_problem", lambda: "not installed")
    assert choose_backend("auto", cuda) == "torch"
    assert choose_backend("torch", cuda) == "torch"


def test_a_backend_asked_for_by_name_is_never_replaced(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    with pytest.raises(ValueError, match="needs the CPU"):
        choose_backend("numba", cuda)
    monkeypatch.setattr(hash_grid, "_numba_installed", lambda: False)
    with pytest.raises(ValueError, match="package numba"):
        choose_backend("numba", cpu)
    monkeypatch.setattr(hash_grid, "tcnn_problem", lambda: "built for another GPU")
    with pytest.raises(ValueError, match="built for another GPU"):
        choose_backend("tcnn", cuda)
    monkeypatch.setattr(hash_grid, "triton_problem", lambda device: "no C compiler")
    with pytest.raises(ValueError, match="no C compiler"):
        choose_backend("triton", cuda)


def test_triton_is_not_tried_on_a_cpu(monkeypatch):
    def never(device: torch.device) -> str:
        raise AssertionError("asked for Triton on a CPU")

    monkeypatch.setattr(hash_grid, "triton_problem", never)
    choose_backend("auto", torch.device("cpu"))
    with pytest.raises(ValueError, match="not CUDA"):
        HashGrid(LAYOUTS["all dense"], "triton")(torch.rand(3, 3))


def test_a_triton_that_does_not_work_is_named(monkeypatch):
    def probe(device: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler,\n  none at all\n")

    package = types.ModuleType("grid_triton")
    package.probe = probe  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "surface_sos_ns.ops.cuda.grid_triton", package)
    found = [object()]
    monkeypatch.setattr(hash_grid.importlib.util, "find_spec", lambda name: found[0])
    triton_problem.cache_clear()
    try:
        said = str(triton_problem(torch.device("cuda")))
        assert said.endswith("does not work here: RuntimeError: Failed to find C compiler, none at all")
        found[0] = None
        triton_problem.cache_clear()
        assert "not installed" in str(triton_problem(torch.device("cuda")))
    finally:
        triton_problem.cache_clear()


def test_a_grid_says_why_it_does_without_triton(monkeypatch):
    monkeypatch.setattr(hash_grid, "triton_problem", lambda device: "no C compiler")

    def described(requested: str, backend: str, device: str) -> str:
        table = types.SimpleNamespace(device=torch.device(device))
        return HashGrid.describe(types.SimpleNamespace(requested_backend=requested, backend=backend, table=table))

    assert described("auto", "torch", "cuda") == "torch (no C compiler)"
    assert described("auto", "triton", "cuda") == "triton"
    assert described("tcnn", "tcnn", "cuda") == "tcnn"
    assert described("auto", "numba", "cpu") == "numba"


def test_tiny_cuda_nn_is_not_imported_for_a_cpu(monkeypatch):
    def never() -> str:
        raise AssertionError("asked for tiny-cuda-nn on a CPU")

    monkeypatch.setattr(hash_grid, "tcnn_problem", never)
    choose_backend("auto", torch.device("cpu"))
    with pytest.raises(ValueError, match="not CUDA"):
        choose_backend("tcnn", torch.device("cpu"))


def test_a_missing_tiny_cuda_nn_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    monkeypatch.setattr(hash_grid.importlib.util, "find_spec", lambda name: object())
    tcnn_problem.cache_clear()
    try:
        assert "does not load" in str(tcnn_problem())
    finally:
        tcnn_problem.cache_clear()


# ------------------------------------------------------------------ tiny-cuda-nn


class EmulatedEncoding(nn.Module):
    """What tiny-cuda-nn documents and its `grid.h` does for one linearly interpolated level, in plain torch."""

    def __init__(self, n_input_dims: int, encoding_config: dict, seed: int = 1337, dtype: torch.dtype | None = None):
        super().__init__()
        config = dict(encoding_config)
        assert n_input_dims == 3 and dtype == torch.float32
        assert config.pop("otype") == "Grid" and config.pop("type") == "Hash"
        assert config.pop("interpolation") == "Linear" and config.pop("n_levels") == 1
        self.features, base = config.pop("n_features_per_level"), config.pop("base_resolution")
        most = 2 ** config.pop("log2_hashmap_size")
        assert not config, f"options that this emulation does not know: {config}"
        self.scale = float(base) - 1.0
        self.resolution = int(np.ceil(self.scale)) + 1
        self.size = min(-(-(self.resolution**3) // 8) * 8, most)
        self.params = nn.Parameter(torch.zeros(self.size * self.features))

    def forward(self, x: Tensor) -> Tensor:
        assert self.params.shape == (self.size * self.features,)
        position = (x.double() * self.scale + 0.5).float()  # fused multiply-add
        cell = position.floor()
        fraction, table = position - cell, self.params.reshape(self.size, self.features)
        result = x.new_zeros(x.shape[0], self.features)
        for corner in range(8):
            offset = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
            vertex = cell.long() + offset
            dense = (vertex * torch.tensor([1, self.resolution, self.resolution**2])).sum(-1)
            primes = vertex * torch.tensor([1, 2654435761, 805459861])
            hashed = primes[:, 0] ^ primes[:, 1] ^ primes[:, 2]
            index = (hashed if self.size < self.resolution**3 else dense) % 2**32 % self.size
            weight = torch.where(offset.bool(), fraction, 1 - fraction).prod(-1, keepdim=True)
            result = result + weight * table[index]
        return result


@pytest.fixture
def emulated(monkeypatch):
    """`import tinycudann` gives the emulation."""
    package = types.ModuleType("tinycudann")
    package.Encoding = EmulatedEncoding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tinycudann", package)
    grid_tcnn._level_encoding.cache_clear()
    yield
    grid_tcnn._level_encoding.cache_clear()


def compare_with_twin(layout: GridLayout, device: str) -> None:
    points = awkward_points().to(device)
    generator = torch.Generator().manual_seed(5)
    weigh = torch.randn(points.shape[0], layout.width, 4, generator=generator).to(device)
    results = []
    for encode in (grid_torch.encode, grid_tcnn.encode):
        table = random_table(layout).to(device).requires_grad_()
        features, slopes = encode(points, table, layout, True)
        assert slopes is not None
        ((features * weigh[..., 0]).sum() + 0.1 * (slopes * weigh[..., 1:]).sum()).backward()
        assert torch.allclose(features, encode(points, table, layout)[0], atol=1e-3)
        results.append((features, slopes / slopes.abs().max(), table.grad / table.grad.abs().max()))
    # fp32 positions in tiny-cuda-nn are off by up to 1e-7 of the cube, so 1e-7 * resolution of a cell
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)


def test_one_tiny_cuda_nn_level_after_the_other_is_our_grid(layout, emulated):
    compare_with_twin(layout, "cpu")


def test_the_tcnn_backend_takes_no_points_and_refuses_what_it_lacks(emulated):
    layout = LAYOUTS["all dense"]
    features, slopes = grid_tcnn.encode(torch.zeros(0, 3), random_table(layout), layout, True)
    assert features.shape == (0, 6) and slopes is not None and slopes.shape == (0, 6, 3)
    with pytest.raises(ValueError, match="no gradient to points"):
        grid_tcnn.encode(torch.rand(2, 3, requires_grad=True), random_table(layout), layout)
    odd = GridLayout(levels=2, features=3, log2_entries=8, base_resolution=3, max_resolution=5)
    with pytest.raises(ValueError, match="not 3"):
        grid_tcnn.encode(torch.rand(2, 3), random_table(odd), odd)


@on_cuda
def test_tiny_cuda_nn_equals_the_torch_twin(layout):
    grid_tcnn._level_encoding.cache_clear()
    compare_with_twin(layout, "cuda")


@on_cuda
def test_tiny_cuda_nn_trains_features_and_slopes():
    layout = LAYOUTS["dense and hashed"]
    grid = HashGrid(layout, "tcnn").cuda()
    assert grid.backend == "tcnn"
    readout = nn.Linear(layout.width, 1).cuda()
    optimiser = torch.optim.Adam([*grid.parameters(), *readout.parameters()], lr=1e-2)
    losses = []
    for _ in range(60):
        points = torch.rand(1000, 3, device="cuda")
        features, slopes = grid(points, jacobian=True)
        gradient = torch.einsum("o,pod->pd", readout.weight[0], slopes)
        loss = (readout(features)[:, 0] - points[:, 0]).square().mean()
        loss = loss + 0.1 * (gradient - torch.tensor([1.0, 0.0, 0.0], device="cuda")).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]
