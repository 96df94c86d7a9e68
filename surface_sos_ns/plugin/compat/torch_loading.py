"""torch >= 2.6 refuses nerfstudio's checkpoints: `torch.load` unpickles plain data only.

nerfstudio's learning-rate schedulers leave numpy scalars in the optimiser state, so every checkpoint of every method is
refused: by ns-render, ns-eval, the viewer and when resuming. Numpy's scalars and number types are data, not code, and
are all that is let through here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["allow_numpy_scalars"]


def allow_numpy_scalars() -> None:
    """Let ``torch.load`` read numpy scalars of the ordinary number types. Does nothing before torch 2.6.

    Calling it twice is harmless. Nothing else is allowed: arrays, objects and functions stay refused.
    """
    if torch.torch_version.TorchVersion(torch.__version__) < "2.6":
        return
    # The function that rebuilds a scalar; reached through a scalar because its module is private and moved in numpy 2.
    rebuild_scalar: Any = np.float64(0.0).__reduce__()[0]
    number_types = [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
    torch.serialization.add_safe_globals(
        [
            np.dtype,
            *dict.fromkeys(number_types),
            # A checkpoint names the module of the numpy that wrote it, which need not be the one that reads it.
            (rebuild_scalar, "numpy.core.multiarray.scalar"),
            (rebuild_scalar, "numpy._core.multiarray.scalar"),
        ]
    )
