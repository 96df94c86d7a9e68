"""The console command `surface-sos`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass
class Demo:
    """Run the whole demo: render a capture, train, measure, export, and write a page of pictures."""

    output: Path = Path("demo_output")
    """Folder for everything the demo makes. A second run reuses the capture and adds a new run folder."""
    method: str = "surface-sos-lite"
    """The method to train, as in ns-train."""
    iterations: int | None = 1500
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


@dataclass
class Capture:
    """Only render the demo capture: photos, poses, noisy masks, and the truth to score against."""

    output: Path = Path("demo_capture")
    """Folder of the capture; give it to ns-train with --data."""
    views: int = 48
    """Photos in the capture; every 8th from the 5th on is held out for measuring."""
    width: int = 200
    """Width of the photos in pixels."""
    height: int = 150
    """Height of the photos in pixels."""
    seed: int = 0
    """Equal seeds give equal captures."""
    workers: int | None = None
    """Processes to render with; by default the usable CPUs (or OMP_NUM_THREADS where that is set)."""
    quality: float = 1.0
    """Mesh density, light rays and anti-aliasing; 0.4 renders quickly."""

    def main(self) -> None:
        """Runs the command."""
        from surface_sos_ns.demo.capture import write_demo_capture

        folder = write_demo_capture(
            self.output, self.views, self.width, self.height, self.seed, self.workers, quality=self.quality
        )
        print(folder.resolve())


Command = Annotated[Demo, tyro.conf.subcommand(name="demo")] | Annotated[Capture, tyro.conf.subcommand(name="capture")]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status. A user's mistake is a sentence, not a traceback."""
    command = tyro.cli(Command, args=arguments, prog="surface-sos", description="Tools beside ns-train and ns-render.")
    from surface_sos_ns.demo.run import DemoError

    try:
        command.main()
    except (DemoError, ValueError, OSError) as error:
        print(f"surface-sos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("surface-sos: stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
