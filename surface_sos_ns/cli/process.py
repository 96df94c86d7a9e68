"""The command `surface-sos process`."""

from __future__ import annotations

from dataclasses import dataclass

from surface_sos_ns.process.settings import ProcessSettings

__all__ = ["Process"]


@dataclass
class Process(ProcessSettings):
    """Make a scene with poses from photos or a video, by pycolmap alone: no COLMAP program, no GPU needed."""

    def main(self) -> None:
        """Runs the command."""
        from surface_sos_ns.process.run import run_process

        print(run_process(self))
