"""The command `surface-sos batch`."""

from __future__ import annotations

from dataclasses import dataclass

from surface_sos_ns.batch.settings import BatchSettings

__all__ = ["Batch"]


@dataclass
class Batch(BatchSettings):
    """Take many captures from photos to masks, meshes and reports, with one overview page; on one machine or a Ray
    cluster."""

    def main(self) -> None:
        """Runs the command."""
        from surface_sos_ns.batch.run import run_batch
        from surface_sos_ns.cli.command_line import parse

        run_batch(self, parse)
