"""Where a run and its capture are: absolute in config.yml, and found again where both were moved together."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from surface_sos_ns.plugin.capture_datamanager import CaptureDataManagerConfig

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import TrainerConfig

__all__ = ["find_capture", "with_absolute_paths"]

Config = TypeVar("Config", bound="TrainerConfig")


def with_absolute_paths(config: Config) -> Config:
    """The same settings, whatever folder they are read from. What is not set stays so."""

    def absolute(settings: Any, *names: str) -> dict[str, Any]:
        paths = {name: getattr(settings, name) for name in names}
        return {name: path.absolute() for name, path in paths.items() if path not in (None, Path())}

    pipeline, manager = config.pipeline, config.pipeline.datamanager
    if isinstance(manager, CaptureDataManagerConfig):
        parser = dataclasses.replace(manager.dataparser, **absolute(manager.dataparser, "data"))
        manager = dataclasses.replace(manager, dataparser=parser, **absolute(manager, "data"))
        pipeline = dataclasses.replace(pipeline, datamanager=manager)
    paths = absolute(config, "output_dir", "data", "load_dir", "load_checkpoint")
    return dataclasses.replace(config, pipeline=pipeline, **paths)


def find_capture(config_file: Path, config: TrainerConfig) -> Path:
    """Where a run's capture is: where its config.yml says, else where it was seen from the run's folder.

    The second finds it where the capture and the outputs were moved, or copied to another machine, together. What is at
    neither place is returned as config.yml has it.
    """
    manager: Any = config.pipeline.datamanager
    known = Path(manager.data or manager.dataparser.data)
    if not known.exists():
        moved = config_file.absolute().parent / os.path.relpath(known, config.get_base_dir())
        moved = Path(os.path.normpath(moved))
        if moved.exists():
            return moved
    return known
