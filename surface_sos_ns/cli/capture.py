"""The command `surface-sos capture`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Capture"]


@dataclass
class Capture:
    """Only render the demo capture: photos, poses, noisy masks, and the truth to score against."""

    output: Path = Path("demo_capture")
    """Folder of the capture; give it to ns-train with --data."""
    views: int = 48
    """Photos in the capture; every 8th from the 5th on is held out for measuring."""
    width: int | None = None
    """Width of the photos in pixels; by default 200, and 320 with several objects."""
    height: int | None = None
    """Height of the photos in pixels; by default 150, and 240 with several objects."""
    seed: int = 0
    """Equal seeds give equal captures."""
    workers: int | None = None
    """Processes to render with; by default the usable CPUs (or OMP_NUM_THREADS where that is set)."""
    quality: float = 1.0
    """Mesh density, light rays and anti-aliasing; 0.4 renders quickly."""
    painted: bool = True
    """The object's own colours. Without them it is of one colour all over, so that its parts differ in shape alone."""
    objects: bool = False
    """Several objects instead of the watering can alone: it and four things around it."""

    def main(self) -> None:
        """Runs the command."""
        from surface_sos_ns.demo.capture import write_demo_capture

        folder = write_demo_capture(
            self.output,
            self.views,
            self.width,
            self.height,
            self.seed,
            self.workers,
            quality=self.quality,
            painted=self.painted,
            objects=self.objects,
        )
        print(folder.resolve())
