"""Files and folders of results: a reader never meets half of one, and what cannot be written is named.

What is being written has a name of its own beside its goal, and a lock that ends with the process. So what a killed
process left behind can be told from what another one is writing at this moment.
"""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surface_sos_ns.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "InUseError",
    "WriteError",
    "check_writable",
    "held",
    "hold",
    "leftovers",
    "made_whole",
    "release",
    "remove_leftovers",
    "require_space",
    "resumable",
    "scratch",
    "write_arrays",
    "write_bytes",
    "write_json",
    "write_text",
    "writing",
    "written_whole",
]

PREFIX, SUFFIX = ".surface-sos-", ".part"
"""How the names of files and folders begin and end that are being written."""

_held: dict[Path, int] = {}
"""Folders that this process holds, and the open descriptors that their locks are on."""


class WriteError(UserError):
    """A file or folder cannot be written; the message names it. What was there before is as it was.

    Attributes:
        errno: the system's number of the reason, as of an OSError; None where it gave none.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number


class InUseError(UserError):
    """Another process is writing to the same folder; the message names it."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, the system's refusals to write to `path`, or below it, become an error that names the file.

    Raises:
        WriteError: the disk is full or read-only, the user may not write there, a folder is a file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise  # a library's own error, of a picture that cannot be decoded say
        where, goal = path, Path(os.path.realpath(path))
        name = error.filename if error.filename2 is None else error.filename2  # of a copy, that which is written
        if isinstance(name, (str, bytes)):  # else it names no file, as where the disk is full
            where = Path(os.fsdecode(name))
            found = Path(os.path.realpath(where))
            if found in goal.parents or any(part.startswith(PREFIX) for part in found.parts):
                where = path
            elif found != goal and goal not in found.parents:
                raise  # another file's error
        raise WriteError(f"{where} could not be written: {error.strerror or error}.", error.errno) from error


@contextmanager
def resumable() -> Iterator[None]:
    """Inside, a `WriteError` also says that the same command goes on where it stopped.

    Raises:
        WriteError: with these words behind its own.
    """
    try:
        yield
    except WriteError as error:
        words = f"{error} Make room, then give the same command again: it goes on from there."
        raise WriteError(words, error.errno) from error


@contextmanager
def written_whole(path: Path, durable: bool = False) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its name when all went well and is removed when it did not.

    Folders that are missing are made. Its mode is what `open` would give: that of the file which is there, else what
    the umask leaves.

    Args:
        path: the goal. Where it is a link, what it points to is written.
        durable: wait until the disk has it, so that it survives a power cut as well.

    Raises:
        WriteError: it cannot be written. What was at `path` is as it was.
    """
    goal = Path(os.path.realpath(path))
    with writing(path):
        goal.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = _begun(goal.parent, _touch)
    try:
        with writing(path):
            if goal.exists():
                shutil.copymode(goal, temporary)
            yield temporary
            if durable:
                _sync(temporary)
            os.replace(temporary, goal)
            if durable:
                _sync(goal.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _release(lock)


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to fill, which takes its name when all went well and is removed when it did not.

    Args:
        folder: the goal; it does not exist, or is empty.

    Raises:
        WriteError: it cannot be written, or somebody else has made it meanwhile.
    """
    with scratch(folder.parent) as temporary:
        try:
            with writing(folder):
                yield temporary
                os.replace(temporary, folder)
        except WriteError as error:  # files are named by where they would be
            raise WriteError(str(error).replace(str(temporary), str(folder)), error.errno) from error


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder inside `folder` to work in; it is removed at the end, with what is in it then.

    Raises:
        WriteError: it cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary, lock = _begun(folder, Path.mkdir)
    try:
        yield temporary
    except WriteError as error:  # it means nothing to a reader
        raise WriteError(str(error).replace(f"{temporary.name}{os.sep}", ""), error.errno) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _release(lock)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes the whole file or leaves what was there.

    Raises:
        WriteError: it cannot be written.
    """
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes the whole file as `write_bytes` does. What UTF-8 cannot hold (odd bytes of file names) is escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes arrays as an .npz file, compressed, as `write_bytes` does."""
    import numpy as np

    archive = io.BytesIO()  # of a file that is full, numpy's writer complains once more when it is forgotten
    np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]
    write_bytes(path, archive.getvalue())


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Writes a result as `write_text` does."""
    write_text(path, json.dumps(result, indent=1) + "\n")


def check_writable(folder: Path) -> None:
    """Tries to write to a folder, or to the nearest one above it that exists. To be called before long work.

    Raises:
        WriteError: a file cannot be made there; the message says why.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with writing(existing):
        temporary, lock = _begun(existing, _touch)
    try:
        with writing(existing):
            temporary.write_bytes(bytes(4096))  # a full disk takes names
    finally:
        temporary.unlink(missing_ok=True)
        _release(lock)


