"""Adam that leaves alone what has no gradient, against torch's and by what it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from surface_sos_ns.ops.cpu.numba_ops import NumbaOps
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps
from surface_sos_ns.training.optimizer import SparseAdam

each = pytest.mark.parametrize("ops", [TORCH, NumbaOps()], ids=["torch", "numba"])


def _adam_runs(ops: TorchOps, gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The same gradients for our Adam and torch's; returns both parameters."""
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, gradients[0].numel()).view_as(gradients[0])) for _ in range(2))
    settings = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-15}
    optimisers = (SparseAdam([ours], **settings, ops=ops), torch.optim.Adam([theirs], **settings))
    for gradient in gradients:
        for parameter, optimiser in zip((ours, theirs), optimisers, strict=True):
            parameter.grad = gradient.clone()
            optimiser.step()
    return ours.detach(), theirs.detach()


@each
def test_where_there_is_a_gradient_it_is_adam(ops):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = _adam_runs(ops, [torch.randn(70, 2, generator=generator) for _ in range(20)])
    assert torch.allclose(ours, theirs, atol=1e-5)


@each
def test_where_there_is_none_nothing_moves(ops):
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    ours, theirs = _adam_runs(ops, [first, second, second])
    # Dense Adam goes on moving the first element after its gradient has ended; ours moved it once, by the rate.
    assert torch.allclose(ours[0, 0], torch.tensor(-1.1))
    assert theirs[0, 0] < -1.15
    assert ours[0, 1] < 1.0


def test_the_optimisers_state_survives_a_checkpoint():
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(5, 2, generator=generator) for _ in range(6)]
    whole = nn.Parameter(torch.zeros(5, 2))
    optimiser = SparseAdam([whole])
    half, saved = None, None
    for i, gradient in enumerate(gradients):
        if i == 3:
            half, saved = nn.Parameter(whole.detach().clone()), optimiser.state_dict()
            saved = {
                "state": {k: {n: t.clone() for n, t in v.items()} for k, v in saved["state"].items()},
                "param_groups": saved["param_groups"],
            }
        whole.grad = gradient.clone()
        optimiser.step()
    resumed = SparseAdam([half])
    resumed.load_state_dict(saved)
    for gradient in gradients[3:]:
        half.grad = gradient.clone()
        resumed.step()
    assert torch.equal(whole, half)
