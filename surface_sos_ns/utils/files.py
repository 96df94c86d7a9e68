"""Atomic writing of files and folders, with errors that name the file.

Content is written to a temporary file or folder beside the target, which is then renamed. Temporaries are locked
(`utils.locks`), so that those of killed processes can be told from those being written.
"""

from __future__ import annotations

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
from surface_sos_ns.utils.locks import try_lock, unlock

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "WriteError",
    "atomic_file",
    "atomic_folder",
    "bytes_of",
    "check_writable",
    "leftovers",
    "remove_leftovers",
    "require_space",
    "resumable",
    "temporary_folder",
    "write_arrays",
    "write_bytes",
    "write_json",
    "write_text",
    "writing",
]

PREFIX, SUFFIX = ".surface-sos-", ".part"
"""Prefix and suffix of the names of temporary files and folders."""


class WriteError(UserError):
    """A file or folder cannot be written; the message names it. An existing target is unchanged.

    Attributes:
        errno: of the OSError; None if it had none.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context manager: an OSError about `path`, or about a file below it, becomes a WriteError that names the file.

    Raises:
        WriteError: the disk is full or read-only, permission is missing, a parent folder is a file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise  # an error of a library, for example of an image that cannot be decoded
        where, target = path, Path(os.path.realpath(path))
        name = error.filename if error.filename2 is None else error.filename2  # the target of a copy or rename
        if isinstance(name, (str, bytes)):  # some errors name no file, such as a full disk
            where = Path(os.fsdecode(name))
            found = Path(os.path.realpath(where))
            if found in target.parents or any(part.startswith(PREFIX) for part in found.parts):
                where = path
            elif found != target and target not in found.parents:
                raise  # an error about another file
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
def atomic_file(path: Path, durable: bool = False) -> Iterator[Path]:
    """Context manager: a temporary file to write to. It replaces `path` at the end, and is removed on an error.

    Missing folders are created. The file has the mode of the one it replaces, else the default of the umask.

    Args:
        path: the target. If it is a symbolic link, the file it points to is replaced.
        durable: call fsync, so that the file survives a power failure.

    Raises:
        WriteError: the file cannot be written; `path` is unchanged.
    """
    target = Path(os.path.realpath(path))
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = _new_temporary(target.parent, _touch)
    try:
        with writing(path):
            if target.exists():
                shutil.copymode(target, temporary)
            yield temporary
            if durable:
                _sync(temporary)
            os.replace(temporary, target)
            if durable:
                _sync(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        unlock(lock)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Context manager: a temporary folder to fill. It becomes `folder` at the end, and is removed on an error.

    Args:
        folder: the target; must not exist, or be empty.

    Raises:
        WriteError: the folder cannot be written, or another process has created it meanwhile.
    """
    with temporary_folder(folder.parent) as temporary:
        try:
            with writing(folder):
                yield temporary
                os.replace(temporary, folder)
        except WriteError as error:  # name the files by their final paths
            raise WriteError(str(error).replace(str(temporary), str(folder)), error.errno) from error


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Context manager: a temporary folder inside `folder`, removed at the end with its content.

    Raises:
        WriteError: it cannot be created.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary, lock = _new_temporary(folder, Path.mkdir)
    try:
        yield temporary
    except WriteError as error:  # do not show the temporary name
        raise WriteError(str(error).replace(f"{temporary.name}{os.sep}", ""), error.errno) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        unlock(lock)


def bytes_of(path: Path) -> bytes | None:
    """The content of a file; None where there is none."""
    return path.read_bytes() if path.is_file() else None


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically. Lone surrogates (bytes of file names that are not UTF-8) are escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes arrays as a compressed .npz file, atomically."""
    import numpy as np

    archive = io.BytesIO()  # in memory: numpy's zip file raises a second error when it is closed on a full disk
    np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]
    write_bytes(path, archive.getvalue())


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(result, indent=1) + "\n")


def check_writable(folder: Path) -> None:
    """Tries to write a file to a folder, or to its nearest parent that exists. To be called before long work.

    Raises:
        WriteError: a file cannot be written there; the message says why.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with writing(existing):
        temporary, lock = _new_temporary(existing, _touch)
    try:
        with writing(existing):
            temporary.write_bytes(bytes(4096))  # a full disk still accepts empty files
    finally:
        temporary.unlink(missing_ok=True)
        unlock(lock)


def require_space(path: Path, megabytes: int) -> None:
    """Checks the free disk space, for libraries that abort the process on a full disk.

    Args:
        path: an existing file or folder on the disk.
        megabytes: needed, in 2^20 bytes.

    Raises:
        WriteError: there is less.
    """
    free = shutil.disk_usage(path).free // 2**20
    if free < megabytes:
        raise WriteError(f"{path} could not be written: {free} MB are free on its disk; expected {megabytes} at least.")


def leftovers(folder: Path) -> Iterator[Path]:
    """Temporary files and folders of processes that have ended, in a folder. Each is locked while it is yielded."""
    for path in sorted(folder.glob(f"{PREFIX}*{SUFFIX}")):
        try:
            lock = try_lock(path)
        except OSError:
            continue  # another process is writing it, or it is gone
        if lock is None:
            continue  # without locks one cannot know
        try:
            yield path
        finally:
            unlock(lock)


def remove_leftovers(folder: Path) -> None:
    """Removes the `leftovers` of a folder."""
    for path in leftovers(folder):
        with suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _new_temporary(folder: Path, make: Callable[[Path], object]) -> tuple[Path, int | None]:
    """Creates a file or folder with a random name in a folder and locks it; returns its path and the lock."""
    while True:
        temporary = folder / f"{PREFIX}{secrets.token_hex(6)}{SUFFIX}"
        with suppress(FileExistsError):
            make(temporary)
            with suppress(
                BlockingIOError, FileNotFoundError
            ):  # removed by another process as a leftover, before it was locked
                return temporary, try_lock(temporary)


def _touch(path: Path) -> None:
    path.open("xb").close()


def _sync(path: Path) -> None:
    """Calls fsync on a file or folder. Windows cannot open folders, and does not need it."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
