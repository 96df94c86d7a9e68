"""Reads config.yml of a run without running anything that stands in it.

nerfstudio writes its configuration as YAML with Python objects in it, and reads it back by doing what the file says:
import this module, call that function. A file from elsewhere could thus run any code. Here only listed dataclasses are
built: those of surface-sos below, those of all methods in `config_file`. The names of other classes and functions in
the file are compared with what the class has there, and never looked up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import yaml
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.configs.base_config import LocalWriterConfig, LoggingConfig, ViewerConfig
from nerfstudio.data.pixel_samplers import PairPixelSamplerConfig, PatchPixelSamplerConfig, PixelSamplerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig, RAdamOptimizerConfig
from nerfstudio.engine.schedulers import (
    CosineDecaySchedulerConfig,
    ExponentialDecaySchedulerConfig,
    MultiStepSchedulerConfig,
    SchedulerConfig,
)
from nerfstudio.utils.writer import EventName

from surface_sos_ns.fields.deformation import DeformationConfig
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManagerConfig
from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig
from surface_sos_ns.plugin.model import SurfaceSOSModelConfig
from surface_sos_ns.plugin.optimizers import GridAdamConfig, WarmupDecaySchedulerConfig
from surface_sos_ns.plugin.pipeline import SurfaceSOSPipelineConfig
from surface_sos_ns.plugin.trainer import SurfaceSOSMachineConfig, SurfaceSOSTrainerConfig
from surface_sos_ns.training.objective import ObjectiveConfig
from surface_sos_ns.utils.errors import UserError

__all__ = ["MAX_FILE_BYTES", "SURFACE_SOS_CLASSES", "ConfigFileError", "method_of", "read_config"]

SURFACE_SOS_CLASSES: tuple[type, ...] = (
    # ours
    SurfaceSOSTrainerConfig,
    SurfaceSOSMachineConfig,
    SurfaceSOSPipelineConfig,
    SurfaceSOSDataManagerConfig,
    SurfaceSOSDataParserConfig,
    SurfaceSOSModelConfig,
    SceneConfig,
    GridLayout,
    DeformationConfig,
    ObjectiveConfig,
    GridAdamConfig,
    WarmupDecaySchedulerConfig,
    # nerfstudio's, in every configuration of ours
    LoggingConfig,
    LocalWriterConfig,
    ViewerConfig,
    CameraOptimizerConfig,
    PixelSamplerConfig,
    AdamOptimizerConfig,
    # nerfstudio's, which may be put in the place of those
    OptimizerConfig,
    RAdamOptimizerConfig,
    SchedulerConfig,
    ExponentialDecaySchedulerConfig,
    CosineDecaySchedulerConfig,
    MultiStepSchedulerConfig,
    PatchPixelSamplerConfig,
    PairPixelSamplerConfig,
)
"""Dataclasses that the configuration of a surface-sos run is made of."""

MAX_FILE_BYTES = 1 << 17  # bytes; ours have about 12 000
MAX_VALUES = 20_000  # with YAML aliases expanded; ours have about 700

YAML = "tag:yaml.org,2002:"
PATHS = ("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath")


class ConfigFileError(UserError):
    """A config.yml cannot be read, or is none of a run of ours; the message names the file and the line."""


def read_config(path: Path, classes: Iterable[type] = SURFACE_SOS_CLASSES) -> Any:
    """What a config.yml describes: of a run of ours, its SurfaceSOSTrainerConfig.

    Args:
        path: the file.
        classes: dataclasses that are built from it, and no others.

    Raises:
        ConfigFileError: it cannot be read, or holds something else.
    """

    class Loader(_Loader):
        """Builds `classes` as well."""

    for kind in classes:
        Loader.add_constructor(f"{YAML}python/object:{kind.__module__}.{kind.__qualname__}", _builder(kind))
    return _read(path, lambda loader, node: loader.construct_document(node), Loader)


def method_of(path: Path) -> str | None:
    """The method that a config.yml says it is of, whatever else it holds; None where it does not say."""

    def method_name(loader: _Loader, node: yaml.Node) -> str | None:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
            if key.value == "method_name" and isinstance(value, yaml.ScalarNode):
                return str(value.value)
        return None

    try:
        return cast("str | None", _read(path, method_name))
    except ConfigFileError:
        return None


def _read(path: Path, take: Callable[[_Loader, yaml.Node], Any], kind: type[_Loader] | None = None) -> Any:
    content = path.read_bytes()
    if len(content) > MAX_FILE_BYTES:
        raise ConfigFileError(f"{path} has {len(content)} bytes; expected the config.yml of a run, which is small.")
    try:
        loader = (kind or _Loader)(content.decode("utf-8"))
        node = loader.get_single_node()
        if node is None:
            raise ValueError("it is empty")
        if _count(node, {}) > MAX_VALUES:
            raise ValueError("it repeats itself too often")
        return take(loader, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigFileError(f"{path}{line} cannot be read as the config.yml of a run: {error.problem}.") from error
    except Exception as error:  # the parser fails in many ways where a tag and its value do not fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigFileError(f"{path} cannot be read as the config.yml of a run ({reason}).") from error


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """Number of values of a node with its aliases expanded; over `MAX_VALUES` for a node that contains itself."""
    if id(node) not in counts:
        counts[id(node)] = MAX_VALUES  # reached again below where the node contains itself
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        counts[id(node)] = min(1 + sum(_count(part, counts) for part in parts), MAX_VALUES + 1)
    return counts[id(node)]


class _Loader(yaml.SafeLoader):
    """Builds numbers, text, lists, dictionaries, tuples, paths, names of events, and nothing else."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuses YAML's merge key `<<`: it is not used here, and with it a small file can expand to a large one."""
        for key, _ in node.value:
            if _tag(key) == "!!merge":
                raise _error("'<<' is not expected here", key)


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _tag(node: yaml.Node) -> str:
    """A node's tag as it is written in a file."""
    return str(node.tag).replace(YAML, "!!", 1)


