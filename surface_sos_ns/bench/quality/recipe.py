"""Recipes of quality benchmarks (YAML files), and the runs and inputs that they define."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from surface_sos_ns.bench.settings import BenchError, require
from surface_sos_ns.masks.methods import METHODS as MASK_METHODS

DEMOS: dict[str, dict[str, Any]] = {"demo": {}, "demo_objects": {"objects": True}}
"""Names of the demo captures, which are rendered by the benchmark, and how: with one object, and with several."""
DATAPARSER = "pipeline.datamanager.dataparser"
FEATURES = "pipeline.datamanager.features"
"""Option of the methods of `NERF_SOS`; so are those with `-model` and `-onnx` behind it."""
NERF_SOS = ("nerf-sos", "nerf-sos-lite")
"""Methods that look at features of the photos, and at no masks."""
DESCRIPTOR = "descriptor"
"""Features without a network."""


def _words_only(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if any(isinstance(word, dict | list) for word in (value if isinstance(value, list) else [value])):
            raise ValueError(f"{name} has keys or lists of its own: expected a value, or a list of values")
    return options


Method = Literal["surface-sos", "surface-sos-lite", "surface-sos-paper", "nerf-sos", "nerf-sos-lite"]
Baseline = Literal["auto", "prior", "selfment", "cosegment"]
Options = Annotated[dict[str, Any], AfterValidator(_words_only)]
"""Options of ns-train by name, without the leading dashes; a list is several words."""
Names = Annotated[list[str], Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Variant(_Section):
    """A row of an ablation: what differs from the recipe."""

    options: Options = {}
    """More of ns-train's options; they come after the recipe's."""
    masks: str | None = None
    """Instead of the recipe's masks."""


class Recipe(_Section):
    """One benchmark: every method on every capture with every kind of masks, in every variant, with every seed."""

    captures: Names
    """Folders with a transforms.json, or one of `DEMOS`: `demo`, `demo_objects`."""
    methods: Annotated[list[Method], Field(min_length=1)]
    """As in ns-train."""
    masks: Names = ["given"]
    """given: the capture's own; none; or a folder, relative to the capture. Methods that look at no masks run once."""
    baselines: list[Baseline] = []
    """Methods of `surface-sos masks`: their masks, and the hull of those, are measured, and nothing is trained."""
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    """Of all random numbers; with more than one the table has mean, least and most."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Length of the runs; the method's own where it is not given."""
    options: Options = {}
    """Options of ns-train for all runs."""
    variants: Annotated[dict[str, Variant], Field(min_length=1)] = {"": Variant()}
    """Named rows, as in an ablation."""

    @field_validator("captures", "methods", "masks", "baselines", "seeds")
    @classmethod
    def _once_each(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) < len(values):
            raise ValueError("something is listed twice")
        return values


@dataclass(frozen=True)
class Capture:
    """A capture of a recipe."""

    name: str
    """As the recipe has it."""
    folder: Path


@dataclass(frozen=True)
class Run:
    """One training and what is measured on it."""

    capture: Capture
    method: str
    variant: str
    masks: str
    seed: int
    options: tuple[str, ...]
    """Words of ns-train's command line, those for masks and steps included."""

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, as JSON values."""
        return {**asdict(self), "options": list(self.options), "capture": str(self.capture.folder.resolve())}

    @property
    def title(self) -> str:
        """Text for messages."""
        parts = [self.capture.name, self.method, self.variant, f"masks {self.masks}", f"seed {self.seed}"]
        return ", ".join(filter(None, parts))

    @property
    def features(self) -> str:
        """Features of the photos that the method looks at, or that its own masks are made with; empty for none."""
        if self.method not in NERF_SOS:
            return DESCRIPTOR if self.masks == "none" else ""
        named = [_value(self.options, name) for name in (f"{FEATURES}-onnx", f"{FEATURES}-model", FEATURES)]
        return next((Path(value).name for value in named if value), "auto")

    @property
    def inputs(self) -> Inputs | None:
        """The inputs of the run; None where the method has none but the photos."""
        if self.method in NERF_SOS:
            return None
        return Inputs(self.capture, self.masks, tuple(_dataparser_options(self.options)))

    def folder(self, output: Path) -> Path:
        """Folder of the run's files. Its name has the title and a digest of the settings."""
        return output / "runs" / _file_name(self.title, self.settings())


