"""The command line of nerfstudio's commands: what the user typed, and the line that continues a run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

__all__ = ["resume_command", "typed"]


def typed(option: str) -> bool:
    """Whether an option is on the command line, where nerfstudio's settings do not tell a choice from a default.

    Args:
        option: written with dashes, as in `--max-num-iterations`.
    """
    return option in (argument.split("=")[0].replace("_", "-") for argument in sys.argv[1:])


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
