"""Which back-end computes: what 'auto' takes, what is refused, and what is left alone."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from surface_sos_ns.ops import choose
from surface_sos_ns.ops.choose import choose_ops, tcnn_problem, triton_problem
from surface_sos_ns.ops.cuda.tcnn_ops import TcnnOps
from surface_sos_ns.ops.cuda.triton_ops import TritonOps
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps, use_ops
from surface_sos_ns.utils.errors import UserError
from tests.helpers.small_scene import TINY

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def set_problems(monkeypatch: pytest.MonkeyPatch, **problems: str | None) -> None:
    """Have packages work (None) or be missing or broken, with these reasons."""
    for package, problem in problems.items():
        monkeypatch.setattr(choose, f"{package}_problem", lambda *_, problem=problem: problem)


def test_auto_takes_numba_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    set_problems(monkeypatch, numba=None)
    assert choose_ops("auto", CPU).describe() == choose_ops("numba", CPU).describe() == "numba"
    set_problems(monkeypatch, numba="not installed")
    assert choose_ops("auto", CPU) is TORCH


def test_auto_takes_triton_on_cuda_or_else_tiny_cuda_nn_or_else_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def kind(requested: choose.Backend) -> type[TorchOps]:
        return type(choose_ops(requested, CUDA))

    set_problems(monkeypatch, triton=None, tcnn=None)
    assert (kind("auto"), kind("triton"), kind("tcnn")) == (TritonOps, TritonOps, TcnnOps)
    set_problems(monkeypatch, triton="no C compiler")
    assert kind("auto") is TcnnOps and not choose_ops("auto", CUDA).static
    set_problems(monkeypatch, tcnn="not installed")
    assert kind("auto") is TorchOps and choose_ops("auto", CUDA).static


def test_other_devices_get_torch() -> None:
    assert choose_ops("auto", torch.device("meta")) is TORCH


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_torch_by_name_is_torch_for_everything(device: torch.device) -> None:
    found = choose_ops("torch", device)
    assert type(found) is TorchOps and found.static == (device.type == "cuda")
    assert TORCH.describe() == "torch"


@pytest.mark.parametrize("backend", ["numba", "triton", "tcnn"])
def test_a_backend_asked_for_by_name_is_never_replaced(
    backend: choose.Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = (CPU, CUDA) if backend == "numba" else (CUDA, CPU)
    set_problems(monkeypatch, **{backend: "it is broken"})
    with pytest.raises(UserError, match=f"scene.backend {backend} needs .*: it is broken"):
        choose_ops(backend, own)
    set_problems(monkeypatch, **{backend: None})
    with pytest.raises(UserError, match=f"scene.backend {backend} needs .*the device is not"):
        choose_ops(backend, other)


def test_what_cuda_needs_is_not_tried_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> str:
        raise AssertionError("asked for a package for CUDA on a CPU")

    for package in ("triton", "tcnn"):
        monkeypatch.setattr(choose, f"{package}_problem", never)
    choose_ops("auto", CPU)
    for backend in ("triton", "tcnn"):
        with pytest.raises(UserError, match="not CUDA"):
            choose_ops(backend, CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("requested", "triton", "said"),
    [
        ("auto", None, "triton for hash grid, sampling, rendering and Adam, torch for the networks"),
        ("auto", "no C compiler", "torch (no C compiler)"),
        ("triton", None, "triton for hash grid, sampling, rendering and Adam, torch for the networks"),
        ("tcnn", "no C compiler", "tcnn for the hash grid, torch for all else"),
    ],
)
def test_one_line_says_what_runs_and_why_not_more(
    requested: choose.Backend, triton: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_problems(monkeypatch, triton=triton, tcnn=None if requested == "tcnn" else "not installed")
    assert choose_ops(requested, CUDA).describe() == said


# ------------------------------------------------------------------ why a package cannot be used


@pytest.mark.parametrize("broken", ["grid_triton", "composite"])
def test_a_triton_that_does_not_work_is_named(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grid_triton", "composite"):

        def probe(device: torch.device, name: str = name) -> None:
            if name == broken:
                raise RuntimeError("Failed to find C compiler,\n  none at all\n")

        package = types.ModuleType(name)
        package.probe = probe  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"surface_sos_ns.ops.cuda.{name}", package)
    found: list[object] = [object()]
    monkeypatch.setattr(choose.importlib.util, "find_spec", lambda name: found[0])
    triton_problem.cache_clear()
    try:
        said = str(triton_problem(CUDA))
        assert said.endswith("does not work here: RuntimeError: Failed to find C compiler, none at all")
        found[0] = None
        triton_problem.cache_clear()
        assert "not installed" in str(triton_problem(CUDA))
    finally:
        triton_problem.cache_clear()


def test_a_tiny_cuda_nn_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    monkeypatch.setattr(choose.importlib.util, "find_spec", lambda name: object())
    tcnn_problem.cache_clear()
    try:
        assert "does not load" in str(tcnn_problem())
    finally:
        tcnn_problem.cache_clear()


def test_no_extension_is_compiled_by_starting() -> None:
    """Packages that compile theirs do it at the first import of their back-end; nobody here may import that."""
    import surface_sos_ns.bench.baselines
    import surface_sos_ns.plugin.methods  # noqa: F401

    assert "nerfacc" in sys.modules, "nerfstudio imports it; without that this test says nothing"
    compiling = ("nerfacc.cuda._backend", "gsplat.cuda._backend")
    assert [name for name in compiling if name in sys.modules] == []


# ------------------------------------------------------------------ who computes with them


def test_all_parts_of_a_module_are_handed_the_operations() -> None:
    """Fields, the hash grids in them, and whatever else computes."""
    from surface_sos_ns.models.surface_sos.scene import SurfaceSOS

    scene, ours = SurfaceSOS(TINY, views=1), TorchOps()
    parts = [part for part in scene.modules() if hasattr(part, "ops")]
    use_ops(scene, ours)
    assert len(parts) > 10 and all(part.ops is ours for part in parts)
