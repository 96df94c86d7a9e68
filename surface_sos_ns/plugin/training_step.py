"""One training step on a GPU, captured once as a CUDA graph and replayed.

Rays, losses, gradients and optimisers together are some hundred kernels of a few microseconds each. Launched one by one
from Python they leave the GPU idle most of the time; a graph launches all of them at once. What it was captured with is
fixed: shapes, addresses, and all numbers that were on the host. So what changes over a run is on the device (the run's
progress, learning rates, step counts), and everything that happens rarely (cached fields, m^P, self-training) happens
between two steps and writes in place.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["CaptureError", "CapturedStep", "CudaGraphs", "Graphs", "StepResult", "graphs_on", "take_step"]

EAGER_STEPS = 3
"""Steps that run eagerly before the capture: libraries set themselves up, and optimisers make their states."""


class CaptureError(RuntimeError):
    """A step could not be captured; nothing of it has happened."""


class StepResult(NamedTuple):
    """What a training step reports."""

    loss: Tensor  # ()
    losses: dict[str, Tensor]  # () each, weighted; their sum is the loss
    metrics: dict[str, Tensor]  # () each


Losses = Callable[[], "tuple[Mapping[str, Tensor], Mapping[str, Tensor]]"]
"""Draws a batch, renders it, and returns the weighted losses and the metrics."""


class Graphs(ABC):
    """How steps are run and captured on a device."""

    @abstractmethod
    def run(self, step: Callable[[], StepResult]) -> StepResult:
        """Run a step as it is, in a way that a capture may follow."""

    @abstractmethod
    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Record what a step launches, without an effect on any tensor; returns what replays it."""


class CudaGraphs(Graphs):
    """CUDA graphs on the current device."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def run(self, step: Callable[[], StepResult]) -> StepResult:
        """See `Graphs.run`: on a stream of its own, since what autograd keeps must not belong to the default one."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            found = step()
        torch.cuda.current_stream().wait_stream(self._stream)
        return found

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """See `Graphs.capture`. Calls of other threads, such as the viewer's, are neither captured nor refused."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            step()
        return graph.replay


def take_step(losses: Losses, optimizers: Iterable[Optimizer]) -> StepResult:
    """Gradients of the losses, and one update by each optimiser."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    found, metrics = losses()
    loss = functools.reduce(torch.add, found.values())
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in optimizers:
        optimizer.step()
    return StepResult(
        loss.detach(),
        {name: value.detach() for name, value in found.items()},
        {name: value.detach() for name, value in metrics.items()},
    )


def graphs_on(device: torch.device | str) -> Graphs | None:
    """How steps are captured on a device; None where there are no CUDA graphs."""
    return CudaGraphs() if torch.device(device).type == "cuda" else None


class CapturedStep:
    """A training step that is captured after `EAGER_STEPS` real ones, and replayed from then on.

    Args:
        losses: of a new batch; must not wait for the device, and have the same shapes each time.
        optimizers: their learning rates and step counts are on the device, see `training.optimizer.make_capturable`.
        fixed: what a replay assumes unchanged: addresses of tensors that a step reads, numbers on the host. Where it
            has changed, the step is captured anew.
        graphs: how to capture; `CudaGraphs` on a GPU.

    Attributes:
        captures: how often the step has been captured.
    """

    def __init__(
        self,
        losses: Losses,
        optimizers: Iterable[Optimizer],
        fixed: Callable[[], Hashable],
        graphs: Graphs,
    ) -> None:
        self._losses, self._optimizers = losses, list(optimizers)
        self._fixed, self._graphs = fixed, graphs
        self._eager_steps = 0
        self._replay: Callable[[], None] | None = None
        self._captured_with: Hashable = None
        self._names: tuple[list[str], list[str]] = ([], [])
        self._values: Tensor | None = None
        self.captures = 0

    def __call__(self) -> StepResult:
        """Take a step.

        Raises:
            CaptureError: it could not be captured.
        """
        if self._eager_steps < EAGER_STEPS:
            self._eager_steps += 1
            return self._graphs.run(lambda: take_step(self._losses, self._optimizers))
        fixed = self._fixed()
        if self._replay is None or fixed != self._captured_with:
            self._record()
            self._captured_with = fixed
        assert self._replay is not None
        self._replay()
        assert self._values is not None
        loss, *values = self._values.clone().unbind()  # the next replay overwrites them
        names, metric_names = self._names
        return StepResult(
            loss,
            dict(zip(names, values, strict=False)),
            dict(zip(metric_names, values[len(names) :], strict=True)),
        )

    def _record(self) -> None:
        def step() -> None:
            found = take_step(self._losses, self._optimizers)
            self._names = list(found.losses), list(found.metrics)
            values = [found.loss, *found.losses.values(), *found.metrics.values()]
            self._values = torch.stack([value.float() for value in values])

        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)  # gradients are to be in the graph's own memory
        self._replay = self._values = None  # frees an earlier graph's memory
        try:
            self._replay = self._graphs.capture(step)
        except RuntimeError as error:
            for optimizer in self._optimizers:
                optimizer.zero_grad(set_to_none=True)
            raise CaptureError(" ".join(str(error).split())) from error
        self.captures += 1
