"""Command lines as bash, nerfstudio and we take them apart, without running what they say."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import tyro
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.scripts import eval as evaluation
from nerfstudio.scripts import exporter, process_data, render
from nerfstudio.scripts.viewer import run_viewer

from surface_sos_ns import cli
from surface_sos_ns.plugin.methods import SPECIFICATIONS
from tests.helpers.paths import ROOT

METHODS: dict[str, TrainerConfig] = {str(method.config.method_name): method.config for method in SPECIFICATIONS}

NERFSTUDIO: dict[str, Any] = {
    "ns-render": render.Commands,
    "ns-export": exporter.Commands,
    "ns-eval": evaluation.ComputePSNR,
    "ns-viewer": tyro.conf.FlagConversionOff[run_viewer.RunViewer],
    "ns-process-data": process_data.Commands,
}
"""What reads the arguments of nerfstudio's commands, ns-train apart."""


def words(shell_line: str) -> list[str]:
    """The arguments that bash makes of a line, in the repository's folder."""
    line = ["bash", "-c", f"printf '%s\\0' {shell_line}"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def parsed(command: Any, arguments: list[str], **options: Any) -> Any:
    """What tyro makes of a command's arguments, or a failure with what it said."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return tyro.cli(command, args=arguments, **options)
    except SystemExit:
        pytest.fail(f"{' '.join(arguments)}\n{said.getvalue()}")


def train_config(arguments: list[str]) -> TrainerConfig:
    """What `ns-train ARGUMENTS` would run."""
    default = METHODS[arguments[0]]
    # nerfstudio's own markers: without them a bool would be a pair of flags.
    markers = (tyro.conf.SuppressFixed, tyro.conf.FlagConversionOff)
    return parsed(type(default), arguments[1:], default=default, config=markers)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting below a config, with its name as an option."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            name = field.name.replace("_", "-")
            yield from leaves(getattr(value, field.name), f"{path}.{name}" if path else name)
    else:
        yield path, value


class Parsed(BaseException):
    """Leaves a command between reading its arguments and doing what they say."""


def our_command(arguments: list[str]) -> Any:
    """What `surface-sos ARGUMENTS` would run, or a failure with what it said."""
    real = tyro.cli

    def read_only(*given: Any, **options: Any) -> Any:
        raise Parsed(real(*given, **options))

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        patch.setattr(tyro, "cli", read_only)
        try:
            cli.main(arguments)
        except Parsed as ended:
            return ended.args[0]
        except SystemExit:
            pass
    pytest.fail(f"surface-sos {' '.join(arguments)}\n{said.getvalue()}")


def help_text(program: str, arguments: tuple[str, ...]) -> str:
    """What a command other than ns-train prints for `PROGRAM ARGUMENTS --help`."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        if program == "surface-sos":
            cli.main([*arguments, "--help"])
        else:
            tyro.cli(NERFSTUDIO[program], prog=program, args=[*arguments, "--help"])
    assert ended.value.code == 0
    return said.getvalue()
