"""What `surface-sos batch` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = ["BatchSettings", "StageName"]

StageName = Literal["fetch", "outlines", "process", "masks", "train", "eval", "export", "report"]


@dataclass
class BatchSettings:
    """Which captures are worked on, how, and where."""

    captures: tyro.conf.Positional[tuple[str, ...]]
    """Folders of photos, videos, scenes (transforms.json or COLMAP's folders), patterns in quotes ("shoots/*"), URLs
    (s3://...), or recipes (.yml) with options for each capture."""
    output: Path
    """Folder of the results: index.html, results.csv, results.json and a folder a capture. The same command again goes
    on where it stopped; what is done is not done again."""
    method: str | None = None
    """The method to train, as in ns-train; by default surface-sos where there is a GPU, surface-sos-lite elsewhere."""
    steps: int | None = None
    """Training steps; the method's own by default."""
    seed: int = 42
    """Of all random numbers in training; 42 is ns-train's own."""
    masks: str | None = None
    """Make coarse masks by this method of surface-sos masks before training. By default those that a capture has are
    used, and without any the object is found in training."""
    what: tuple[str, ...] = ()
    """What is exported, as in surface-sos export."""
    from_stage: Annotated[StageName | None, tyro.conf.arg(name="from")] = None
    """Do this stage and those after it again, done or not. What was there is kept in earlier-N."""
    cpus: int | None = None
    """Cores a capture, and threads of its commands; by default all of this machine's, at most 4, or OMP_NUM_THREADS
    where that is set."""
    gpus: float | None = None
    """GPUs a capture while it is trained and rendered, 0.5 for two captures on one; by default 1 where there are
    some."""
    retries: int = 2
    """How often a stage is begun again whose process was killed or whose machine was lost."""
    address: str | None = None
    """Of a Ray cluster to join: auto, or HOST:PORT. By default Ray is started on this machine alone, for this batch,
    and answers this machine alone."""
    dashboard: bool = False
    """Ray's own page about machines and stages, where Ray is started here. It takes 2 % of a core."""
    storage: str | None = None
    """A URL that machines without a shared folder exchange results through, and where they are all to be found in the
    end: s3://BUCKET/FOLDER, or any other that fsspec knows. OUTPUT is each machine's own then."""
