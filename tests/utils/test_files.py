"""Files appear whole or not at all, what cannot be written is named, and processes keep out of each other's way."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from surface_sos_ns.utils.files import (
    PREFIX,
    SUFFIX,
    WriteError,
    atomic_file,
    atomic_folder,
    check_writable,
    remove_leftovers,
    require_space,
    temporary_folder,
    write_arrays,
    write_bytes,
    write_json,
    write_text,
    writing,
)
from surface_sos_ns.utils.locks import InUseError, fcntl, lock_folder, locked_folder, unlock_folder
from tests.helpers.paths import ROOT
from tests.helpers.terminal import another_process

locks = pytest.mark.skipif(fcntl is None, reason="this system has no locks that end with their process")
HOLDER = """
import sys, time
from pathlib import Path
from tests.helpers.terminal import another_process
from surface_sos_ns.utils.files import atomic_file, atomic_folder
from surface_sos_ns.utils.locks import lock_folder
folder = Path(sys.argv[1])
lock_folder(folder, "")
with atomic_file(folder / "file") as file, atomic_folder(folder / "inner") as inner:
    file.write_text("half")
    (inner / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(300)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    os.umask(before)

    def use(mask: int) -> None:
        os.umask(mask)

    yield use
    os.umask(before)


# ------------------------------------------------------------------ writing


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "made" / "too" / "file"
    write_bytes(path, b"first")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        assert path.read_bytes() == b"first"
        temporary.write_bytes(b"sec")
        raise RuntimeError
    assert path.read_bytes() == b"first" and names(path.parent) == ["file"]
    write_text(path, "caf\udce9")  # a name's byte that is not UTF-8
    assert path.read_bytes() == rb"caf\udce9"
    write_json(path, {"name": "caf\udce9"})
    assert json.loads(path.read_text()) == {"name": "caf\udce9"}
    write_arrays(path, numbers=np.arange(5))
    with np.load(path) as stored:
        assert stored["numbers"].tolist() == [0, 1, 2, 3, 4]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "file").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == []
    with atomic_folder(folder) as temporary:
        (temporary / "file").write_text("whole")
        assert not folder.exists()
    assert names(tmp_path) == ["folder"] and (folder / "file").read_text() == "whole"
    with pytest.raises(WriteError, match=f"{folder} could not be written"), atomic_folder(folder):
        pass  # somebody has made it meanwhile
    assert (folder / "file").read_text() == "whole"


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="modes are those of Unix")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_modes_are_what_open_and_mkdir_would_give(mask: int, tmp_path: Path, umask: Callable[[int], None]) -> None:
    umask(mask)
    (tmp_path / "plain").write_text("")
    (tmp_path / "plain folder").mkdir()
    write_text(tmp_path / "ours", "")
    with atomic_folder(tmp_path / "our folder"):
        pass

    def mode(name: str) -> int:
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    assert (mode("ours"), mode("our folder")) == (mode("plain"), mode("plain folder"))
    assert (mode("ours"), mode("our folder")) == (0o666 & ~mask, 0o777 & ~mask)
    (tmp_path / "ours").chmod(0o640)
    write_text(tmp_path / "ours", "again")
    assert mode("ours") == 0o640


def test_a_refusal_of_the_system_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = tmp_path / "results" / "file", tmp_path / "scene"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(WriteError, match=f"^{path} could not be written: No space left on device\\.$"):
            write_text(path, "new")
        with (
            pytest.raises(WriteError, match=f"^{folder / 'images' / 'a'} could not"),
            atomic_folder(folder) as temporary,
        ):
            write_text(temporary / "images" / "a", "new")
        with (
            pytest.raises(WriteError, match=f"^{tmp_path / 'masks' / 'a'} could not"),
            temporary_folder(tmp_path) as temporary,
        ):
            write_text(temporary / "masks" / "a", "new")
    assert path.read_text() == "old" and names(tmp_path) == ["results"] and names(path.parent) == ["file"]
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=f"^{tmp_path / 'file' / 'a'} could not be written: File exists"):
        write_text(tmp_path / "file" / "a", "")


def test_errors_that_are_not_about_the_file_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file"):
        (tmp_path / "something else").read_bytes()
    with pytest.raises(OSError, match="no picture") as caught, atomic_file(tmp_path / "file"):
        raise OSError("no picture")
    assert not isinstance(caught.value, WriteError)
    with pytest.raises(WriteError, match=str(tmp_path / "inside")), writing(tmp_path):
        (tmp_path / "inside" / "file").write_bytes(b"")


def test_whether_a_folder_can_be_written_to_is_tried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "not" / "yet" / "there")
    assert names(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=str(tmp_path / "file")):
        check_writable(tmp_path / "file" / "folder")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match="No space left on device"):
        check_writable(tmp_path)
    assert names(tmp_path) == ["file"]
    with pytest.raises(WriteError, match=r"\d+ MB are free on its disk; expected"):
        require_space(tmp_path, 10**12)


# ------------------------------------------------------------------ other processes


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds a folder and is amid writing a file and a folder in it."""
    with another_process(HOLDER, tmp_path) as process:
        yield process


@locks
def test_what_another_process_writes_is_left_alone_until_it_is_killed(
    tmp_path: Path, holder: subprocess.Popen[bytes]
) -> None:
    foreign = tmp_path / f"other{SUFFIX}"
    foreign.write_text("of another program")
    remove_leftovers(tmp_path)
    assert len(names(tmp_path)) == 3
    with pytest.raises(InUseError, match=f"writing to {tmp_path}. Do that."):
        lock_folder(tmp_path, "Do that.")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock_folder(tmp_path, "")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [foreign.name]
    unlock_folder(tmp_path)


@locks
def test_a_folder_is_free_again_when_it_is_let_go(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from surface_sos_ns.utils.locks import lock_folder\n"
        "lock_folder(Path(sys.argv[1]), '')"
    )

    def another() -> int:
        command = [sys.executable, "-c", script, str(tmp_path)]
        return subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL).returncode

    with locked_folder(tmp_path, ""):
        with locked_folder(tmp_path, ""):
            pass  # one process may hold it twice
        assert another() == 1
    assert another() == 0


def test_without_locks_nothing_is_refused_and_nothing_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows and on some network disks."""
    left = tmp_path / f"{PREFIX}0{SUFFIX}"
    left.write_text("")
    monkeypatch.setattr("surface_sos_ns.utils.locks.fcntl", None)
    with locked_folder(tmp_path, ""):
        write_text(tmp_path / "file", "text")
        remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([left.name, "file"])


@locks
@pytest.mark.seconds(4)
def test_one_that_cleans_up_all_the_time_never_takes_a_file_that_is_being_written(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from surface_sos_ns.utils.files import remove_leftovers\n"
        "print('ready', flush=True)\nwhile True: remove_leftovers(Path(sys.argv[1]))"
    )
    with another_process(script, tmp_path):
        until, count = time.monotonic() + 3, 0
        while time.monotonic() < until:
            write_text(tmp_path / "file", str(count))
            assert (tmp_path / "file").read_text() == str(count)
            count += 1
    assert count > 100
