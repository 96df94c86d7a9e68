"""Files that machines exchange through a URL: local disks, S3 and whatever else fsspec knows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from surface_sos_ns.batch.error import BatchError
from surface_sos_ns.batch.job import Kind
from surface_sos_ns.utils.files import atomic_file, atomic_folder

__all__ = ["Storage", "download", "kind_of_names", "matches", "names_below", "versions_below"]


class Storage:
    """A folder behind a URL.

    Args:
        url: of the folder; it need not exist.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none.

        Raises:
            BatchError: the storage does not answer.
        """
        with _opened(f"{self.url}/{name}") as (system, path):
            system.invalidate_cache()
            return system.cat_file(path) if system.exists(path) else None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file.

        Raises:
            BatchError: the storage does not take it.
        """
        with _opened(f"{self.url}/{name}") as (system, path):
            _make_parent(system, path)
            system.pipe_file(path, content)

    def send(self, source: Path, name: str) -> None:
        """Replaces a file or folder there by a local one; where that does not exist, there is none afterwards.

        Raises:
            BatchError: the storage does not take it.
        """
        with _opened(f"{self.url}/{name}") as (system, path):
            system.invalidate_cache()
            if system.exists(path):
                system.rm(path, recursive=True)
            _make_parent(system, path)
            if source.is_dir():
                system.put(f"{source}/", f"{path}/", recursive=True)
            elif source.exists():
                system.put_file(str(source), path)

    def fetch(self, name: str, target: Path) -> None:
        """Replaces a local file or folder by the one there, if there is one.

        Raises:
            BatchError: the storage does not answer.
        """
        with _opened(f"{self.url}/{name}") as (system, path):
            system.invalidate_cache()
            there = system.exists(path)
        if there:
            if target.is_dir():
                shutil.rmtree(target)
            download(f"{self.url}/{name}", target)


def download(url: str, target: Path) -> None:
    """Copies a file or folder to this machine; it is there as a whole or not at all.

    Raises:
        BatchError: there is nothing, or the storage does not answer.
    """
    with _opened(url) as (system, path):
        if not system.exists(path):
            raise BatchError(f"{url} does not exist.")
        target.parent.mkdir(parents=True, exist_ok=True)
        if system.isdir(path):
            with atomic_folder(target) as partial:
                system.get(f"{path.rstrip('/')}/", f"{partial}/", recursive=True)
        else:
            with atomic_file(target) as partial:
                system.get_file(path, str(partial))


def names_below(url: str) -> list[str] | None:
    """Files below a URL, relative to it; None where it is a file itself.

    Raises:
        BatchError: there is nothing, or the storage does not answer.
    """
    with _opened(url) as (system, path):
        if not system.exists(path):
            raise BatchError(f"{url} does not exist; expected photos, a video, a scene or a recipe there.")
        if not system.isdir(path):
            return None
        return [found[len(path.rstrip("/")) + 1 :] for found in system.find(path)]


def versions_below(url: str) -> list[list[str]]:
    """Files below a URL, or the file there: its name, size and what the storage says of its version.

    Raises:
        BatchError: the storage does not answer.
    """
    with _opened(url) as (system, path):
        system.invalidate_cache()
        found = system.find(path, detail=True)
        marks = ("size", "ETag", "etag", "mtime", "LastModified")
        return [[name, *(str(about[mark]) for mark in marks if mark in about)] for name, about in sorted(found.items())]


def matches(url: str) -> list[str]:
    """URLs that a pattern matches, sorted; itself where it is none.

    Raises:
        BatchError: the storage does not answer.
    """
    if not any(sign in url for sign in "*?["):
        return [url]
    with _opened(url) as (system, path):
        return sorted(system.unstrip_protocol(found) for found in system.glob(path))


def kind_of_names(names: Sequence[str] | None) -> Kind:
    """What a source is, by the files below it; None is a file."""
    if names is None:
        return "video"
    has_model = any(name.startswith(("sparse/", "colmap/sparse/")) for name in names)
    return "scene" if "transforms.json" in names or has_model else "photos"


def _make_parent(system: Any, path: str) -> None:
    """Object stores have no folders; disks need them."""
    system.makedirs(path.rsplit("/", 1)[0], exist_ok=True)


@contextmanager
def _opened(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL, and the path in it; its errors in a sentence."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        yield system, path
    except ImportError as error:
        raise BatchError(f"{url} needs a package that is not installed: {error}.") from error
    except BatchError:
        raise
    except ValueError as error:
        raise BatchError(f"{url} is no URL of a storage that is known ({error}).") from error
    except Exception as error:  # each storage has errors of its own
        raise BatchError(f"{url} cannot be read or written ({type(error).__name__}: {error}).") from error
