"""What each loss was while a run trained: a few numbers every so many steps, in the run's folder.

nerfstudio's own writers keep them only where TensorBoard or the like was asked for. One line of JSON per record:
`{"step": 100, "seconds": 3.2, "memory_gb": 1.5, "losses": {"colour": 0.01}, "metrics": {"psnr": 21.0}}`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.files import write_text, writing
from surface_sos_ns.utils.memory import peak_gb

if TYPE_CHECKING:
    import pydantic

LOSS_FILE = "losses.jsonl"

Step = Annotated[int, Ge(0), Lt(2**53)]
NotNegative = Annotated[float, Ge(0), Lt(math.inf)]


@dataclass(frozen=True)
class LossRecord:
    """The training batch of one step.

    Attributes:
        step: counted from 0.
        seconds: of training until then, pauses between a stop and a resume left out.
        memory_gb: most memory so far, of the GPU where it trains on one, else of the process; None where unknown.
        losses: weighted as they are summed up, by name; nan or infinite where training has diverged.
        metrics: by name.
    """

    step: Step
    seconds: NotNegative
    memory_gb: NotNegative | None
    losses: dict[str, float]
    metrics: dict[str, float]


def read_losses(path: Path) -> list[LossRecord]:
    """The records of a file in order; none where there is no file. A last line that a kill left unfinished is skipped.

    Raises:
        UserError: another line is no record; the message names it.
    """
    import pydantic  # which training does not wait for

    record = pydantic.TypeAdapter(LossRecord)
    lines = path.read_bytes().rstrip().split(b"\n") if path.is_file() else []
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(record.validate_json(line, strict=True))
        except pydantic.ValidationError as error:
            if number == len(lines) and error.errors()[0]["type"] == "json_invalid":
                break
            raise UserError(
                f"{path}, line {number} is no record of losses: {_problem(error)}. The file is damaged; take this line "
                "out, or delete the file: curves of the losses are all that is lost."
            ) from error
    return records


def _problem(error: pydantic.ValidationError) -> str:
    """What is wrong first in a line, and where: "losses.colour: Input should be a valid number"."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(step) for step in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]


class LossLog:
    """Appends records to a file; one write each, so that a kill loses the last one at most.

    Args:
        path: the file; its folder is made when the first record is written.
        every: steps between two records.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, max(1, every)
        self._seconds_before = 0.0
        self._started: float | None = None

    def resume(self, source: Path, step: int) -> None:
        """Takes over what another file (or this one) knows of the steps before `step`, and forgets what came after.

        Raises:
            UserError: that file is damaged.
            WriteError: it cannot be written.
        """
        kept = [record for record in read_losses(source) if record.step < step]
        if kept:
            write_text(self.path, "".join(json.dumps(vars(record)) + "\n" for record in kept))
            self._seconds_before = kept[-1].seconds
        else:
            self.path.unlink(missing_ok=True)

    def add(self, step: int, losses: Mapping[str, Tensor], metrics: Mapping[str, Tensor], last: bool = False) -> bool:
        """Records a step if it is one of those to be recorded, or the run's last; returns whether it was.

        Raises:
            WriteError: it cannot be written; the file is as it was.
        """
        if self._started is None:
            self._started = time.monotonic()
        if step % self.every and not last:
            return False
        names = [*losses, *metrics]
        # One transfer for all of them, where they are on a GPU.
        values = torch.stack(
            [torch.as_tensor(v).detach().float().mean() for v in (*losses.values(), *metrics.values())]
        )
        numbers = [float(f"{value:.6g}") for value in values.tolist()]
        record = LossRecord(
            step,
            round(self._seconds_before + time.monotonic() - self._started, 3),
            _memory_gb(values.device),
            dict(zip(names[: len(losses)], numbers, strict=False)),
            dict(zip(names[len(losses) :], numbers[len(losses) :], strict=True)),
        )
        self._append(json.dumps(vars(record)) + "\n")
        return True

    def _append(self, line: str) -> None:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as stream:
                end = stream.tell()
                try:
                    if stream.write(line.encode()) < len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError:
                    stream.truncate(end)  # half a line would corrupt the next record
                    raise


def _memory_gb(device: torch.device) -> float | None:
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e9, 3)
    peak = peak_gb()
    return None if peak is None else round(peak, 3)
