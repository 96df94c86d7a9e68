"""nerfstudio's commands look for checkpoints and capture at the paths in config.yml, not beside that file.

Of a copied run, ns-render, ns-eval, ns-export and ns-viewer read the original; of a moved one, nothing. The path of the
config.yml that they were given is in a local variable of their common loader, which offers no hook before the data are
read. So the loader's frame is looked up on the stack.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nerfstudio.engine.trainer import TrainerConfig

__all__ = ["run_being_opened"]


def run_being_opened() -> tuple[Path, TrainerConfig] | None:
    """The config.yml that nerfstudio's `eval_setup` is opening, and what it says; None where it is not running."""
    from nerfstudio.utils import eval_utils

    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is eval_utils.eval_setup.__code__:
            return frame.f_locals["config_path"], frame.f_locals["config"]
        frame = frame.f_back  # type: ignore[assignment]
    return None
