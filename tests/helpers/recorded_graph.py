"""A CUDA graph on the CPU: what a function launches is recorded once, and repeated on the same memory.

As in a CUDA graph, numbers that were on the host and addresses of tensors are those of the recording; only what is in
the tensors' memory counts, and recording has no effect on it. Random numbers are drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from surface_sos_ns.plugin.training_step import Graphs


def tensors_of(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def written_by(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The arguments that an operation writes to."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tensors_of(args[place] if place < len(args) else kwargs.get(argument.name))


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.launches: list[tuple[Any, Sequence[Any], dict[str, Any], list[Tensor]]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # by address: what was written to, and what was there

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in written_by(func, args, kwargs):
            self.before.setdefault(tensor.data_ptr(), (tensor, tensor.clone()))
        result = func(*args, **kwargs)
        self.launches.append((func, args, kwargs, tensors_of(result)))
        return result


class RecordedGraphs(Graphs):
    """Records on the CPU."""

    def run(self, step: Callable[[], Any]) -> Any:
        return step()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        random = torch.get_rng_state()
        with _Recorder() as recorder:
            step()
        with torch.no_grad():
            for tensor, value in recorder.before.values():
                tensor.copy_(value)
        torch.set_rng_state(random)

        @torch.no_grad()
        def replay() -> None:
            for func, args, kwargs, made in recorder.launches:
                for kept, value in zip(made, tensors_of(func(*args, **kwargs)), strict=True):
                    # A view, or what was written in place, is in its memory already.
                    if kept.data_ptr() != value.data_ptr() and kept.numel():
                        kept.copy_(value)

        return replay
