"""Canary: nerfstudio's commands end with a traceback where an error explains itself.

What `plugin/compat/tracebacks.py` makes of that is tested with the errors.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from nerfstudio.scripts import train

from surface_sos_ns.utils.errors import UserError


def test_nerfstudio_catches_no_error_that_explains_itself() -> None:
    def save_config() -> None:
        raise UserError("The capture has no photos.")

    config: Any = SimpleNamespace(
        data=None,
        prompt=None,
        load_config=None,
        set_timestamp=lambda: None,
        print_to_terminal=lambda: None,
        save_config=save_config,
    )
    with pytest.raises(UserError):
        train.main(config)
