"""Which captures a batch has, and with which options each: folders, patterns, URLs and recipes."""

from __future__ import annotations

import contextlib
import glob
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import tyro
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from surface_sos_ns.batch.error import BatchError
from surface_sos_ns.batch.job import Job, Kind, words
from surface_sos_ns.batch.settings import BatchSettings, StageName
from surface_sos_ns.batch.stages import arguments, stages_of
from surface_sos_ns.batch.storage import kind_of_names, matches, names_below
from surface_sos_ns.capture.colmap_folder import find_colmap_model

__all__ = ["plan"]

RECIPE = (".yml", ".yaml")
CONFIGURED = ("outlines", "process", "masks", "train", "export", "report")
"""Stages whose options a recipe may have."""
LEFT_OUT = ("outlines", "masks")
"""Of these, the ones that a capture goes through only where they are asked for."""
RESERVED = {
    "outlines": ("data", "images", "output", "overwrite", "load-config"),
    "process": ("images", "output", "overwrite", "masks"),
    "masks": ("data", "images", "output", "overwrite", "load-config"),
    "train": ("data", "output-dir", "experiment-name", "timestamp", "vis", "machine.seed", "max-num-iterations"),
    "export": ("load-config", "output-dir", "data", "overwrite"),
    "report": ("load-config", "output", "data", "metrics", "figures", "overwrite"),
}
"""Options that the batch gives itself."""
WITHOUT_BROWSER = "--method click asks for clicks in a browser, which a batch cannot; make those masks before"

Options = dict[str, Any]
Parse = Callable[[list[str]], object]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    method: str | None = None
    """To train."""
    steps: Annotated[int, Field(ge=1)] | None = None
    seed: int | None = None
    outlines: Options | Literal[False] | None = None
    """Masks of photos without poses (surface-sos masks --images), for poses of a turntable or beside what moves."""
    process: Options | None = None
    masks: Options | Literal[False] | None = None
    """Coarse masks before training (surface-sos masks --data)."""
    train: Options | None = None
    export: Options | Literal[False] | None = None
    report: Options | Literal[False] | None = None