def _refuse(loader: _Loader, node: yaml.Node) -> Any:
    raise _error(
        f"{_tag(node)} is no part of the configuration of a run of this package, and nothing that the file names is "
        "run. If it is your own run, restore the file; if you were given it, do not open it with nerfstudio's commands",
        node,
    )


def _sequence(loader: _Loader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise _error("expected a list", node)
    return loader.construct_sequence(node, deep=True)


def _tuple(loader: _Loader, node: yaml.Node) -> tuple[Any, ...]:
    return tuple(_sequence(loader, node))


def _path(loader: _Loader, node: yaml.Node) -> Path:
    parts = _sequence(loader, node)
    if not all(isinstance(part, str) for part in parts):
        raise _error("expected the parts of a path", node)
    return Path(*parts)


def _event(loader: _Loader, node: yaml.Node) -> EventName:
    try:
        (value,) = _sequence(loader, node)
        return EventName(value)
    except ValueError as error:
        raise _error("expected the name of an event", node) from error


def _builder(kind: type) -> Any:
    """The constructor of instances of a dataclass."""
    defaults = {field.name: _default(field) for field in dataclasses.fields(kind)}

    def build(loader: _Loader, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.MappingNode):
            raise _error(f"expected the options of {kind.__name__}", node)
        values = {}
        for key, value in node.value:
            if key.value not in defaults:
                raise _error(f"{kind.__name__} has no option {key.value!r}", key)
            values[key.value] = _value(loader, value, defaults[key.value], f"{key.value} of {kind.__name__}")
        return kind(**values)

    return build


def _value(loader: _Loader, node: yaml.Node, default: Any, what: str) -> Any:
    """An option's value. A class or a function must be the one that the option has anyway."""
    if callable(default):
        known = f"!!python/name:{default.__module__}.{default.__name__}"
        if _tag(node) != known:
            raise _error(f"{what} is {_tag(node)}; expected {known}, and nothing else is taken", node)
        return default
    value = loader.construct_object(node, deep=True)
    if not _alike(value, default):
        raise _error(f"{what} is {type(value).__name__}; expected {type(default).__name__}", node)
    return value


def _alike(value: Any, default: Any) -> bool:
    """Whether a value may stand where another one does: of its kind, any number for a number, or none."""
    if default is None or (value is None and not dataclasses.is_dataclass(default)):
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int | float):
        return isinstance(value, int | float)
    return isinstance(value, Path if isinstance(default, Path) else type(default))


def _default(field: dataclasses.Field[Any]) -> Any:
    """A field's default; None where it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


_Loader.add_constructor(None, _refuse)
_Loader.add_constructor(f"{YAML}python/tuple", _tuple)
_Loader.add_constructor(f"{YAML}python/object/apply:{EventName.__module__}.{EventName.__name__}", _event)
for _name in PATHS:
    _Loader.add_constructor(f"{YAML}python/object/apply:{_name}", _path)
