"""Parts that were found on a finished run, kept beside it: RUN/parts/parts_K.npz, one file for each number of parts; of
one of several objects parts_NAME_K.npz.

A file holds the head's weights and facts about them, as arrays and JSON: reading it runs nothing. The run itself, its
checkpoints and config.yml, stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surface_sos_ns.models.surface_sos.heads.parts import PartHead
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.plugin.console import warn
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.files import write_arrays

__all__ = [
    "PARTS_FOLDER",
    "PartFacts",
    "PartResult",
    "PartResultError",
    "heads_of",
    "parts_file",
    "read_parts",
    "save_parts",
    "usable_parts",
]

PARTS_FOLDER = "parts"
VERSION = 1
"""Of the files; raised when what they hold changes."""
MAX_PARTS = 64


class PartResultError(UserError):
    """A file of parts cannot be used; the message names it, and says what to do."""


@dataclass(frozen=True)
class PartFacts:
    """What is known of a result."""

    checkpoint: str
    """Name of the checkpoint on whose surface the parts were found."""
    features: str
    """What described the photos."""
    seed: int
    """Of the start."""
    areas: tuple[float, ...]
    """Share of the surface of each part, in the order of their numbers."""
    pieces: tuple[int, ...]
    """Connected pieces of each part, without specks."""
    order: int
    """Results of a run are numbered in the order in which they were made."""
    object: str | None = None
    """Name of one of several objects; None of a run with one."""


@dataclass(frozen=True)
class PartResult:
    """Parts of one run."""

    file: Path
    head: PartHead
    facts: PartFacts

    @property
    def parts(self) -> int:
        """Their number K."""
        return self.head.parts

    @property
    def identities(self) -> str:
        """Name of the output of the parts' identities."""
        return self.head.identities_name


def parts_file(run: Path, parts: int, object: str | None = None) -> Path:
    """The file of K parts of the run in a folder; of one of several objects by its name."""
    of = "" if object is None else f"{object}_"
    return run / PARTS_FOLDER / f"parts_{of}{parts}.npz"


def save_parts(run: Path, head: PartHead, facts: PartFacts) -> Path:
    """Write a result, in place of one of as many parts.

    Raises:
        WriteError: it cannot be written; one that was there is unchanged.
    """
    about = {"version": VERSION, "parts": head.parts, **asdict(facts)}
    if facts.object is None:
        del about["object"]
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in head.state_dict().items()}
    file = parts_file(run, head.parts, facts.object)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(file, about=np.array(json.dumps(about)), **weights)
    return file


def read_parts(file: Path, ops: TorchOps, objects: Sequence[str] = ()) -> PartResult:
    """A result.

    Args:
        file: of `save_parts`.
        ops: back-end of the numeric operations.
        objects: names of the run's objects, where those are several.

    Raises:
        PartResultError: it is damaged, of another version, of an object that there is not, or something else.
    """
    advice = "Make it again: surface-sos parts --overwrite, or remove the file."
    try:
        with np.load(file, allow_pickle=False) as stored:
            about: Any = json.loads(str(stored["about"]))
            weights = {name: torch.as_tensor(stored[name]) for name in stored.files if name != "about"}
        if about["version"] != VERSION:
            raise PartResultError(f"{file} is of version {about['version']}; expected {VERSION}. {advice}")
        parts = about["parts"]
        if not isinstance(parts, int) or not 2 <= parts <= MAX_PARTS:
            raise ValueError(f"{parts} parts")
        name = about.get("object")
        if name not in (objects or (None,)):
            whose = "the only object of a run" if name is None else f"the object {name!r}"
            raise PartResultError(f"{file} is of {whose}, which this run does not have. Remove the file.")
        head = PartHead(parts, ops, None if name is None else (name, objects.index(name) + 1))
        head.load_state_dict(weights)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
            raise ValueError("weights that are not finite")
        facts = PartFacts(
            checkpoint=str(about["checkpoint"]),
            features=str(about["features"]),
            seed=int(about["seed"]),
            areas=tuple(float(value) for value in about["areas"]),
            pieces=tuple(int(value) for value in about["pieces"]),
            order=int(about["order"]),
            object=name,
        )
    except PartResultError:
        raise
    except Exception as error:  # numpy, zipfile, json and torch raise many types for a damaged file
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PartResultError(f"{file} is damaged or no file of parts ({words}). {advice}") from error
    return PartResult(file, head.requires_grad_(False), facts)


def usable_parts(run: Path, checkpoint: str, ops: TorchOps, objects: Sequence[str] = ()) -> list[PartResult]:
    """The results beside a run, the latest first. Those that cannot be used are left out, with a line that says why.

    Args:
        run: its folder, with config.yml.
        checkpoint: name of the checkpoint that is loaded: parts of another one's surface do not fit.
        ops: back-end of the numeric operations.
        objects: names of the run's objects, where those are several.
    """
    found = []
    for file in sorted((run / PARTS_FOLDER).glob("parts_*.npz")):
        try:
            result = read_parts(file, ops, objects)
        except PartResultError as error:
            warn(f"Left out: {error}")
            continue
        if result.facts.checkpoint != checkpoint:
            warn(
                f"Left out: {file} is of {result.facts.checkpoint}, and {checkpoint} is loaded. Find the parts again: "
                "surface-sos parts --overwrite."
            )
            continue
        found.append(result)
    return sorted(found, key=lambda result: -result.facts.order)


def heads_of(results: Iterable[PartResult]) -> list[PartHead]:
    """The heads of results, the latest first; that one is marked as such, and so is the latest of each object.

    Not where another result has the name that this would give it: `parts_cup_2` of the object `cup_2`, where `cup` has
    2 parts.
    """
    heads = [result.head for result in results]
    names, objects = {head.name for head in heads}, set[str]()
    for index, head in enumerate(heads):
        head.latest = index == 0
        if head.object is not None:
            name = head.object[0]
            head.latest_of_object = name not in objects and f"parts_{name}" not in names
            objects.add(name)
    return heads
