"""Writes options.md, the reference of all options of this package's own, from the code: `python docs/write_options.py`.

Names, defaults and words come from the configuration classes, so that the page cannot say anything else than
`ns-train --help` does. A test compares the two.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

METHODS = ("surface-sos", "surface-sos-lite", "surface-sos-paper")
BASELINES = ("nerf-sos", "nerf-sos-lite")
PAGE = Path(__file__).with_name("options.md")
GROUPS = {
    "pipeline.model.scene.": "Fields, renderer and sampler",
    "pipeline.model.objective.": "Losses",
    "pipeline.model.": "The model",
    "pipeline.datamanager.dataparser.": "The capture",
    "pipeline.datamanager.": "Rays",
    "average_from": "The run",
    "machine.device_type": "The run",
}
INTRODUCTION = """\
# Options

What this package adds to nerfstudio's own options, for `ns-train surface-sos`, `surface-sos-lite` and
`surface-sos-paper`; `ns-train surface-sos --help` shows all. A default that is not the same for all three is given for
each, in this order. `nerf-sos` and `nerf-sos-lite` have their own, at the end. This page is written by
`python docs/write_options.py`.
"""


def documented(kind: type) -> dict[str, str]:
    """Fields that the class itself defines, with the string below each."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    words: dict[str, str] = {}
    for statement, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if "Fixed" in ast.unparse(statement.annotation):  # not an option of the command line
                continue
            said = after.value if isinstance(after, ast.Expr) else None
            if isinstance(said, ast.Constant) and isinstance(said.value, str):
                words[statement.target.id] = inspect.cleandoc(said.value).replace("\n", " ")
    return words


def options(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted name, default and words of the options below a configuration that this package defines."""
    words: dict[str, str] = {}
    for kind in reversed(type(config).__mro__):
        if kind.__module__.startswith("surface_sos_ns."):
            words |= documented(kind)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from options(value, f"{prefix}{field.name}.")
        elif field.name in words and not field.name.startswith("_"):
            yield prefix + field.name, value, words[field.name]


def shown(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(shown, value)) or "(none)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def row(name: str, values: list[str], words: str) -> str:
    """A row of a table: the option, its default of each method, what it is."""
    default = values[0] if len(set(values)) == 1 else " / ".join(values)
    cells = (f"`--{name.replace('_', '-')}`", default, words)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def reference() -> str:
    """The page."""
    from surface_sos_ns.plugin.evaluation import METHODS as CONFIGS

    def rows(methods: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
        """Name, words and row of each option that the first of the methods has."""
        columns = [{name: value for name, value, _ in options(CONFIGS[method])} for method in methods]
        for name, _, words in options(CONFIGS[methods[0]]):
            yield name, words, row(name, [shown(column[name]) for column in columns], words)

    sections: dict[str, list[str]] = {title: [] for title in GROUPS.values()}
    known = set()
    for name, words, line in rows(METHODS):
        known.add((name, words))
        group = next((title for start, title in GROUPS.items() if name.startswith(start)), None)
        if group is not None:
            sections[group].append(line)
    own = [line for name, words, line in rows(BASELINES) if (name, words) not in known]
    sections[" and ".join(f"`{method}`" for method in BASELINES)] = own
    page = [INTRODUCTION]
    for title, lines in sections.items():
        page += [f"\n## {title}\n", "| option | default | what |", "|---|---|---|", *lines]
    return "\n".join(page) + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(PAGE)
