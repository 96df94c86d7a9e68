"""What a current torch says of nerfstudio's code, and no user can change."""

from __future__ import annotations

import warnings


def silence_known_warnings() -> None:
    """Keep those quiet from now on. Imports nothing: some are said while nerfstudio is imported."""
    # Of every picture.
    message = "Using a non-tuple sequence for multidimensional indexing"
    warnings.filterwarnings("ignore", message=message, category=UserWarning, module=r"nerfstudio\.")
    # Of nerfstudio's figures that go to a log.
    message = r"Converting a tensor with requires_grad=True to a scalar"
    warnings.filterwarnings("ignore", message=message, category=UserWarning, module=r"nerfstudio\.")
    # Of old names, some of them in torch's own code on nerfstudio's behalf.
    for name in (r"`torch\.jit\.script`", r"`torch\.cuda\.amp\.custom_"):
        warnings.filterwarnings("ignore", message=name, category=FutureWarning)
        warnings.filterwarnings("ignore", message=name, category=DeprecationWarning)
