"""Locks on files and folders that end with the process, so that a killed process leaves none behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from surface_sos_ns.utils.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

__all__ = ["InUseError", "lock_folder", "locked_folder", "try_lock", "unlock", "unlock_folder"]

_locked: dict[Path, int] = {}
"""Folders that this process has locked, and the file descriptors that hold the locks."""


class InUseError(UserError):
    """Another process has locked the folder; the message names the folder."""


def lock_folder(folder: Path, advice: str) -> None:
    """Locks a folder against other processes that lock it, until `unlock_folder` or the end of this process.

    Does nothing on systems without such locks (Windows, some network file systems), or if this process has the lock.

    Args:
        folder: must exist.
        advice: what the user can do if another process has the lock; ends the message.

    Raises:
        InUseError: another process has the lock.
    """
    here = folder.resolve()
    if here in _locked:
        return
    try:
        lock = try_lock(here)
    except BlockingIOError:
        raise InUseError(f"Another process is writing to {folder}. {advice}") from None
    if lock is not None:
        _locked[here] = lock


def unlock_folder(folder: Path) -> None:
    """Releases the lock of `lock_folder`, if there is one."""
    unlock(_locked.pop(folder.resolve(), None))


@contextmanager
def locked_folder(folder: Path, advice: str) -> Iterator[None]:
    """Context manager: locks a folder as `lock_folder` does, and releases it unless it was locked before."""
    before = folder.resolve() in _locked
    lock_folder(folder, advice)
    try:
        yield
    finally:
        if not before:
            unlock_folder(folder)


def try_lock(path: Path) -> int | None:
    """Locks a file or folder.

    Returns:
        A file descriptor: closing it (`unlock`) or the end of the process releases the lock. None on systems without
        such locks.

    Raises:
        BlockingIOError: another process has locked it.
        FileNotFoundError: it does not exist, or was replaced meanwhile.
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


def unlock(lock: int | None) -> None:
    """Releases a lock of `try_lock`; None is none."""
    if lock is not None:
        os.close(lock)
