"""The mean of a model's weights over a part of a run, which is better than any of the weights it is made of.

At the learning rates of a run, and be it that at its end, each step moves surfaces to and fro by a fraction of a pixel,
each time another way. The mean does not (Izmailov et al. 2018).
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
        parameters: of the model; they are read by `add` and written by `apply`.
    """

    def __init__(self, parameters: Iterable[Tensor]):
        self._parameters = list(parameters)
        self._update = get_swa_multi_avg_fn()
        self.count = 0
        """How many times the weights have been added."""
        self.mean: list[Tensor] = []

    @torch.no_grad()
    def add(self) -> None:
        """Take the parameters as they are now into the mean."""
        now = [parameter.detach() for parameter in self._parameters]
        if self.count == 0:
            self.mean = [value.clone() for value in now]
        else:
            self._update(self.mean, now, self.count)
        self.count += 1

    @torch.no_grad()
    def apply(self) -> None:
        """Replace the parameters by their mean, where there is one, and begin anew."""
        for parameter, mean in zip(self._parameters, self.mean, strict=self.count > 0):
            parameter.copy_(mean)
        self.clear()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the mean in the parameters' place, where there is one, and them back afterwards; then begin anew."""
        kept = [parameter.detach().clone() for parameter in self._parameters] if self.count else []
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._parameters, kept, strict=False):
                    parameter.copy_(value)

    def clear(self) -> None:
        """Forget what has been added."""
        self.count, self.mean = 0, []

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on."""
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`, on the parameters' devices.

        Raises:
            ValueError: it is of other parameters.
        """
        shapes = [tuple(value.shape) for value in state["mean"]]
        if state["count"] and shapes != [tuple(parameter.shape) for parameter in self._parameters]:
            raise ValueError("the averaged weights are of another model")
        self.count = state["count"]
        self.mean = [value.to(here.device) for value, here in zip(state["mean"], self._parameters, strict=False)]
