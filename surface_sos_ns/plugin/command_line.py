"""What the user typed, where nerfstudio's settings do not tell a choice from a default."""

from __future__ import annotations

import sys


def typed(option: str) -> bool:
    """Whether an option is on the command line; written with dashes, as in `--max-num-iterations`."""
    return option in (argument.split("=")[0].replace("_", "-") for argument in sys.argv[1:])
