"""Errors that their message explains are that sentence; faults keep their trace; signals end a command cleanly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

from surface_sos_ns import cli
from surface_sos_ns.utils.errors import DEBUG, UserError, explanation
from surface_sos_ns.utils.files import WriteError
from surface_sos_ns.utils.signals import exit_on_signal, signal_of_status
from tests.helpers.paths import ROOT


@dataclass
class Failing:
    """A command that ends with an error."""

    error: BaseException

    def main(self) -> None:
        raise self.error


def run_failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("tyro.cli", lambda *_, **__: Failing(error))
    return cli.main([])


@pytest.mark.parametrize(
    "error, words",
    [
        (UserError("a.json is no capture."), "a.json is no capture."),
        (WriteError("a could not be written."), "a could not be written."),
        (FileExistsError("a exists; name another folder."), "a exists; name another folder."),
        (PermissionError(13, "Permission denied", "a.png"), "a.png: Permission denied."),
        (MemoryError("Unable to allocate 9 GiB"), "There is not enough memory (Unable to allocate 9 GiB)."),
        (ValueError("operands could not be broadcast"), None),
        (KeyError("frames"), None),
        (RuntimeError("size mismatch"), None),
        (OSError(5, "Input/output error"), None),  # of which file, only the trace tells
    ],
)
def test_what_a_command_shows_of_an_error(
    error: Exception,
    words: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(DEBUG, raising=False)
    assert explanation(error) == words
    assert run_failing(error, monkeypatch) == 1
    said = capsys.readouterr().err
    if words is not None:
        assert said == f"surface-sos: {words}\n"
    else:
        assert said.startswith("Traceback") and type(error).__name__ in said
        assert said.splitlines()[-1].startswith("surface-sos: this is a fault of the program")
    monkeypatch.setenv(DEBUG, "1")
    assert run_failing(error, monkeypatch) == 1
    assert capsys.readouterr().err.startswith("Traceback")


def test_names_in_messages_do_not_drive_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters and bytes that are not UTF-8 are escaped; the lines of a message stay lines."""
    monkeypatch.delenv(DEBUG, raising=False)
    name = os.fsdecode(b"a\x1b]0;title\x07\xe9.jpg")
    assert run_failing(UserError(f"{name} is no photo.\nIt is a text."), monkeypatch) == 1
    assert capsys.readouterr().err == "surface-sos: a\\x1b]0;title\\x07\\udce9.jpg is no photo.\nIt is a text.\n"
    assert run_failing(KeyError(f"{name}"), monkeypatch) == 1 and run_failing(ValueError(name), monkeypatch) == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said and "ValueError: a\\x1b]0;title\\x07\\udce9.jpg\n" in said


def test_a_stopped_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_failing(KeyboardInterrupt(), monkeypatch) == 130
    assert run_failing(SystemExit(128 + signal.SIGTERM), monkeypatch) == 143
    assert capsys.readouterr().err == "surface-sos: stopped.\n" * 2
    with pytest.raises(SystemExit):
        run_failing(SystemExit(2), monkeypatch)


@pytest.mark.skipif(os.name != "posix", reason="signals are those of Unix")
def test_a_signal_becomes_an_exception_and_its_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []
    with pytest.raises(SystemExit) as caught, exit_on_signal(signal.SIGTERM):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)
    assert caught.value.code == 143 and signal_of_status(caught.value.code) is signal.SIGTERM and cleaned
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal_of_status(1) is None and signal_of_status(None) is None and signal_of_status("text") is None


@pytest.mark.skipif(os.name != "posix", reason="signals are those of Unix")
@pytest.mark.parametrize("module, quiet", [("surface_sos_ns.utils.colmap", True), ("pycolmap", False)])
def test_pycolmap_does_not_answer_sigterm(module: str, quiet: bool) -> None:
    """The second is the canary: when it fails, `utils/colmap.py` is no longer needed."""
    script = f"import os, signal, time, {module}; os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert ("stack trace" not in done.stderr) == quiet


UNCAUGHT = """
import sys
sys.argv[0] = sys.argv[1]
from surface_sos_ns.plugin.compat.tracebacks import show_explanations_alone
from surface_sos_ns.utils.errors import UserError
show_explanations_alone()
show_explanations_alone()
raise {"user": UserError("the\\x1b[2J sentence."), "fault": ValueError("a fault")}[sys.argv[2]]
"""


@pytest.mark.parametrize(
    "program, error, expected",
    [
        ("/usr/bin/ns-train", "user", "ns-train: the\\x1b[2J sentence.\n"),
        ("/lib/nerfstudio/scripts/render.py", "user", "render: the\\x1b[2J sentence.\n"),
        ("/usr/bin/ns-train", "fault", None),
        ("/home/me/mine.py", "user", None),
    ],
)
def test_only_nerfstudios_commands_and_only_explained_errors_lose_their_trace(
    program: str, error: str, expected: str | None
) -> None:
    environment = {**os.environ, DEBUG: "0"}
    command = [sys.executable, "-c", UNCAUGHT, program, error]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    if expected is None:
        assert done.stderr.startswith("Traceback")
    else:
        assert done.stderr == expected