@dataclass(frozen=True)
class Inputs:
    """What is measured without training: coarse masks and their visual hull."""

    capture: Capture
    masks: str
    """As the recipe has it; of a baseline `by METHOD`."""
    options: tuple[str, ...]
    """Options of the data parser."""
    baseline: str = ""
    """The method of `surface-sos masks` that makes the masks; empty for the capture's own and for those of training."""
    features_onnx: Path | None = None
    """Network for a baseline that looks at features; None takes the descriptor."""

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, as JSON values."""
        settings = {"capture": str(self.capture.folder.resolve()), "options": list(self.options)}
        return settings | ({"baseline": self.baseline, **self.mask_options} if self.baseline else {})

    @property
    def mask_options(self) -> dict[str, str]:
        """Options of the method of `surface-sos masks` that makes the masks of a baseline."""
        if "features" not in MASK_METHODS[self.baseline].options:
            return {}
        return {"features": DESCRIPTOR} if self.features_onnx is None else {"features_onnx": str(self.features_onnx)}

    @property
    def features(self) -> str:
        """Features of the photos that the masks are made with; empty for none."""
        if self.baseline:
            return Path(next(iter(self.mask_options.values()), "")).name
        return DESCRIPTOR if self.masks == "none" else ""

    @property
    def title(self) -> str:
        """Text for messages."""
        return f"{self.capture.name}, masks {self.masks}"

    def folder(self, output: Path) -> Path:
        """Folder of the files."""
        return output / "inputs" / _file_name(self.title, self.settings())


@dataclass(frozen=True)
class Plan:
    """All that recipes ask for, each once."""

    inputs: list[Inputs]
    runs: list[Run]
    absent: list[Capture]
    """Captures that do not exist; there are neither inputs nor runs of them."""

    @property
    def features(self) -> set[str]:
        """All features that are looked at."""
        return {task.features for task in self.inputs} | {task.features for task in self.runs}


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        BenchError: the file is missing, is no YAML, or a key in it is unknown or has a wrong value.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"--config {path} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is not YAML: {error}") from error
    known = ", ".join(Recipe.model_fields)
    require(isinstance(values, dict), f"{path} holds no recipe: expected the keys {known}.")
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        lines = [f"{path}: {_place(problem['loc'])}: {_words(problem)}" for problem in error.errors()]
        raise BenchError("\n".join(dict.fromkeys(lines))) from error


def _place(location: tuple[str | int, ...]) -> str:
    """The key of an error, as text for a message."""
    return f"key '{'.'.join(map(str, location))}'"


def _words(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return f"there is no such key. A recipe has {', '.join(Recipe.model_fields)}; a variant has options and masks."
    if problem["type"] == "missing":
        return "it is missing, and a recipe needs it."
    return f"{problem['msg'].removeprefix('Value error, ')}, found {problem['input']!r}."


def plan(recipes: Sequence[tuple[Path, Recipe]], data: Path, demos: Path, features_onnx: Path | None = None) -> Plan:
    """What recipes ask for.

    Args:
        recipes: with the files they are read from.
        data: base of relative paths of captures.
        demos: folder that the demo captures are rendered into.
        features_onnx: network for all that looks at features and has none named in the recipe; None: the descriptor.

    Raises:
        BenchError: a folder is not a capture, or a folder of masks is missing.
    """
    onnx = None if features_onnx is None else features_onnx.resolve()
    inputs: dict[Inputs, None] = {}
    runs: dict[Run, None] = {}
    absent: dict[Capture, None] = {}
    for path, recipe in recipes:
        for name in recipe.captures:
            capture = Capture(name, demos / name if name in DEMOS else data / Path(name).expanduser())
            if name not in DEMOS and not capture.folder.exists():
                absent[capture] = None
                continue
            _check_capture(path, recipe, capture)
            for run in _runs(recipe, capture, onnx):
                runs[run] = None
                if run.inputs is not None:
                    inputs[run.inputs] = None
            for baseline in recipe.baselines:
                inputs[_baseline(recipe, capture, baseline, onnx)] = None
    return Plan(list(inputs), list(runs), list(absent))


def _runs(recipe: Recipe, capture: Capture, onnx: Path | None) -> Iterable[Run]:
    for method, (variant, own), seed in itertools.product(recipe.methods, recipe.variants.items(), recipe.seeds):
        given = recipe.options | own.options
        kinds = recipe.masks if own.masks is None else [own.masks]
        for masks in ["none"] if method in NERF_SOS else kinds:
            options: Options = {} if recipe.steps is None else {"max-num-iterations": recipe.steps}
            options |= _mask_options(masks) | _feature_options(method, given, onnx) | given
            yield Run(capture, method, variant, masks, seed, _option_words(options))


def _baseline(recipe: Recipe, capture: Capture, baseline: str, onnx: Path | None) -> Inputs:
    options = tuple(_dataparser_options(_option_words(recipe.options)))
    return Inputs(capture, f"by {baseline}", options, baseline, onnx)


def _check_capture(path: Path, recipe: Recipe, capture: Capture) -> None:
    if capture.name in DEMOS:
        return
    require(
        (capture.folder / "transforms.json").is_file(),
        f"{path}: key 'captures': {capture.folder} holds no transforms.json. Name a capture's folder.",
    )
    asked = [("masks", masks) for masks in recipe.masks]
    asked += [(f"variants.{n}.masks", own.masks) for n, own in recipe.variants.items() if own.masks is not None]
    for key, masks in asked:
        require(
            masks in ("given", "none") or (capture.folder / masks).is_dir(),
            f"{path}: key '{key}': {capture.folder / masks} is no folder. Expected given, none, or a folder of masks, "
            "relative to the capture.",
        )


def _mask_options(masks: str) -> Options:
    return {} if masks == "given" else {f"{DATAPARSER}.coarse-masks": masks}


def _feature_options(method: str, given: Options, onnx: Path | None) -> Options:
    """Options of a method that looks at features, unless the recipe has some."""
    if method not in NERF_SOS or any(name.replace("_", "-").startswith(FEATURES) for name in given):
        return {}
    return {FEATURES: DESCRIPTOR} if onnx is None else {f"{FEATURES}-onnx": str(onnx)}


def _option_words(options: Options) -> tuple[str, ...]:
    words: list[str] = []
    for name, value in options.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return tuple(words)


def _value(words: Sequence[str], name: str) -> str:
    """The value of an option among words; empty where it is not given."""
    return next((after for word, after in itertools.pairwise(words) if word.replace("_", "-") == f"--{name}"), "")


def _dataparser_options(words: Sequence[str]) -> list[str]:
    """The options of the data parser, with their values."""
    kept, keep = [], False
    for word in words:
        if word.startswith("--"):
            keep = word.startswith(f"--{DATAPARSER}.")
        if keep:
            kept.append(word)
    return kept


def _file_name(title: str, settings: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', title).strip('-')}-{digest}"
