"""The command `surface-sos parts`."""

from __future__ import annotations

from dataclasses import dataclass

from surface_sos_ns.parts.settings import PartsSettings
from surface_sos_ns.utils.text import printable

__all__ = ["Parts"]


@dataclass
class Parts(PartsSettings):
    """Find the parts of a run's object, without labels: handle, spout and body, the same in every view."""

    def main(self) -> None:
        """Runs the command."""
        self.check()
        from surface_sos_ns.api import load_run
        from surface_sos_ns.parts.find import find_parts

        find_parts(load_run(self.load_config, self.data), self, _say)
        _say(
            f"Next: surface-sos export --load-config {self.load_config} --what parts, or see them as `parts` in "
            f"ns-viewer --load-config {self.load_config}"
        )


def _say(words: str) -> None:
    print(printable(words), flush=True)
