"""The pipeline of nerf-sos: that of surface-sos, with another story of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.pipelines.base_pipeline import VanillaPipeline

from surface_sos_ns.plugin.nerf_sos.datamanager import NerfSOSDataManager, NerfSOSDataManagerConfig
from surface_sos_ns.plugin.nerf_sos.model import NerfSOSModel, NerfSOSModelConfig
from surface_sos_ns.plugin.nerf_sos.training_run import NerfSOSTrainingRun
from surface_sos_ns.plugin.pipeline import SurfaceSOSPipeline, SurfaceSOSPipelineConfig


@dataclass
class NerfSOSPipelineConfig(SurfaceSOSPipelineConfig):
    """The pipeline of nerf-sos."""

    _target: type = field(default_factory=lambda: NerfSOSPipeline)
    """target class to instantiate"""
    datamanager: NerfSOSDataManagerConfig = field(default_factory=NerfSOSDataManagerConfig)
    """specifies the datamanager config"""
    model: NerfSOSModelConfig = field(default_factory=NerfSOSModelConfig)
    """specifies the model config"""


class NerfSOSPipeline(SurfaceSOSPipeline):
    """Data and model of a run; a training run goes as `NerfSOSTrainingRun` tells."""

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Start the run; see `SurfaceSOSPipeline.get_training_callbacks`.

        Raises:
            UserError: the capture cannot be used; the message says what to do.
        """
        trainer = cast("Any", training_callback_attributes.trainer)  # a SurfaceSOSTrainer
        run = NerfSOSTrainingRun(
            cast("NerfSOSModel", self.model),
            cast("NerfSOSDataManager", self.datamanager),
            trainer.base_dir,
            trainer.steps_done,
        )
        run.prepare()
        run.initialise()
        return [*VanillaPipeline.get_training_callbacks(self, training_callback_attributes), *run.callbacks()]
