"""Stochastic weight averaging (Izmailov et al. 2018): the mean of a model's weights over a part of a run.

Even at the final learning rate each step moves surfaces by a fraction of a pixel, at random. Averaged weights do not
have this noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_swa_multi_avg_fn


class WeightAverage:
    """Running mean of parameters.

    Args:
        parameters: of the model; read by `add`, overwritten by `apply` and `in_place`.
    """

    def __init__(self, parameters: Iterable[Tensor]):
        self._parameters = list(parameters)
        self._update = get_swa_multi_avg_fn()
        self.count = 0
        """Number of states that have been averaged."""
        self.mean: list[Tensor] = []

    @torch.no_grad()
    def add(self) -> None:
        """Add the present parameters to the mean."""
        now = [parameter.detach() for parameter in self._parameters]
        if self.count == 0:
            self.mean = [value.clone() for value in now]
        else:
            self._update(self.mean, now, self.count)
        self.count += 1

    @torch.no_grad()
    def apply(self) -> None:
        """Replace the parameters by their mean, if there is one, and start a new mean."""
        for parameter, mean in zip(self._parameters, self.mean, strict=self.count > 0):
            parameter.copy_(mean)
        self.clear()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, parameters are their mean, if there is one; afterwards they are restored, and a new mean starts."""
        kept = [parameter.detach().clone() for parameter in self._parameters] if self.count else []
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._parameters, kept, strict=False):
                    parameter.copy_(value)

    def clear(self) -> None:
        """Start a new mean."""
        self.count, self.mean = 0, []

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, on the parameters' devices.

        Raises:
            ValueError: its shapes are not those of the parameters.
        """
        shapes = [tuple(value.shape) for value in state["mean"]]
        if state["count"] and shapes != [tuple(parameter.shape) for parameter in self._parameters]:
            raise ValueError("the averaged weights are of another model")
        self.count = state["count"]
        self.mean = [value.to(here.device) for value, here in zip(state["mean"], self._parameters, strict=False)]
