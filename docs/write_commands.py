"""Writes reference/commands.md, all commands of `surface-sos`, from the code: `python docs/write_commands.py`.

Names, values, defaults and words come from the classes that the command line is made of, so that the page cannot say
anything else than `surface-sos COMMAND --help` does. A test compares the two.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from write_options import documented, shown  # type: ignore[import-not-found]  # the file beside this one

PAGE = Path(__file__).with_name("reference") / "commands.md"
GUIDES = {
    "capture": "../captures.md",
    "convert": "../guides/benchmarks.md",
    "process": "../guides/process.md",
    "masks": "../guides/masks.md",
    "parts": "../guides/parts.md",
    "export": "../guides/export.md",
    "batch": "../guides/batch.md",
    "bench": "../guides/benchmarks.md",
    "report": "../guides/report.md",
}
INTRODUCTION = """\
# Commands

All commands of `surface-sos`, with all their options. In the column *value*, a word in capitals stands for a value of
your own (INT a whole number, FLOAT a number, STR a text, PATH a file or folder); dots say that there may be several,
apart by spaces; words in code are the values that there are. An empty default means none. The options of `ns-train` are
on [another page](../options.md). This page is written by `python docs/write_commands.py`.
"""
VALUES = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


def parts_of(annotation: Any) -> tuple[Any, list[Any]]:
    """A type without what `Annotated` says about it, and that."""
    if get_origin(annotation) is Annotated:
        inner, *said = get_args(annotation)
        return inner, said
    return annotation, []


def alternatives(annotation: Any) -> list[Any]:
    """The types of a union, None apart."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for kind in get_args(annotation) if kind is not type(None)]
    return [annotation]


def subcommands(annotation: Any) -> dict[str, type]:
    """The commands that a union of them names; none of another type."""
    found: dict[str, type] = {}
    for alternative in alternatives(annotation):
        kind, said = parts_of(alternative)
        names = [word.name for word in said if hasattr(word, "name") and dataclasses.is_dataclass(kind)]
        if names and isinstance(kind, type):
            found[str(names[0])] = kind
    return found


def value(annotation: Any) -> str:
    """What may stand after an option of this type."""
    kinds = alternatives(annotation)
    if len(kinds) > 1:
        return ", ".join(map(value, kinds))
    (kind,) = kinds
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return f"{value(inner[0])} ..." if inner[-1] is Ellipsis else " ".join(map(value, inner))
    return VALUES[kind]


def default(field: dataclasses.Field[Any]) -> str:
    """A field's default, as the command line takes it."""
    given = field.default
    if field.default_factory is not dataclasses.MISSING:
        given = field.default_factory()
    if given is dataclasses.MISSING:
        return "*required*"
    if given is None or given == ():
        return ""
    return {True: "yes", False: "no"}[given] if isinstance(given, bool) else shown(given)


def rows(kind: type) -> Iterator[str]:
    """A row of the table for each option of a command."""
    words: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("surface_sos_ns."):
            words |= documented(base)
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        annotation, said = parts_of(hints[field.name])
        if subcommands(annotation):
            continue
        name = next((word.name for word in said if getattr(word, "name", None)), None) or field.name.replace("_", "-")
        what = words[field.name].replace("*", r"\*")
        if any(word in get_args(tyro.conf.Positional[int]) for word in said):
            yield row(f"`{name.upper()}`", value(annotation), default(field), what)
        elif annotation is bool:
            yield row(f"`--{name}`, `--no-{name}`", "", default(field), what)
        else:
            yield row(f"`--{name}`", value(annotation), default(field), what)


def row(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def sections(command: str, kind: type, level: int) -> Iterator[str]:
    """A command and those below it: a heading, what it does, a table of its options."""
    yield f"\n{'#' * level} `{command}`\n"
    name = command.split()[1]
    guide = f" [Guide]({GUIDES[name]})." if level == 2 and name in GUIDES else ""
    yield inspect.cleandoc(kind.__doc__ or "").replace("\n", " ") + guide + "\n"
    table = list(rows(kind))
    if table:
        yield from ("| option | value | default | what |", "|---|---|---|---|", *table)
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        for below, inner in subcommands(parts_of(hints[field.name])[0]).items():
            yield from sections(f"{command} {below}", inner, level + 1)


def reference() -> str:
    """The page."""
    from surface_sos_ns.cli.command_line import Command

    page = [INTRODUCTION]
    for name, kind in subcommands(Command).items():
        page += sections(f"surface-sos {name}", kind, 2)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(page)).rstrip("\n") + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(reference(), encoding="utf-8")
    print(PAGE)