class _Entry(_Section):
    path: str
    """Folder, file, pattern or URL."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None


class _Recipe(_Section):
    captures: Annotated[list[_Entry], Field(min_length=1)]

    @field_validator("captures", mode="before")
    @classmethod
    def _path_alone(cls, entries: Any) -> Any:
        if not isinstance(entries, list):
            return entries
        return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]


@dataclass(frozen=True)
class _Wanted:
    source: str
    name: str
    section: _Section


def plan(settings: BatchSettings, has_gpu: bool, parse: Parse) -> list[Job]:
    """All captures of a batch, in their order.

    Args:
        settings: the command line; what a recipe says comes before it.
        has_gpu: whether there are GPUs to train on.
        parse: reads a command line of surface-sos, and raises SystemExit where it is wrong.

    Raises:
        BatchError: a path, a recipe or an option cannot work; the message says which.
    """
    if not settings.captures:
        raise BatchError("Name captures: folders of photos, videos, scenes, patterns in quotes, or a recipe (.yml).")
    defaults = _of_command_line(settings)
    wanted = [one for given in settings.captures for one in _wanted(given, defaults)]
    jobs: list[Job] = []
    taken: set[str] = set()
    for one in wanted:
        job = _job(one, settings, has_gpu)
        number, name = 1, job.name
        while name.lower() in taken:
            number += 1
            name = f"{job.name}-{number}"
        taken.add(name.lower())
        jobs.append(replace(job, name=name, folder=job.folder.with_name(name)))
    twice = [job.source for index, job in enumerate(jobs) if job.source in [other.source for other in jobs[:index]]]
    if twice:
        raise BatchError(f"{twice[0]} is named twice.")
    _check_options(jobs, parse)
    return jobs


def _of_command_line(settings: BatchSettings) -> _Section:
    masks = None if settings.masks is None else {"method": settings.masks}
    export = {"what": list(settings.what)} if settings.what else None
    return _Section(method=settings.method, steps=settings.steps, seed=settings.seed, masks=masks, export=export)


def _wanted(given: str, defaults: _Section) -> Iterator[_Wanted]:
    if given.lower().endswith(RECIPE) and "://" not in given:
        yield from _of_recipe(Path(given), defaults)
        return
    for source in _sources(given, Path(".")):
        yield _Wanted(source, "", defaults)


def _of_recipe(path: Path, defaults: _Section) -> Iterator[_Wanted]:
    recipe = _read(path)
    common = _over(defaults, recipe)
    for entry in recipe.captures:
        sources = _sources(entry.path, path.parent)
        if entry.name is not None and len(sources) > 1:
            raise BatchError(f"{path}: {entry.path} are {len(sources)} captures, which cannot all be {entry.name}.")
        for source in sources:
            yield _Wanted(source, entry.name or "", _over(common, entry))


def _read(path: Path) -> _Recipe:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        return _Recipe.model_validate(content)
    except FileNotFoundError:
        raise BatchError(f"{path} does not exist; expected a recipe.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BatchError(f"{path} is no YAML ({str(error).splitlines()[0]}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BatchError(
            f"{path}: {where or 'the file'}: {first['msg']}. A recipe has a list of captures, and options for all of "
            f"them or for each: method, steps, seed, {', '.join(CONFIGURED)}."
        ) from error


def _over(below: _Section, above: _Section) -> _Section:
    """Options of both; those of `above` count where both have one."""
    merged: dict[str, Any] = {}
    for name in _Section.model_fields:
        lower, upper = getattr(below, name), getattr(above, name)
        if isinstance(lower, dict) and isinstance(upper, dict):
            merged[name] = {**lower, **upper}
        else:
            merged[name] = lower if upper is None else upper
    return _Section(**merged)


def _sources(given: str, base: Path) -> list[str]:
    """Absolute paths, or URLs, that a path or pattern stands for."""
    if "://" in given:
        found = matches(given)
    else:
        path = base / Path(given).expanduser()
        found = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))
        found = [str(Path(one).resolve()) for one in found]
    if not found:
        raise BatchError(f"{given} does not exist; expected photos, a video, a scene, or a pattern that matches some.")
    return found


def _job(wanted: _Wanted, settings: BatchSettings, has_gpu: bool) -> Job:
    section = wanted.section
    options: dict[str, Options | None] = {}
    for stage in CONFIGURED:
        value = getattr(section, stage)
        left_out = value is False or (value is None and stage in LEFT_OUT)
        options[stage] = None if left_out else dict(value or {})
    if options["outlines"] is not None:
        options["process"] = {"use": "object", **(options["process"] or {})}
    name = wanted.name or _name(wanted.source)
    return Job(
        name,
        wanted.source,
        _kind(wanted.source),
        settings.output.resolve() / name,
        section.method or ("surface-sos" if has_gpu else "surface-sos-lite"),
        section.steps,
        settings.seed if section.seed is None else section.seed,
        options,
    )


def _name(source: str) -> str:
    path = PurePosixPath(source) if "://" in source else Path(source)
    path = path.parent if path.name == "transforms.json" else path
    name = path.stem if re.fullmatch(r"\.[A-Za-z0-9]{2,5}", path.suffix) else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "capture"


def _kind(source: str) -> Kind:
    if "://" in source:
        return kind_of_names(names_below(source))
    path = Path(source)
    if path.name == "transforms.json":
        return "scene"
    if path.is_file():
        return "video"
    return "scene" if (path / "transforms.json").is_file() or find_colmap_model(path) is not None else "photos"


# ------------------------------------------------------------------ options, before anything runs


def _check_options(jobs: Sequence[Job], parse: Parse) -> None:
    seen: set[tuple[str, ...]] = set()
    for job in jobs:
        for stage in stages_of(job):
            options = job.options.get(stage.name) or {}
            _check_names(job, stage.name, options)
            key = (stage.name, job.method, *words(options, stage.name != "train"))
            if key in seen or stage.name in ("fetch", "eval"):
                continue
            seen.add(key)
            problem = _problem(job, stage.name, parse)
            if problem is not None:
                raise BatchError(f"{job.name}: {stage.name}: {problem}")


def _check_names(job: Job, stage: StageName, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        plain = name.replace("_", "-")
        if plain in RESERVED.get(stage, ()):
            raise BatchError(f"{job.name}: {stage}: {name} is what the batch gives itself; take it out.")
        if stage in ("masks", "outlines") and plain == "method" and value == "click":
            raise BatchError(f"{job.name}: {stage}: {WITHOUT_BROWSER}.")


def _problem(job: Job, stage: StageName, parse: Parse) -> str | None:
    """What the command's own parser says against its options; None where nothing."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            _parse(job, stage, parse)
    except SystemExit:
        lines = [re.sub(r"[│╭╮╰╯─]", "", line).strip() for line in said.getvalue().splitlines()]
        return " ".join(line for line in lines if line) or "its options cannot be read."
    return None


def _parse(job: Job, stage: StageName, parse: Parse) -> None:
    given = arguments(job, stage)
    if stage == "train":
        from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

        tyro.cli(AnnotatedBaseConfigUnion, args=[job.method, "--data", str(job.scene), *given])
        return
    parse(given)
