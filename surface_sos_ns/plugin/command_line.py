"""The command line of nerfstudio's commands: what the user typed, and the line that continues a run."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

__all__ = ["changed_options", "resume_command", "typed"]


def typed(option: str) -> bool:
    """Whether an option is on the command line, where nerfstudio's settings do not tell a choice from a default.

    Args:
        option: written with dashes, as in `--max-num-iterations`.
    """
    return option in (argument.split("=")[0].replace("_", "-") for argument in sys.argv[1:])


def changed_options(config: Any, preset: Any, without: Collection[str] = (), prefix: str = "") -> list[str]:
    """The arguments of a command line that turn a preset's settings into those of a run.

    Args:
        config, preset: settings of one kind (dataclasses within dataclasses).
        without: names of fields that are left out, with dots: `pipeline.model.total_steps`.
        prefix: the field that holds these settings, with a dot behind it.

    Returns:
        Options and their values, in the order of the fields. What no option sets (lists, mappings) is left out.
    """
    found: list[str] = []
    for field in dataclasses.fields(config):
        name = f"{prefix}{field.name}"
        if name in without or not hasattr(preset, field.name):
            continue
        value, before = getattr(config, field.name), getattr(preset, field.name)
        if dataclasses.is_dataclass(value) and dataclasses.is_dataclass(before):
            found += changed_options(value, before, without, f"{name}.")
        elif value != before and not isinstance(value, (dict, list, type)):
            values = value if isinstance(value, tuple) else (value,)
            found += [f"--{name.replace('_', '-')}", *map(str, values)]
    return found


def resume_command(method: str, checkpoints: Path, data: Path | None, repeat: bool) -> str:
    """The command line that continues a run.

    Args:
        method: of the run.
        checkpoints: the folder of its checkpoints.
        data: its capture.
        repeat: take over the options of the ns-train that is running, if it is one, instead of naming the capture.
    """
    arguments = sys.argv[1:]
    if not repeat or Path(sys.argv[0]).name != "ns-train" or arguments[:1] != [method]:
        return shlex.join(["ns-train", method, "--data", str(data), "--load-dir", str(checkpoints)])
    kept: list[str] = []
    values_to_drop = 0
    for argument in arguments[1:]:
        option, has_value, _ = argument.partition("=")
        if option.replace("_", "-") in ("--load-dir", "--load-step", "--load-checkpoint"):
            values_to_drop = 0 if has_value else 1
        elif values_to_drop:
            values_to_drop -= 1
        else:
            kept.append(argument)
    return shlex.join(["ns-train", method, "--load-dir", str(checkpoints), *kept])
