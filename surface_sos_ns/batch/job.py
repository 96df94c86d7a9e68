"""One capture of a batch: where it comes from, where it goes, and with which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

__all__ = ["Job", "Kind", "words"]

Kind = Literal["photos", "video", "scene"]
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """A capture and all that its results depend on.

    Attributes:
        name: of its folder in the output.
        source: path, or URL.
        kind: what is there.
        folder: for everything that is made of it.
        method, steps, seed: of the training.
        options: of each stage's command, by the stage's name; None where the stage is left out.
    """

    name: str
    source: str
    kind: Kind
    folder: Path
    method: str
    steps: int | None = None
    seed: int = 42
    options: Mapping[str, Options | None] = field(default_factory=dict)

    @property
    def is_remote(self) -> bool:
        """Whether the source is a URL."""
        return "://" in self.source

    @property
    def place(self) -> Path:
        """The source on this machine, once it is there."""
        return self.folder / "source" / PurePosixPath(self.source).name if self.is_remote else Path(self.source)

    @property
    def scene(self) -> Path:
        """The folder that is trained on: the capture itself, unless poses or masks are made here."""
        return self.place if self.kind == "scene" and self.options.get("masks") is None else self.folder / "scene"


def words(options: Options, flags: bool) -> list[str]:
    """Options as a command line has them.

    Args:
        options: by name, with dashes or underscores; a list is several words.
        flags: a switch is `--name` or `--no-name`, as in surface-sos; elsewhere `--name True`, as in ns-train.
    """
    found: list[str] = []
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool) and flags:
            found.append(f"--{option}" if value else f"--no-{option}")
        else:
            values = value if isinstance(value, (list, tuple)) else [value]
            found += [f"--{option}", *map(str, values)]
    return found
