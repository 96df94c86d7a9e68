"""Runs the commands a user types, with no network and no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT

# Python runs a module of this name when it starts, so that a command's own child processes are held back as well.
NO_NETWORK = """
import os, socket
def local(host):
    return host is None or host in ("", "localhost", "127.0.0.1", "::1", b"localhost", b"127.0.0.1")
def refuse(where):
    with open(os.environ["NETWORK_LOG"], "a") as log:
        log.write(repr(where) + "\\n")
    raise OSError("there is no network in this test")
connect, resolve = socket.socket.connect, socket.getaddrinfo
def guarded_connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not local(address[0]):
        refuse(address)
    return connect(self, address)
def guarded_resolve(host, *args, **kwargs):
    if not local(host):
        refuse(host)
    return resolve(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = guarded_connect, guarded_resolve
"""

STARTED = r"cpu \| operations: numba \| .* \| \d+ threads?\b"  # what runs, said once by each command


@contextmanager
def another_process(script: str, argument: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process beside this one, from when it has printed "ready" until the end; the package is importable."""
    command = [sys.executable, "-c", script, str(argument)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Terminal:
    """Runs commands in an environment without a network and without a GPU."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """No way out: addresses are refused, proxies lead nowhere, and caches of weights are empty."""
        nowhere = "http://127.0.0.1:9"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), nowhere)
        paths = [str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            **proxies,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "200",  # nerfstudio would wrap lines
            "NETWORK_LOG": str(self.network_log),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.folder / "weights"),
            "TORCH_HOME": str(self.folder / "weights"),
            "CUDA_VISIBLE_DEVICES": "",
        }

    @property
    def network_log(self) -> Path:
        """Where refused addresses are noted."""
        return self.folder / "network.log"

    def run(
        self, *arguments: str | Path, status: int = 0, on_line: Callable[[str, subprocess.Popen], None] | None = None
    ) -> str:
        """The output of `python -m arguments`, which must end with the given status."""
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=self.environment(),
            cwd=self.folder,
            text=True,
            errors="replace",
        )
        lines = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if on_line is not None:
                    on_line(line, process)
            found = process.wait(timeout=60)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        output = "".join(lines)
        assert found == status, f"status {found} of {' '.join(map(str, arguments))}\n{output[-4000:]}"
        return output

    def train(self, method: str, data: Path, name: str, *options: str | Path, **kwargs: Any) -> tuple[Path, str]:
        """ns-train without a viewer; returns the folder of the run and the output."""
        output = self.run(
            *("nerfstudio.scripts.train", method, "--data", data, "--output-dir", self.folder / "runs"),
            *("--experiment-name", "e2e", "--timestamp", name, "--vis", "tensorboard"),
            *("--logging.local-writer.max-log-size", "0", *options),
            **kwargs,
        )
        return self.folder / "runs" / "e2e" / method / name, output

    def eval(self, run: Path) -> tuple[dict, str]:
        """ns-eval; returns what it wrote and the output."""
        result = self.folder / f"{run.name}.json"
        output = self.run("nerfstudio.scripts.eval", "--load-config", run / "config.yml", "--output-path", result)
        return json.loads(result.read_text()), output

    def render(self, how: str, run: Path, to: Path, *options: str) -> str:
        """ns-render; returns the output."""
        return self.run(
            "nerfstudio.scripts.render", how, "--load-config", run / "config.yml", "--output-path", to, *options
        )
