"""Checkpoint files of a run: written whole or not at all, read only when whole.

The files keep nerfstudio's names (``step-000001000.ckpt``) and keys, so that its own tools read them too.
"""

from __future__ import annotations

import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.files import WriteError, atomic_file

SCENE = "_model.scene."
"""How the names of a scene's tensors begin in a checkpoint."""
_NAME = re.compile(r"step-(\d+)\.ckpt")
_REQUIRED_KEYS = ("step", "pipeline", "optimizers", "scalers")


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete or belongs to another model. The message names the file and what to do."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where nerfstudio looks for the checkpoint of ``step``."""
    return folder / f"step-{step:09d}.ckpt"


def list_checkpoints(folder: Path) -> list[Path]:
    """Files with a checkpoint's name, newest step first, complete or not. A missing folder has none."""
    if not folder.is_dir():
        return []
    named = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named, reverse=True)]


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], only_latest: bool) -> Path:
    """Write ``state`` so that at every moment, also after a crash or a power cut, a complete checkpoint exists.

    Args:
        folder: created if it does not exist.
        step: the last trained step; names the file.
        state: what ``torch.save`` writes; must load with ``weights_only=True``.
        only_latest: delete the other checkpoints, after the new one is safely on the disk.

    Returns:
        The new file.

    Raises:
        CheckpointError: it could not be written (a full disk, say). Older checkpoints are untouched.
    """
    path = checkpoint_path(folder, step)
    try:
        with atomic_file(path, durable=True) as unfinished, unfinished.open("wb") as file:
            torch.save(state, file)
    except (WriteError, RuntimeError) as error:
        reason = str(error)
        if not isinstance(error, WriteError):  # how torch says that a file did not grow as it was written
            reason = f"{path} could not be written; is the disk full?"
        raise CheckpointError(f"{reason} Older checkpoints in that folder are intact.") from error
    if only_latest:
        for other in list_checkpoints(folder):
            if other != path:
                other.unlink(missing_ok=True)
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU after checking that it is complete.

    Raises:
        CheckpointError: the file is missing, truncated, damaged or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged (checksum of {damaged}).")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.") from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise CheckpointError(f"{path} is truncated or not a checkpoint ({error}).") from error
    except Exception as error:  # of what a file holds, unpickling fails in many ways
        if isinstance(error, (CheckpointError, MemoryError)):
            raise
        raise CheckpointError(f"{path} cannot be read ({error}).") from error
    missing = [key for key in _REQUIRED_KEYS if not isinstance(state, dict) or key not in state]
    if missing:
        raise CheckpointError(f"{path} is not a checkpoint of a training run (no {', '.join(missing)}).")
    for key, kind in (("step", int), ("pipeline", dict), ("optimizers", dict), ("scalers", dict)):
        if not isinstance(state[key], kind):
            raise CheckpointError(
                f"{path} is not a checkpoint of a training run ('{key}' is {type(state[key]).__name__}, expected "
                f"{kind.__name__})."
            )
    return state


def find_checkpoint(folder: Path, step: int | None, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """The newest complete checkpoint of a folder, or the one of a given step.

    Args:
        folder: a run's checkpoint folder; the run's own folder (the one with config.yml) is taken as well.
        step: exactly this step; None for the newest that is complete.
        say: told about every file that is passed over, in one sentence.

    Returns:
        The file and its contents, on the CPU.

    Raises:
        CheckpointError: there is none.
    """
    folder = _checkpoint_folder(folder)
    if step is not None:
        return checkpoint_path(folder, step), read_checkpoint(checkpoint_path(folder, step))
    for path in list_checkpoints(folder):
        try:
            return path, read_checkpoint(path)
        except CheckpointError as error:
            say(f"Skipping a checkpoint: {error}")
    raise CheckpointError(
        f"No complete checkpoint in {folder}. Expected files like {checkpoint_path(folder, 1000).name}; "
        "give the nerfstudio_models folder of a run that has saved at least once."
    )


def read_total_steps(source: Path) -> int | None:
    """The total number of steps a checkpoint's run was started with, without reading its tensors.

    Args:
        source: a checkpoint file or a folder of them; the newest readable one answers.

    Returns:
        The number, or None where nothing readable holds one (a checkpoint of another trainer).
    """
    for path in [source] if source.is_file() else list_checkpoints(_checkpoint_folder(source)):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception:
            continue  # loading the weights skips this file too, and reports it
        total = state.get("total_steps") if isinstance(state, dict) else None
        return total if isinstance(total, int) else None
    return None


def random_state() -> dict[str, Any]:
    """State of the random number generators of Python, numpy and torch (CPU and every CUDA device in use).

    Tensors and plain Python only, so that it loads with ``weights_only=True``.
    """
    name, keys, position, has_gauss, cached_gauss = np.random.get_state()
    numbers = torch.from_numpy(np.asarray(keys, dtype=np.int64))  # uint32 in a type torch has
    return {
        "python": random.getstate(),
        "numpy": (name, numbers, int(position), int(has_gauss), float(cached_gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo of `random_state`. CUDA states are restored where the same number of devices is there again."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached_gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached_gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def _checkpoint_folder(folder: Path) -> Path:
    """The folder itself, or the checkpoint folder inside it when a run's folder was given."""
    inner = folder / "nerfstudio_models"
    return inner if inner.is_dir() and not list_checkpoints(folder) else folder
