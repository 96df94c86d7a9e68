"""Adam's Triton kernel: what is special about it. `test_every_operation.py` compares it with torch."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from surface_sos_ns.ops.cuda import adam
from surface_sos_ns.ops.cuda.triton_ops import TritonOps
from surface_sos_ns.ops.torch_ops import TORCH
from surface_sos_ns.training.optimizer import SparseAdam, make_capturable
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.no_synchronisation import NoSynchronisation
from tests.helpers.triton_kernels import (
    compile_kernel,
    each_capability,
    needs_triton,
    not_interpreted,
)

pytestmark = needs_triton


def test_a_run_is_that_of_torch(device: torch.device) -> None:
    results = []
    for ops in (TritonOps(), TORCH):
        table = nn.Parameter(torch.linspace(-1, 1, 3000, device=device).view(1500, 2))
        optimizer = SparseAdam([table], ops=ops)
        make_capturable([optimizer])
        for step in range(20):
            numbers = torch.randn(1500, 2, generator=torch.Generator().manual_seed(step))
            numbers[step % 3 :: 3] = 0
            table.grad = numbers.to(device)
            optimizer.step()
        results.append(table.detach())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_what_has_no_gradient_is_not_written(device: torch.device) -> None:
    nan = torch.full((2000,), float("nan"), device=device)
    value, mean, square = nan.clone(), nan.clone(), nan.clone()
    gradient = torch.zeros(2000, device=device)
    value[7], mean[7], square[7], gradient[7] = 0.0, 0.0, 0.0, 2.0
    adam.sparse_adam_step(value, gradient, mean, square, 0.5, (0.9, 0.99), 1e-15, 1)
    assert value[7] == pytest.approx(-0.5) and mean[7] == pytest.approx(0.2) and square[7] == pytest.approx(0.04)
    for tensor in (value, mean, square):
        assert int(tensor.isnan().sum()) == 1999


def test_a_gradient_that_is_no_number_is_seen(device: torch.device) -> None:
    value, mean, square = (torch.zeros(3, device=device) for _ in range(3))
    gradient = torch.tensor([0.0, float("nan"), 1.0], device=value.device)
    adam.sparse_adam_step(value, gradient, mean, square, 0.5, (0.9, 0.99), 1e-15, 1)
    assert value.isnan().tolist() == [False, True, False]


def test_torch_is_told_what_it_changes(device: torch.device) -> None:
    """By torch's own check of operators: schema, fake tensors, as traced."""
    numbers = [torch.rand(70, 2, device=device) for _ in range(4)]
    rate, step = torch.tensor([0.1, 3.0], device=numbers[0].device)
    torch.library.opcheck(adam._step, (*numbers, rate, 0.9, 0.99, 1e-15, step))


def test_the_probe_is_content_and_notices_wrong_results(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.inference_mode():
        adam.probe(device)
    monkeypatch.setattr(adam, "_step", lambda *given: None)
    with pytest.raises(RuntimeError, match="give different results"):
        adam.probe(device)


@not_interpreted
def test_fake_tensors_need_neither_a_gpu_nor_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "triton" or name.endswith("adam_triton")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    with fake_cuda(), torch.device("cuda"), NoSynchronisation():
        tensors = [torch.rand(50, 2) for _ in range(4)]
        adam.sparse_adam_step(*tensors, torch.rand(()), (0.9, 0.99), 1e-15, torch.rand(()))
        adam.sparse_adam_step(*tensors, 1e-2, (0.9, 0.99), 1e-15, 3)


@not_interpreted
@each_capability
def test_the_kernel_compiles_without_a_gpu(capability: int) -> None:
    from surface_sos_ns.ops.cuda.adam_triton import adam_kernel

    numbers = dict.fromkeys(("log_beta1", "log_beta2", "share1", "share2", "epsilon"), "fp32")
    assert len(compile_kernel(adam_kernel, numbers | {"count": "i32"}, {"BLOCK": 1024}, capability)) > 1000
