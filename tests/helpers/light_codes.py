"""The code of a training photo, computed by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from surface_sos_ns.models.surface_sos.appearance import Appearance


def code_of(appearance: Appearance, view: int) -> Tensor:
    """(1, width) code of a training view, relative to the mean; without a gradient."""
    codes = [appearance.exposure, *([] if appearance.light is None else [appearance.light])]
    together = torch.cat(codes, -1).detach()
    return together[view : view + 1] - together.mean(0)
