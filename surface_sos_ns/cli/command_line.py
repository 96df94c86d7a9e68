"""Reads the command line, runs the command, and turns errors into a sentence and an exit status."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Annotated

import tyro

from surface_sos_ns.cli.batch import Batch
from surface_sos_ns.cli.bench import Bench
from surface_sos_ns.cli.capture import Capture
from surface_sos_ns.cli.convert import Convert
from surface_sos_ns.cli.demo import Demo
from surface_sos_ns.cli.export import Export
from surface_sos_ns.cli.masks import Masks
from surface_sos_ns.cli.parts import Parts
from surface_sos_ns.cli.process import Process
from surface_sos_ns.cli.report import Report
from surface_sos_ns.plugin.compat.known_warnings import silence_known_warnings
from surface_sos_ns.utils.errors import DEBUG, explanation
from surface_sos_ns.utils.signals import exit_on_signal, signal_of_status
from surface_sos_ns.utils.text import escape_in_output, printable

Command = (
    Annotated[Demo, tyro.conf.subcommand(name="demo")]
    | Annotated[Capture, tyro.conf.subcommand(name="capture")]
    | Annotated[Convert, tyro.conf.subcommand(name="convert")]
    | Annotated[Process, tyro.conf.subcommand(name="process")]
    | Annotated[Masks, tyro.conf.subcommand(name="masks")]
    | Annotated[Parts, tyro.conf.subcommand(name="parts")]
    | Annotated[Export, tyro.conf.subcommand(name="export")]
    | Annotated[Batch, tyro.conf.subcommand(name="batch")]
    | Annotated[Bench, tyro.conf.subcommand(name="bench")]
    | Annotated[Report, tyro.conf.subcommand(name="report")]
)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status. See `utils.errors` for which errors are sentences."""
    escape_in_output()
    command = parse(arguments)
    silence_known_warnings()
    try:
        with exit_on_signal(signal.SIGTERM):
            command.main()
    except KeyboardInterrupt:
        _complain("stopped.")
        return 128 + signal.SIGINT
    except SystemExit as end:
        by = signal_of_status(end.code)
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


def parse(arguments: list[str] | None) -> Command:
    """The command that the words of a command line ask for. Words that it does not know end the program."""
    return tyro.cli(
        Command,
        args=arguments,
        prog="surface-sos",
        description=f"Tools beside ns-train and ns-render. With {DEBUG}=1 in the environment errors show their trace.",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )


def _complain(words: str) -> None:
    print(f"surface-sos: {printable(words)}", file=sys.stderr)
