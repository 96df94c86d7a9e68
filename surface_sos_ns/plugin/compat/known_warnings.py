"""A current torch warns of nerfstudio's code, dozens of times a run, and no user can change that code."""

from __future__ import annotations

import warnings

__all__ = ["silence_known_warnings"]


def silence_known_warnings() -> None:
    """Keep those quiet from now on. Imports nothing: some are said while nerfstudio is imported."""
    # Its cameras index tensors by lists.
    message = "Using a non-tuple sequence for multidimensional indexing"
    warnings.filterwarnings("ignore", message=message, category=UserWarning, module=r"nerfstudio\.")
    # It logs losses that still have a gradient.
    message = r"Converting a tensor with requires_grad=True to a scalar"
    warnings.filterwarnings("ignore", message=message, category=UserWarning, module=r"nerfstudio\.")
    # It uses names of torch that have newer ones, some of them through torch's own code.
    for name in (r"`torch\.jit\.script`", r"`torch\.cuda\.amp\.custom_"):
        warnings.filterwarnings("ignore", message=name, category=FutureWarning)
        warnings.filterwarnings("ignore", message=name, category=DeprecationWarning)
