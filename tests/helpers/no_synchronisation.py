"""Refuses what makes the host wait for a GPU, or what a CUDA graph could not hold, on a machine without a GPU.

Fake tensors raise errors of their own where a shape or a number depends on data (`nonzero`, `item`). This mode also
refuses what they let pass: copies from the device to the host and back, and indexing by a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["NoSynchronisation", "SynchronisationError"]

aten = torch.ops.aten
DATA_DEPENDENT = {
    aten.nonzero.default,
    aten.nonzero_static.default,
    aten.masked_select.default,
    aten._local_scalar_dense.default,
    aten.item.default,
    aten.equal.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}


class SynchronisationError(AssertionError):
    """An operation that would wait for the device."""


class NoSynchronisation(TorchDispatchMode):
    """Within it, operations on tensors may neither wait for the device nor move numbers between it and the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DATA_DEPENDENT:
            raise SynchronisationError(f"{func} waits for the device")
        if func in INDEXING:
            masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
            if masks:
                raise SynchronisationError(f"{func} with a mask waits for the device to count its elements")
        if func is aten.lift_fresh.default and (args[0].ndim > 0 or args[0].device.type != "cpu"):
            raise SynchronisationError("a tensor is made of numbers on the host, and copied to the device")
        result = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in made}
        for tensor in given:
            # A scalar on the host may enter a calculation: a graph takes it for a constant.
            number = tensor.ndim == 0 and tensor.device.type == "cpu" and func is not aten._to_copy.default
            if devices and tensor.device.type not in devices and not number:
                raise SynchronisationError(f"{func} moves a tensor from {tensor.device.type} to {devices}")
        return result
