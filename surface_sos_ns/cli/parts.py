"""The command `surface-sos parts`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from surface_sos_ns.parts.settings import PartsSettings
from surface_sos_ns.utils.text import printable

__all__ = ["Parts"]


@dataclass
class Parts(PartsSettings):
    """Find the parts of an object of a run, without labels: handle, spout and body, the same in every view."""

    def main(self) -> None:
        """Runs the command."""
        self.check()
        from surface_sos_ns.api import load_run
        from surface_sos_ns.parts.find import find_parts

        find_parts(load_run(self.load_config, self.data), self, _say)
        moved = () if self.data is None else ("--data", str(self.data))
        export = ("surface-sos", "export", "--load-config", str(self.load_config), *moved)
        chosen = () if self.object is None else ("--objects", self.object)
        _say(f"Next: {shlex.join((*export, '--output-dir', 'RESULTS', '--what', 'parts', *chosen))}")


def _say(words: str) -> None:
    print(printable(words), flush=True)
