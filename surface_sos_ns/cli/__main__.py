"""`python -m surface_sos_ns.cli` is `surface-sos`."""

from __future__ import annotations

import sys

from surface_sos_ns.cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())
