"""The worked examples of CONTRIBUTING.md: their edits are made in a copy of the package, and their tests pass there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.paths import ROOT

EDIT = re.compile(r"^`([\w./]+)`\n\n```(python|diff)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^```bash\n(python .*?)^```$", re.DOTALL | re.MULTILINE)
SECTIONS = ("A head", "A mask provider", "A back-end")


class Edit(NamedTuple):
    """A file to be added (python), or to be changed in one place (diff)."""

    path: str
    kind: str
    text: str


def section(title: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def edits(title: str) -> list[Edit]:
    return [Edit(*found) for found in EDIT.findall(section(title))]


def change(text: str, diff: str) -> str:
    """A text after a change that names no line numbers: what it takes away or stands beside is there exactly once."""
    lines = diff.splitlines()
    before = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
    after = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
    assert all(line[:1] in "+- " for line in lines) and before and before != after, diff
    assert text.count(before) == 1, f"not there exactly once:\n{before}"
    return text.replace(before, after)


def make(edit: Edit, folder: Path) -> None:
    path = folder / edit.path
    if edit.kind == "python":
        assert path.parent.is_dir() and not path.exists(), edit.path
        path.write_text(edit.text, encoding="utf-8")
    else:
        path.write_text(change(path.read_text(encoding="utf-8"), edit.text), encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its tests, to be edited."""
    leave = shutil.ignore_patterns("__pycache__")
    for name in ("surface_sos_ns", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    found = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    return found.stdout


@pytest.mark.seconds(30)
@pytest.mark.parametrize("title", SECTIONS)
def test_an_example_does_what_it_says(title: str, copy: Path) -> None:
    made = edits(title)
    assert {edit.kind for edit in made} == {"python", "diff"}
    for edit in made:
        make(edit, copy)
    paths = sorted({edit.path for edit in made})
    run(copy, "-m", "ruff", "check", *paths)
    run(copy, "-m", "ruff", "format", "--check", *paths)
    (command,) = COMMAND.findall(section(title))
    _, *arguments = shlex.split(command)
    said = run(copy, *arguments)
    assert re.search(r"\b[1-9]\d* passed", said) and "skipped" not in said, said


def test_every_edit_is_found() -> None:
    """Nothing in the sections is written so that it would not be executed."""
    for title in SECTIONS:
        blocks = re.findall(r"^```(\w+)$", section(title), re.MULTILINE)
        assert len(blocks) == len(edits(title)) + 1, title
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert text.count("```python") == sum(edit.kind == "python" for title in SECTIONS for edit in edits(title))


def test_a_change_that_fits_nowhere_or_twice_is_refused() -> None:
    assert change("a\nb\nc\n", " a\n+x\n b\n") == "a\nx\nb\nc\n"
    for text in ("b\nc\n", "a\nb\na\nb\n"):
        with pytest.raises(AssertionError, match="exactly once"):
            change(text, " a\n-b\n")
