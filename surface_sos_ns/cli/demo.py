"""The command `surface-sos demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Demo"]


@dataclass
class Demo:
    """Run the whole demo: render a capture, train, measure, export, and write a report with pictures."""

    output: Path = Path("demo_output")
    """Folder for everything the demo makes. A second run reuses the capture and adds a new run folder."""
    method: str = "surface-sos-lite"
    """The method to train, as in ns-train."""
    iterations: int | None = 5000
    """Training steps: fewer than the method's default suffice for small pictures. None takes that default."""
    views: int = 48
    """Photos in the capture; every 8th from the 5th on is held out for measuring."""
    width: int = 200
    """Width of the photos in pixels."""
    height: int = 150
    """Height of the photos in pixels."""
    seed: int = 0
    """Equal seeds give equal captures."""

    def main(self) -> None:
        """Runs the command."""
        from surface_sos_ns.demo.run import run_demo

        run_demo(self.output, self.method, self.iterations, self.views, self.width, self.height, self.seed)
