"""Adam for hash tables, in which most entries have no gradient in a step; and optimisers that CUDA graphs can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from surface_sos_ns.ops.torch_ops import TORCH, TorchOps
from surface_sos_ns.utils.errors import UserError


class SparseAdam(Optimizer):
    """Adam (Kingma & Ba 2015) that skips elements, and their moments, where the gradient is exactly 0.

    Plain Adam keeps moving entries that no ray touched, by the momentum of old gradients.

    Args:
        params: as for torch's optimisers.
        lr, betas, eps: of Adam. The rate may be a tensor () on the device of the parameters.
        capturable: count steps on the device of the parameters, so that a CUDA graph can hold `step`.
        ops: back-end of the numeric operations.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-15,
        capturable: bool = False,
        ops: TorchOps = TORCH,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "capturable": capturable})
        self.ops = ops

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called by torch with a loaded state."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("capturable", False)  # checkpoints of earlier versions do not say

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device if group["capturable"] else "cpu")
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        self.ops.sparse_adam_step(
            parameter,
            gradient,
            state["exp_avg"],
            state["exp_avg_sq"],
            group["lr"],
            group["betas"],
            group["eps"],
            state["step"] if group["capturable"] else int(state["step"]),
        )


def make_capturable(optimizers: Iterable[Optimizer]) -> None:
    """Have optimisers read learning rate and step count on the device only, so that a CUDA graph can hold their steps.

    torch's learning-rate schedules, made before or after this, then write each new rate into the tensor that the graph
    reads. Checkpoints stay those of plain optimisers, which hold numbers: either kind loads what the other one saved.
    Loading replaces the tensors, so it has to come before a capture.

    Args:
        optimizers: `SparseAdam` or torch's Adam, before their first step.

    Raises:
        UserError: another optimiser.
    """
    for optimizer in optimizers:
        if not isinstance(optimizer, SparseAdam | Adam):
            raise UserError(
                f"The optimiser {type(optimizer).__name__} cannot be captured in a CUDA graph; only Adam can."
            )
        for group in optimizer.param_groups:
            group.update(_on_device(group, float(group["lr"])))
        optimizer.register_state_dict_post_hook(_save_as_plain)
        optimizer.register_load_state_dict_pre_hook(_load_as_capturable)


def _on_device(group: dict[str, Any], rate: float) -> dict[str, Any]:
    """The settings of a param group that a graph can hold. torch's Adam then updates all parameters in one kernel."""
    settings = {"lr": torch.full((), rate, device=group["params"][0].device), "capturable": True}
    return settings | ({"fused": True, "foreach": False} if "fused" in group else {})


def _save_as_plain(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    del optimizer
    plain = [
        group
        | {"lr": float(group["lr"]), "capturable": False}
        | ({"fused": None, "foreach": None} if "fused" in group else {})
        for group in state["param_groups"]
    ]
    counts = {key: entry | {"step": entry["step"].cpu()} for key, entry in state["state"].items()}
    return {"state": counts, "param_groups": plain}


def _load_as_capturable(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
    groups = [saved | _on_device(group, float(saved["lr"])) for saved, group in pairs]
    return state | {"param_groups": groups}