def require_space(path: Path, megabytes: int) -> None:
    """Makes sure that there is room before a library writes that ends the process where there is none.

    Raises:
        WriteError: there is less on the disk of `path`, a file or folder that exists.
    """
    free = shutil.disk_usage(path).free // 2**20
    if free < megabytes:
        raise WriteError(f"{path} could not be written: {free} MB are free on its disk; expected {megabytes} at least.")


# ------------------------------------------------------------------ who writes where


def hold(folder: Path, advice: str) -> None:
    """Keeps other processes from writing to a folder until `release`, or until this process ends, however it does.

    Nothing happens where the system has no locks that end with a process (Windows, some network disks).

    Args:
        folder: exists.
        advice: what the user may do when another process holds it; ends the sentence.

    Raises:
        InUseError: another process holds it.
    """
    here = folder.resolve()
    if here in _held:
        return
    try:
        lock = _lock(here)
    except BlockingIOError:
        raise InUseError(f"Another process is writing to {folder}. {advice}") from None
    if lock is not None:
        _held[here] = lock


def release(folder: Path) -> None:
    """Lets other processes write to a folder that this one held."""
    _release(_held.pop(folder.resolve(), None))


@contextmanager
def held(folder: Path, advice: str) -> Iterator[None]:
    """Holds a folder as `hold` does, inside."""
    known = folder.resolve() in _held
    hold(folder, advice)
    try:
        yield
    finally:
        if not known:
            release(folder)


def leftovers(folder: Path) -> Iterator[Path]:
    """What processes that no longer exist have left unfinished in a folder; each is locked while the caller has it."""
    for path in sorted(folder.glob(f"{PREFIX}*{SUFFIX}")):
        try:
            lock = _lock(path)
        except OSError:
            continue  # it is being written, or is gone
        if lock is None:
            continue  # nobody can know
        try:
            yield path
        finally:
            _release(lock)


def remove_leftovers(folder: Path) -> None:
    """Removes what processes that no longer exist have left unfinished in a folder, and nothing else."""
    for path in leftovers(folder):
        with suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _begun(folder: Path, make: Callable[[Path], object]) -> tuple[Path, int | None]:
    """Makes a file or folder in a folder, and locks it; returns its path and the lock's descriptor."""
    while True:
        temporary = folder / f"{PREFIX}{secrets.token_hex(6)}{SUFFIX}"
        with suppress(FileExistsError):
            make(temporary)
            with suppress(BlockingIOError, FileNotFoundError):  # taken for a leftover, between the two
                return temporary, _lock(temporary)


def _touch(path: Path) -> None:
    path.open("xb").close()


def _lock(path: Path) -> int | None:
    """Locks a file or folder until the descriptor that is returned is closed, or its process has ended.

    None where the system has no such locks.

    Raises:
        BlockingIOError: it is locked.
        FileNotFoundError: it is gone.
    """
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, (BlockingIOError, FileNotFoundError)):
            raise
        return None
    return descriptor


def _release(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _sync(path: Path) -> None:
    """Waits until the disk has a file, or the names in a folder. Windows cannot open folders, and need not."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
