"""Adam that leaves alone what has no gradient, against torch's and by what it says; optimisers for CUDA graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.optim import Adam, Optimizer, RAdam
from torch.optim.lr_scheduler import LambdaLR

from surface_sos_ns.ops.cpu.numba_ops import NumbaOps
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps
from surface_sos_ns.training.optimizer import SparseAdam, make_capturable
from surface_sos_ns.utils.errors import UserError
from tests.helpers.fake_cuda import fake_cuda

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


# ------------------------------------------------------------------ for CUDA graphs

Make = Callable[[list[nn.Parameter]], Optimizer]
each_kind = pytest.mark.parametrize(
    "make", [SparseAdam, lambda given: Adam(given, 1e-2, eps=1e-15)], ids=["ours", "torch's"]
)


class Run:
    """A parameter under an optimiser with a schedule, plain or made for a CUDA graph."""

    def __init__(self, make: Make, capturable: bool, start: Tensor | None = None):
        self.parameter = nn.Parameter(torch.linspace(-1, 1, 40).view(20, 2) if start is None else start.clone())
        self.optimizer = make([self.parameter])
        self.schedule = LambdaLR(self.optimizer, lambda step: 0.9**step)
        if capturable:
            make_capturable([self.optimizer])

    def steps(self, seeds: range) -> Tensor:
        for seed in seeds:
            numbers = torch.Generator().manual_seed(seed)
            self.parameter.grad = torch.randn(20, 2, generator=numbers)
            self.parameter.grad[::3] = 0
            self.optimizer.step()
            self.schedule.step()
        return self.parameter.detach()


@each_kind
def test_what_a_graph_can_hold_computes_the_same(make: Make) -> None:
    plain, capturable = Run(make, False), Run(make, True)
    rate = capturable.optimizer.param_groups[0]["lr"]
    torch.testing.assert_close(capturable.steps(range(30)), plain.steps(range(30)), rtol=1e-6, atol=1e-6)
    assert capturable.optimizer.param_groups[0]["lr"] is rate  # the schedule wrote into it
    assert float(rate) == pytest.approx(plain.optimizer.param_groups[0]["lr"])
    assert int(capturable.optimizer.state[capturable.parameter]["step"]) == 30


def test_what_has_no_gradient_is_left_alone_in_a_graph_too() -> None:
    run = Run(SparseAdam, True)
    before = run.parameter.detach().clone()
    after = run.steps(range(5))
    assert torch.equal(after[::3], before[::3]) and not (after[1::3] == before[1::3]).any()


@pytest.mark.parametrize("saved, loaded", [(True, False), (False, True), (True, True)])
@each_kind
def test_a_checkpoint_fits_a_graph_and_a_cpu(make: Make, saved: bool, loaded: bool) -> None:
    first, whole = Run(make, saved), Run(make, loaded)
    first.steps(range(5))
    state, schedule = copy.deepcopy((first.optimizer.state_dict(), first.schedule.state_dict()))
    assert not any(isinstance(value, Tensor) for value in state["param_groups"][0].values())
    assert state["param_groups"][0].keys() == whole.optimizer.state_dict()["param_groups"][0].keys()
    resumed = Run(make, loaded, first.parameter.detach())
    resumed.optimizer.load_state_dict(state)
    resumed.schedule.load_state_dict(schedule)
    assert isinstance(resumed.optimizer.param_groups[0]["lr"], Tensor) == loaded
    whole.steps(range(5))
    torch.testing.assert_close(resumed.steps(range(5, 10)), whole.steps(range(5, 10)), rtol=1e-6, atol=1e-6)


def test_a_checkpoint_without_the_setting_is_loaded() -> None:
    run = Run(SparseAdam, False)
    run.steps(range(2))
    state = run.optimizer.state_dict()
    del state["param_groups"][0]["capturable"]
    run.optimizer.load_state_dict(state)
    run.steps(range(2))


def test_another_number_of_groups_is_refused() -> None:
    run = Run(SparseAdam, True)
    state = run.optimizer.state_dict()
    state["param_groups"] *= 2
    with pytest.raises(ValueError):
        run.optimizer.load_state_dict(state)


def test_an_optimiser_that_no_graph_can_hold_is_refused() -> None:
    with pytest.raises(UserError, match="RAdam"):
        make_capturable([RAdam([nn.Parameter(torch.zeros(1))])])


@each_kind
def test_on_cuda_the_host_reads_nothing(make: Make) -> None:
    with fake_cuda():
        parameter = nn.Parameter(torch.zeros(20, 2, device="cuda"))
        optimizer = make([parameter])
        schedule = LambdaLR(optimizer, lambda step: 0.9**step)
        make_capturable([optimizer])
        for _ in range(2):
            parameter.grad = torch.ones(20, 2, device="cuda")
            optimizer.step()
            schedule.step()
        state = optimizer.state[parameter]
        assert all(tensor.device.type == "cuda" for tensor in (*state.values(), optimizer.param_groups[0]["lr"]))
        with pytest.raises(DataDependentOutputException):  # that is how it shows
            float(state["step"])


@pytest.mark.gpu
@each_kind
def test_a_captured_step_is_a_step(make: Make) -> None:
    device, finals = torch.device("cuda"), []
    gradients = [torch.randn(20, 2, generator=torch.Generator().manual_seed(i)).to(device) for i in range(10)]
    for captured in (False, True):
        run = Run(make, False, torch.linspace(-1, 1, 40, device=device).view(20, 2))
        make_capturable([run.optimizer])
        run.parameter.grad = torch.zeros_like(run.parameter)
        graph = torch.cuda.CUDAGraph()
        for i, gradient in enumerate(gradients):
            run.parameter.grad.copy_(gradient)
            if captured and i == 3:  # the state exists by then; a capture runs nothing
                torch.cuda.synchronize()
                with torch.cuda.graph(graph):
                    run.optimizer.step()
            if captured and i >= 3:
                graph.replay()
            else:
                run.optimizer.step()
            run.schedule.step()
        finals.append(run.parameter.detach())
    torch.testing.assert_close(*finals)
