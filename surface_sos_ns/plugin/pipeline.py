"""nerfstudio's pipeline, for captures where only some photos have truth and for checkpoints that may be broken."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline, VanillaPipeline, VanillaPipelineConfig
from torch import Tensor

from surface_sos_ns.plugin.checkpoints import find_checkpoint
from surface_sos_ns.plugin.compat.errors import show_explanations_alone
from surface_sos_ns.plugin.compat.moved_runs import run_being_opened
from surface_sos_ns.plugin.compat.ns_export import fill_unseen_space
from surface_sos_ns.plugin.compat.viewer import guard_viewer
from surface_sos_ns.plugin.console import say
from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManagerConfig
from surface_sos_ns.plugin.run_paths import find_capture


@dataclass
class SurfaceSOSPipelineConfig(VanillaPipelineConfig):
    """nerfstudio's pipeline; loading it for rendering or evaluation passes over broken checkpoints.

    Every command that opens a run builds this before a viewer, so nerfstudio's viewer is guarded from here.
    """

    _target: type = field(default_factory=lambda: SurfaceSOSPipeline)
    """target class to instantiate"""

    def setup(self, **kwargs: Any) -> Pipeline:
        """Build the pipeline (arguments as nerfstudio gives them)."""
        show_explanations_alone()
        _skip_broken_checkpoints_at_evaluation()
        opened = run_being_opened()
        if opened is not None and isinstance(self.datamanager, SurfaceSOSDataManagerConfig):
            self.datamanager.data = self.datamanager.dataparser.data = find_capture(*opened)
        guard_viewer()
        return super().setup(**kwargs)


class SurfaceSOSPipeline(VanillaPipeline):
    """Averages each metric over the photos that have it, and gives the cores to the compiled kernels.

    nerfstudio takes the names of the metrics from the first photo and fails where another one lacks a truth mask; and a
    clean-plate figure does not exist for a photo without the object.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model.claim_cores()  # type: ignore[operator]

    def get_average_image_metrics(  # type: ignore[no-untyped-def]
        self, data_loader, image_prefix: str, step=None, output_path=None, get_std: bool = False
    ) -> dict[str, float]:
        """See nerfstudio's pipeline."""
        partial: dict[str, list[float]] = defaultdict(list)
        of_one_image = self.model.get_image_metrics_and_images

        def keep_partial(outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> Any:
            metrics, images = of_one_image(outputs, batch)
            for name in [name for name in metrics if name.startswith(("mask_", "clean_plate_"))]:
                value = metrics.pop(name)
                if math.isfinite(value):
                    partial[name].append(value)
            return metrics, images

        self.model.get_image_metrics_and_images = keep_partial  # type: ignore[method-assign]
        try:
            averages = super().get_average_image_metrics(data_loader, image_prefix, step, output_path, get_std)
        finally:
            del self.model.get_image_metrics_and_images
        for name, values in partial.items():
            averages[name] = float(torch.tensor(values).mean())
            if get_std:
                averages[f"{name}_std"] = float(torch.tensor(values).std()) if len(values) > 1 else 0.0
        return averages


def _skip_broken_checkpoints_at_evaluation() -> None:
    """Make nerfstudio's evaluation tools load our runs with `find_checkpoint`, from the folder that config.yml lies in.

    Other methods' runs load as ever.

    ns-render, ns-eval, ns-export and ns-viewer share one loader, which takes the highest number among the names in the
    folder, whatever the file is, and offers no hook. It cannot be replaced when the plugin is imported, since it
    imports the plugin; it is when a pipeline is built, which is before it runs.
    """
    from nerfstudio.utils import eval_utils

    if hasattr(eval_utils.eval_load_checkpoint, "__wrapped__"):
        return
    load_any = eval_utils.eval_load_checkpoint

    @functools.wraps(load_any)
    def eval_load_checkpoint(config: TrainerConfig, pipeline: Pipeline) -> tuple[Path, int]:
        if not isinstance(config.pipeline, SurfaceSOSPipelineConfig):
            return load_any(config, pipeline)
        opened = run_being_opened()
        folder = config.load_dir if opened is None else opened[0].parent / config.relative_model_dir
        assert folder is not None, "nerfstudio sets it to the run's checkpoint folder"
        path, state = find_checkpoint(folder, config.load_step, say)
        pipeline.load_pipeline(state["pipeline"], state["step"])
        say(f"Loaded {path}")
        say(f"{pipeline.device} | {pipeline.model.describe()}")  # type: ignore[operator]
        low, high = (" ".join(f"{value:.3f}" for value in corner) for corner in pipeline.model.object_box())  # type: ignore[operator]
        say(f"The object lies within {low} and {high} (nerfstudio's frame, for ns-export's --bounding-box-min, -max)")
        fill_unseen_space(pipeline.model)  # type: ignore[arg-type]
        return path, state["step"]

    eval_utils.eval_load_checkpoint = eval_load_checkpoint
