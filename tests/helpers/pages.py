"""Our pages, each served by the command that a user types."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.attacker import request, wait_until
from tests.helpers.terminal import Terminal

START = 300.0  # seconds in which a command starts, on a busy machine


@dataclass
class Page:
    """A command that serves a page.

    Attributes:
        port: that it serves it at.
        folder: that holds all it should read and write: its capture in `capture`, its run, and what it is not told of.
        lines: what it has printed.
    """

    port: int
    folder: Path
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def printed(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    def serves(self) -> bool:
        assert self.process.poll() is None, "".join(self.lines)[-4000:]
        try:
            return request(self.port, b"/")[0] == 200
        except ConnectionError:
            return False


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def serving(terminal: Terminal, folder: Path, *arguments: str | Path, port_option: str) -> Iterator[Page]:
    """Runs a command until its page is there; ends it afterwards, and looks at what it said."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments), port_option, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env={**terminal.environment(), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        text=True,
        errors="replace",
    )
    page = Page(port, folder, process)
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: page.lines.extend(process.stdout or []), daemon=True)
    reader.start()
    try:
        wait_until(page.serves, "the page", START)
        yield page
        assert process.poll() is None and not page.printed("Traceback"), "".join(page.lines)[-6000:]
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
        reader.join(10)
