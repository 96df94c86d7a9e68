"""The pipeline of nerf-sos: that of surface-sos with another training run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

from surface_sos_ns.plugin.nerf_sos.datamanager import NerfSOSDataManager, NerfSOSDataManagerConfig
from surface_sos_ns.plugin.nerf_sos.loaded_run import surfaces_of
from surface_sos_ns.plugin.nerf_sos.model import NerfSOSModel, NerfSOSModelConfig
from surface_sos_ns.plugin.nerf_sos.training_run import NerfSOSTrainingRun
from surface_sos_ns.plugin.pipeline import SurfaceSOSPipeline, SurfaceSOSPipelineConfig
from surface_sos_ns.plugin.training_run import RunStory


@dataclass
class NerfSOSPipelineConfig(SurfaceSOSPipelineConfig):
    """The pipeline of nerf-sos."""

    _target: type = field(default_factory=lambda: NerfSOSPipeline)
    """target class to instantiate"""
    datamanager: NerfSOSDataManagerConfig = field(default_factory=NerfSOSDataManagerConfig)
    """specifies the datamanager config"""
    model: NerfSOSModelConfig = field(default_factory=NerfSOSModelConfig)
    """specifies the model config"""

    def for_training(self) -> NerfSOSPipelineConfig:
        """See `SurfaceSOSPipelineConfig.for_training`: takes over the scene settings of a loaded run.

        Raises:
            UserError: --pipeline.model.load-run names no surface-sos run that can be loaded.
        """
        if self.model.load_run is None or self.model.surfaces is not None:  # known already
            return self
        return replace(self, model=replace(self.model, surfaces=surfaces_of(self.model.load_run)))


class NerfSOSPipeline(SurfaceSOSPipeline):
    """Data and model of a run; the order of events of a training run is in `NerfSOSTrainingRun`."""

    def training_run(self, trainer: Any) -> RunStory:
        """See `SurfaceSOSPipeline.training_run`."""
        return NerfSOSTrainingRun(
            cast("NerfSOSModel", self.model),
            cast("NerfSOSDataManager", self.datamanager),
            trainer.base_dir,
            trainer.steps_done,
        )
