"""config.yml of a run of any of our methods; see `config_reader` for how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from surface_sos_ns.models.nerf_sos.config import NerfSOSConfig
from surface_sos_ns.plugin.config_reader import SURFACE_SOS_CLASSES, ConfigFileError, method_of, read_config
from surface_sos_ns.plugin.nerf_sos.datamanager import NerfSOSDataManagerConfig
from surface_sos_ns.plugin.nerf_sos.model import NerfSOSModelConfig
from surface_sos_ns.plugin.nerf_sos.pipeline import NerfSOSPipelineConfig
from surface_sos_ns.training.contrastive import Biases, ContrastiveConfig
from surface_sos_ns.training.nerf_sos import NerfSOSObjective

__all__ = ["CLASSES", "ConfigFileError", "method_of", "read_config_file"]

CLASSES: tuple[type, ...] = (
    *SURFACE_SOS_CLASSES,
    NerfSOSPipelineConfig,
    NerfSOSDataManagerConfig,
    NerfSOSModelConfig,
    NerfSOSConfig,
    NerfSOSObjective,
    ContrastiveConfig,
    Biases,
)
"""Dataclasses that the configurations of our methods are made of."""


def read_config_file(path: Path) -> Any:
    """What the config.yml of a run of ours describes: its SurfaceSOSTrainerConfig.

    Raises:
        ConfigFileError: it cannot be read, or holds something that no configuration of ours does.
    """
    return read_config(path, CLASSES)
