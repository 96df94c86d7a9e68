"""A CUDA graph on the CPU: what a function launches is recorded once, and repeated on the same memory.

As in a CUDA graph, numbers that were on the host and addresses of tensors are those of the recording; only what is in
the tensors' memory counts. Random numbers are drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from surface_sos_ns.plugin.training_step import Graphs


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.launches: list[tuple[Any, Sequence[Any], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.launches.append((func, args, kwargs, made))
        return result


class RecordedGraphs(Graphs):
    """Records on the CPU. Whatever the recording itself changes in the tensors of `state` is undone."""

    def __init__(self, state: Callable[[], Sequence[Tensor]]) -> None:
        self.state = state

    def run(self, step: Callable[[], Any]) -> Any:
        return step()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        random = torch.get_rng_state()
        state = self.state()
        before = [tensor.detach().clone() for tensor in state]
        with _Recorder() as recorder:
            step()
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        torch.set_rng_state(random)

        @torch.no_grad()
        def replay() -> None:
            for func, args, kwargs, made in recorder.launches:
                again = [leaf for leaf in tree_leaves(func(*args, **kwargs)) if isinstance(leaf, Tensor)]
                for kept, value in zip(made, again, strict=True):
                    # A view, or what was written in place, is in its memory already.
                    if kept.data_ptr() != value.data_ptr() and kept.numel():
                        kept.copy_(value)

        return replay
