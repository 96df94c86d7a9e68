"""Adam for hash tables: most entries see no gradient in a step, and those stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class SparseAdam(Optimizer):
    """Adam (Kingma & Ba 2015) that leaves an element and its averages alone where its gradient is exactly 0.

    Dense Adam goes on moving entries that no ray touched, on the strength of old gradients, and reads and writes all
    of a table to do so. On a CPU this is one compiled pass that reads the gradient and writes what it touched.

    Args:
        params: as for torch's optimisers.
        lr, betas, eps: of Adam.
        compiled: run the compiled pass for tensors on a CPU; else torch operations, which do the same.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-15,
        compiled: bool = True,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})
        self.compiled = compiled

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
        step, (beta1, beta2) = int(state["step"]), group["betas"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        if self.compiled and parameter.device.type == "cpu" and parameter.is_contiguous():
            from surface_sos_ns.compiled.adam import sparse_adam_step

            gradient = gradient.contiguous()
            sparse_adam_step(parameter, gradient, mean, square, group["lr"], group["betas"], group["eps"], step)
            return
        touched = gradient != 0
        mean.copy_(torch.where(touched, mean.lerp(gradient, 1 - beta1), mean))
        square.copy_(torch.where(touched, square.lerp(gradient.square(), 1 - beta2), square))
        spread = (square / (1 - beta2**step)).sqrt() + group["eps"]
        parameter.sub_(torch.where(touched, group["lr"] / (1 - beta1**step) * mean / spread, 0.0))
