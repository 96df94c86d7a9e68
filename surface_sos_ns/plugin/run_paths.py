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
Settings = TypeVar("Settings")


def with_absolute_paths(config: Config) -> Config:
    """The same settings, whatever folder they are read from. What is not set stays so."""
    pipeline, manager = config.pipeline, config.pipeline.datamanager
    if isinstance(manager, CaptureDataManagerConfig):
        manager = dataclasses.replace(_absolute(manager), dataparser=_absolute(manager.dataparser))
        pipeline = dataclasses.replace(pipeline, datamanager=manager, model=_absolute(pipeline.model))
    return dataclasses.replace(_absolute(config), pipeline=pipeline)


def _absolute(settings: Settings) -> Settings:
    """A dataclass whose own paths are absolute, but for empty ones and those that are relative by name."""
    names = (field.name for field in dataclasses.fields(settings))  # type: ignore[arg-type]
    found = {name: getattr(settings, name) for name in names if not name.startswith("relative_")}
    paths = {name: path.absolute() for name, path in found.items() if isinstance(path, Path) and path != Path()}
    return dataclasses.replace(settings, **paths)  # type: ignore[type-var]


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
