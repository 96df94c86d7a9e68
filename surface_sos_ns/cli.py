"""The console command `surface-sos`."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from surface_sos_ns.bench.settings import BenchError, Kernels, Quality, Render, ResultFile, Train
from surface_sos_ns.capture.convert.blendedmvs import BlendedMvs
from surface_sos_ns.capture.convert.co3d import Co3d
from surface_sos_ns.capture.convert.llff import Llff
from surface_sos_ns.capture.convert.tum import Tum
from surface_sos_ns.export.command import Export
from surface_sos_ns.masks.command import Masks
from surface_sos_ns.plugin.compat.known_warnings import silence_known_warnings
from surface_sos_ns.process.command import Process
from surface_sos_ns.report.command import Report
from surface_sos_ns.utils.errors import DEBUG, explanation
from surface_sos_ns.utils.signals import leaving_on, stopped_by
from surface_sos_ns.utils.text import escape_in_output, printable


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


@dataclass
class Convert:
    """Write a scene of a public data set as a capture: poses, photos, and masks and points where it has them."""

    what: (
        Annotated[Llff, tyro.conf.subcommand(name="llff")]
        | Annotated[Co3d, tyro.conf.subcommand(name="co3d")]
        | Annotated[BlendedMvs, tyro.conf.subcommand(name="blendedmvs")]
        | Annotated[Tum, tyro.conf.subcommand(name="tum")]
    )

    def main(self) -> None:
        """Runs the command."""
        self.what.main()


@dataclass
class Bench:
    """Measure on this machine how fast this package is, against others where they are installed, and how good."""

    what: (
        Annotated[Kernels, tyro.conf.subcommand(name="kernels")]
        | Annotated[Train, tyro.conf.subcommand(name="train")]
        | Annotated[Render, tyro.conf.subcommand(name="render")]
        | Annotated[Quality, tyro.conf.subcommand(name="quality")]
    )

    def main(self) -> None:
        """Runs the command."""
        self.what.check()  # before torch is imported: a mistake in the options is told at once
        if isinstance(self.what, Quality):
            _quality(self.what)
        else:
            _speed(self.what)


def _speed(settings: Kernels | Train | Render) -> None:
    from surface_sos_ns.bench.report import show

    result: dict[str, Any]
    if isinstance(settings, Kernels):
        from surface_sos_ns.bench.kernels import run_kernels

        result = run_kernels(settings)
    elif isinstance(settings, Train):
        from surface_sos_ns.bench.train import run_train

        result = run_train(settings)
    else:
        from surface_sos_ns.bench.render import run_render

        result = run_render(settings)
    _write(settings, result)
    show(result)


def _quality(settings: Quality) -> None:
    from surface_sos_ns.bench.quality.runner import run_quality
    from surface_sos_ns.bench.quality.table import failures, plain, show

    outcomes = run_quality(settings)
    if settings.json is not None:
        from surface_sos_ns.bench.protocol import choose_device, header

        _write(settings, header("quality", settings, choose_device("auto")) | plain(outcomes))
    show(outcomes)
    print(settings.output.resolve() / "results.md")
    failed = failures(outcomes)
    if failed:
        raise BenchError(f"{len(failed)} of {len(outcomes)} runs failed; the same command tries them again.")


def _write(settings: ResultFile, result: dict[str, Any]) -> None:
    from surface_sos_ns.utils.files import write_json

    if settings.json is not None:
        write_json(settings.json, result)


Command = (
    Annotated[Demo, tyro.conf.subcommand(name="demo")]
    | Annotated[Capture, tyro.conf.subcommand(name="capture")]
    | Annotated[Convert, tyro.conf.subcommand(name="convert")]
    | Annotated[Process, tyro.conf.subcommand(name="process")]
    | Annotated[Masks, tyro.conf.subcommand(name="masks")]
    | Annotated[Export, tyro.conf.subcommand(name="export")]
    | Annotated[Bench, tyro.conf.subcommand(name="bench")]
    | Annotated[Report, tyro.conf.subcommand(name="report")]
)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status. See `utils.errors` for which errors are sentences."""
    escape_in_output()
    command = tyro.cli(
        Command,
        args=arguments,
        prog="surface-sos",
        description=f"Tools beside ns-train and ns-render. With {DEBUG}=1 in the environment errors show their trace.",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    silence_known_warnings()
    try:
        with leaving_on(signal.SIGTERM):
            command.main()
    except KeyboardInterrupt:
        _complain("stopped.")
        return 128 + signal.SIGINT
    except SystemExit as end:
        by = stopped_by(end.code)
        if by is None:
            raise
        _complain("stopped.")
        return 128 + by
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains of the same when it ends
        return 1
    except Exception as error:
        words = explanation(error)
        if words is None:
            print(printable(traceback.format_exc()), end="", file=sys.stderr)
            words = "this is a fault of the program, not of your input. Please report it with the lines above."
        _complain(words)
        return 1
    return 0


def _complain(words: str) -> None:
    print(f"surface-sos: {printable(words)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
