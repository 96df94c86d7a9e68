"""Adam for hash tables, in which most entries have no gradient in a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from surface_sos_ns.ops.torch_ops import TORCH, TorchOps


class SparseAdam(Optimizer):
    """Adam (Kingma & Ba 2015) that skips elements, and their moments, where the gradient is exactly 0.

    Plain Adam keeps moving entries that no ray touched, by the momentum of old gradients.

    Args:
        params: as for torch's optimisers.
        lr, betas, eps: of Adam.
        ops: back-end of the numeric operations.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-15,
        ops: TorchOps = TORCH,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})
        self.ops = ops

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
            state["step"] = torch.zeros(())
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
            int(state["step"]),
        )
