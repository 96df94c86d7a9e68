"""The command `surface-sos export`."""

from __future__ import annotations

from dataclasses import dataclass

from surface_sos_ns.export.settings import ExportSettings

__all__ = ["Export"]


@dataclass
class Export(ExportSettings):
    """Write what a run found as files: masks, mattes, cut-outs, clean plates, videos, the mesh, parts."""

    def main(self) -> None:
        """Runs the command."""
        self.check()
        from surface_sos_ns.api import load_run
        from surface_sos_ns.export.writer import write_export

        for line in write_export(load_run(self.load_config, self.data), self):
            print(line)
