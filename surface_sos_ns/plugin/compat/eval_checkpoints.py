"""nerfstudio's evaluation takes the highest number among the names in the checkpoint folder, whatever the file is.

A truncated checkpoint or any other file in that folder ends ns-render, ns-eval, ns-export and ns-viewer. They share one
loader and it offers no hook. It cannot be replaced when the plugin is imported, since it imports the plugin; it is when
a pipeline is built, which is before it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline

from surface_sos_ns.plugin.compat.moved_runs import run_being_opened
from surface_sos_ns.plugin.compat.patching import patch

__all__ = ["let_pipelines_load_themselves"]

Loader = Callable[[TrainerConfig, Pipeline], tuple[Path, int]]


def let_pipelines_load_themselves() -> None:
    """Have nerfstudio's evaluation call `load_for_evaluation(folder, step)` of pipelines that have it.

    The folder is that of the checkpoints beside the config.yml that is opened. Other methods' runs load as ever.
    """
    from nerfstudio.utils import eval_utils

    patch(eval_utils, "eval_load_checkpoint", _preferring_the_pipeline)


def _preferring_the_pipeline(load_any: Loader) -> Loader:
    def eval_load_checkpoint(config: TrainerConfig, pipeline: Any) -> tuple[Path, int]:
        if not hasattr(pipeline, "load_for_evaluation"):
            return load_any(config, pipeline)
        opened = run_being_opened()
        folder = config.load_dir if opened is None else opened[0].parent / config.relative_model_dir
        assert folder is not None, "nerfstudio sets it to the run's checkpoint folder"
        loaded: tuple[Path, int] = pipeline.load_for_evaluation(folder, config.load_step)
        return loaded

    return eval_load_checkpoint
