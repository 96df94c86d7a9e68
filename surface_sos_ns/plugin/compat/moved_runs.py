"""nerfstudio's commands read a run that was copied or moved: the checkpoints and the capture of the copy.

ns-render, ns-eval, ns-export and ns-viewer are given a config.yml, and look for everything else at the paths in it: of
a copied run they read the original, of a moved one nothing. Where that config.yml lies is known to one local variable
of their common loader, which offers no hook before the data are read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nerfstudio.engine.trainer import TrainerConfig

__all__ = ["run_being_opened"]


def run_being_opened() -> tuple[Path, TrainerConfig] | None:
    """The config.yml that nerfstudio's `eval_setup` is opening, and what it says; None where it is not at work."""
    from nerfstudio.utils import eval_utils

    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is eval_utils.eval_setup.__code__:
            return frame.f_locals["config_path"], frame.f_locals["config"]
        frame = frame.f_back  # type: ignore[assignment]
    return None
