"""Commands run in a process of their own: what they took, and what is said when they fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from surface_sos_ns.utils.user_commands import CommandFailed, run_module


def test_a_failing_command_names_its_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "step.log"
    with pytest.raises(CommandFailed, match=r"step\.log") as caught:
        run_module(["json.tool", str(tmp_path / "absent.json")], log)
    assert "absent.json" in log.read_text() and "absent.json" in str(caught.value)


def test_time_and_memory_are_those_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows does not tell the peak memory of a process that has ended")
    (tmp_path / "greedy.py").write_text("import time\nblock = b'1' * 10**9\ntime.sleep(0.5)\nprint('done')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said: list[str] = []
    run = run_module(["greedy"], tmp_path / "log", said.append)
    assert said == ["done"]
    assert 0.5 <= run.seconds < 60
    assert run.peak_gb is not None and 1.0 < run.peak_gb < 20
    assert run.cpu_seconds is not None and 0.01 < run.cpu_seconds < 60


@pytest.mark.seconds(8)
def test_a_mistake_is_one_sentence_without_what_libraries_say_meanwhile(tmp_path: Path) -> None:
    command = ["export", "--load-config", str(tmp_path / "config.yml"), "--output-dir", str(tmp_path / "results")]
    done = subprocess.run([sys.executable, "-m", "surface_sos_ns.cli", *command], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert re.fullmatch(r"surface-sos: .*config\.yml does not exist; .*\n", done.stderr), done.stderr


def test_a_command_ends_with_the_program_that_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("other systems do not tell a process that its parent has ended")
    (tmp_path / "endless.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(120)")
    code = (
        "import sys; from pathlib import Path; from surface_sos_ns.utils.user_commands import run_module\n"
        "run_module(['endless'], Path(sys.argv[1]), lambda line: print(line, flush=True))"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    program = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None and program.stdout.readline() == "begun\n"
    (command,) = psutil.Process(program.pid).children()
    program.kill()
    program.wait()
    command.wait(20)
    assert not command.is_running()
