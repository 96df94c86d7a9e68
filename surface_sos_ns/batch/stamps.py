"""What is done of a capture, and whether it is still what would be done now."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from surface_sos_ns.batch.job import Job
from surface_sos_ns.batch.stages import Stage, stages_of
from surface_sos_ns.batch.storage import versions_below
from surface_sos_ns.capture.lookup import visible_files
from surface_sos_ns.utils.files import write_json

__all__ = ["Stamp", "fingerprint", "move_aside", "read_stamp", "source_fingerprint", "stamp_path", "write_stamp"]

SMALLER_COPY = re.compile(r"_\d+$")
"""Folders of smaller photos and masks that trainings leave in a capture (images_2)."""
BLOCK = 2**20
"""Bytes that are read at a time."""


@dataclass(frozen=True)
class Stamp:
    """Beside a stage's outputs.

    Attributes:
        fingerprint: of all that they depend on.
        done: whether they are complete.
        seconds, cpu_seconds, peak_gb: that it took; None where it is not known.
    """

    fingerprint: str
    done: bool
    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_gb: float | None = None


def stamp_path(job: Job, stage: Stage) -> Path:
    """Where a stage's stamp is."""
    return job.folder / "stages" / f"{stage.name}.json"


def read_stamp(content: bytes | None) -> Stamp | None:
    """The stamp in a file; None where there is none, or another version of this package wrote it differently."""
    if content is None:
        return None
    try:
        return Stamp(**json.loads(content))
    except (ValueError, TypeError):
        return None


def write_stamp(job: Job, stage: Stage, stamp: Stamp) -> None:
    """Writes a stage's stamp."""
    path = stamp_path(job, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(stamp))


def source_fingerprint(job: Job) -> str:
    """Of the content of a capture's files; of what the storage says of them where it is a URL."""
    digest = hashlib.blake2b(digest_size=16)
    if job.is_remote:
        digest.update(json.dumps(versions_below(job.source)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()
    place = job.place
    for name in visible_files(place) if place.is_dir() else [""]:
        if any(SMALLER_COPY.search(part) for part in Path(name).parts[:-1]):
            continue
        path = place / name if name else place
        digest.update(f"{name}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


def fingerprint(job: Job, stage: Stage, before: str) -> str:
    """Of all that a stage's outputs depend on.

    Args:
        job, stage: which.
        before: the fingerprint of the stage before, or of the source.
    """
    run = [job.method, job.seed, job.steps] if stage.name == "train" else []
    options = job.options.get(stage.name) or {}
    # Not the command's words: they name files that may be on another machine.
    content = [
        before,
        stage.name,
        [[name, str(options[name])] for name in sorted(options)],
        run,
        version("surface-sos-ns"),
    ]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def move_aside(job: Job, first: Stage) -> Path | None:
    """Moves the outputs of a stage and of those after it to `earlier-N`; returns that folder, if anything was there."""
    stages = stages_of(job)
    later = stages[stages.index(first) :]
    outputs = [name for stage in later if not stage.in_place for name in stage.outputs]
    names = [*outputs, *(str(stamp_path(job, stage).relative_to(job.folder)) for stage in later)]
    there = [name for name in dict.fromkeys(names) if (job.folder / name).exists()]
    if not there:
        return None
    return _moved(job.folder, there)


def _moved(folder: Path, names: Sequence[str]) -> Path:
    number = next(number for number in range(1, 10_000) if not (folder / f"earlier-{number}").exists())
    aside = folder / f"earlier-{number}"
    for name in names:
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder / name, aside / name)
    return aside
