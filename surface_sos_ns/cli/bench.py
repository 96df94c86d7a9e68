"""The command `surface-sos bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from surface_sos_ns.bench.settings import BenchError, Kernels, Parts, Quality, Render, ResultFile, Saliency, Train

__all__ = ["Bench"]


@dataclass
class Bench:
    """Measure on this machine how fast this package is, against others where they are installed, and how good."""

    what: (
        Annotated[Kernels, tyro.conf.subcommand(name="kernels")]
        | Annotated[Train, tyro.conf.subcommand(name="train")]
        | Annotated[Render, tyro.conf.subcommand(name="render")]
        | Annotated[Quality, tyro.conf.subcommand(name="quality")]
        | Annotated[Parts, tyro.conf.subcommand(name="parts")]
        | Annotated[Saliency, tyro.conf.subcommand(name="saliency")]
    )

    def main(self) -> None:
        """Runs the command."""
        self.what.check()  # before torch is imported: a mistake in the options is told at once
        if isinstance(self.what, Quality):
            _quality(self.what)
        elif isinstance(self.what, Saliency):
            _saliency(self.what)
        elif isinstance(self.what, Parts):
            _parts(self.what)
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


def _parts(settings: Parts) -> None:
    from surface_sos_ns.bench.parts import run_parts, show

    result = run_parts(settings)
    if settings.json is not None:
        from surface_sos_ns.bench.protocol import choose_device, header

        _write(settings, header("parts", settings, choose_device("auto")) | result)
    show(result)


def _saliency(settings: Saliency) -> None:
    from surface_sos_ns.bench.saliency.folders import run_saliency, show

    result = run_saliency(settings)
    if settings.json is not None:
        from surface_sos_ns.bench.protocol import choose_device, header

        _write(settings, header("saliency", settings, choose_device("cpu")) | result)
    show(result)


def _write(settings: ResultFile, result: dict[str, Any]) -> None:
    from surface_sos_ns.utils.files import write_json

    if settings.json is not None:
        write_json(settings.json, result)
