"""Which of a run's objects an export is of, and how files and outputs of one of them are called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from surface_sos_ns.api import RunError
from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.settings import ExportSettings
from surface_sos_ns.plugin.outputs import output_of

if TYPE_CHECKING:
    from surface_sos_ns.api import Run

__all__ = ["ALL", "Subject", "subjects", "together", "with_objects"]

ALL = "all"
"""In options, and in names of files that are of all exported objects together; no object can be called so."""


@dataclass(frozen=True)
class Subject:
    """What a file of an export is of: the only object of a run, or one of several.

    Attributes:
        name: of one of several; None for the only one.
    """

    name: str | None = None

    def output(self, output: str) -> str:
        """Name of its output, such as alpha."""
        return output if self.name is None else output_of(output, self.name)

    @property
    def mask(self) -> str:
        """Name of the output that is over 0.5 in its mask."""
        return "alpha" if self.name is None else self.output("mask")

    def file(self, name: str) -> str:
        """Name of its file among those of other objects, such as transforms_object."""
        return name if self.name is None else f"{name}_{self.name}"

    def folder(self, folder: str) -> str:
        """Its folder in one of a kind of files."""
        return folder if self.name is None else f"{folder}/{self.name}"


def subjects(settings: ExportSettings) -> list[Subject]:
    """What the files of an export are of.

    Args:
        settings: of `with_objects`.
    """
    return [Subject(name) for name in settings.objects] or [Subject()]


def together(settings: ExportSettings) -> list[Subject]:
    """All exported objects as one subject, where they are several; settings of `with_objects`."""
    return [Subject(ALL)] if len(settings.objects) > 1 else []


def with_objects(run: Run, settings: ExportSettings) -> ExportSettings:
    """The settings with the names of all objects that are exported, and that clean plates are without.

    Both are empty where the run has one object.

    Raises:
        ExportError: an object is named that there is not.
    """
    return replace(
        settings, objects=_named(run, "--objects", settings.objects), remove=_named(run, "--remove", settings.remove)
    )


def _named(run: Run, option: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The objects that an option names, in the run's order; all where it is not given."""
    asked = () if names == (ALL,) else names
    try:
        return run.check_objects(asked) or run.objects
    except RunError as error:
        raise ExportError(f"{option}: {error}") from error
