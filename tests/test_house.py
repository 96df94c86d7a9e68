"""What a contributor, a release and nerfstudio's documentation rely on: versions, workflows, templates, the entry."""

from __future__ import annotations

import re
import runpy
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import surface_sos_ns
from tests.helpers.command_line import METHODS, our_command, train_config, words
from tests.helpers.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
YAML = [
    *WORKFLOWS,
    *sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")),
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
]
EXACT = re.compile(r"[\w.-]+/[\w./-]+@v\d+\.\d+\.\d+")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> dict[str, Any]:
    """A YAML file; the key `on` of a workflow is the value true in YAML 1.1."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# ------------------------------------------------------------------ one version


def test_the_version_stands_in_one_place() -> None:
    version = PROJECT["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert surface_sos_ns.__version__ == metadata.version("surface-sos-ns")
    for path in (ROOT / "surface_sos_ns").rglob("*.py"):
        assert not re.search(r"^ *__version__ *=", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_changelog_and_citation_have_the_version() -> None:
    version = PROJECT["project"]["version"]
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1].split(" - ")[0] == version
    numbers = [Version(heading.split(" - ")[0]) for heading in headings[1:]]
    assert numbers == sorted(numbers, reverse=True)
    assert read(ROOT / "CITATION.cff")["version"] == version


def test_the_citation_is_that_of_the_readme() -> None:
    citation, readme = read(ROOT / "CITATION.cff"), (ROOT / "README.md").read_text(encoding="utf-8")
    paper = citation["preferred-citation"]
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert paper["doi"] in readme and paper["title"] in readme
    assert all(author["family-names"] in readme for author in paper["authors"])


def test_type_checkers_read_the_annotations() -> None:
    assert (ROOT / "surface_sos_ns" / "py.typed").read_text() == ""
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["surface_sos_ns"]


# ------------------------------------------------------------------ tools


def development() -> dict[str, Requirement]:
    found = map(Requirement, PROJECT["project"]["optional-dependencies"]["dev"])
    return {requirement.name: requirement for requirement in found}


def test_lint_tools_have_one_version() -> None:
    pinned = development()
    for tool in ("ruff", "mypy", "import-linter"):
        assert re.fullmatch(r"==[\d.]+", str(pinned[tool].specifier)), tool
    hooks = read(ROOT / ".pre-commit-config.yaml")["repos"]
    ruff = next(repo for repo in hooks if repo["repo"].endswith("/ruff-pre-commit"))
    assert ruff["rev"] == "v" + str(pinned["ruff"].specifier).removeprefix("==")


def test_strict_types_are_not_given_up() -> None:
    strict = PROJECT["tool"]["mypy"]["overrides"][0]
    assert {f"surface_sos_ns.{name}.*" for name in ("ops", "rendering", "training")} == set(strict["module"])
    assert strict["disallow_untyped_defs"] and strict["disallow_any_generics"] and strict["warn_return_any"]
    for name in ("ops", "rendering", "training"):
        for path in (ROOT / "surface_sos_ns" / name).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "type: ignore" not in re.sub(r"type: ignore\[[\w-]+\]", "", text), f"{path}: ignores every error"
            for kernel in re.findall(r"((?:^@.*\n)*)^ *def .*# type: ignore\[no-untyped-def\]", text, re.MULTILINE):
                assert re.search(r"^@(njit|triton\.jit)", kernel, re.MULTILINE), f"{path}: {kernel}"


# ------------------------------------------------------------------ GitHub


@pytest.mark.parametrize("path", YAML, ids=named)
def test_a_file_for_github_can_be_read(path: Path) -> None:
    assert isinstance(read(path), dict)


def jobs() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{path.name}: {name}", job) for path in WORKFLOWS for name, job in read(path)["jobs"].items()]


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [(where, step) for where, job in jobs() for step in job["steps"]]


def lines() -> list[str]:
    """What is run, line by line."""
    return [line for _, step in steps() for line in step.get("run", "").splitlines()]


def test_workflows_are_there() -> None:
    assert {path.stem for path in WORKFLOWS} >= {"ci", "docs", "gpu", "release"}
    for path in WORKFLOWS:
        workflow = read(path)
        assert workflow["permissions"] == {"contents": "read"}, path
        assert True in workflow, f"{path}: `on` says when it runs"
    assert all("timeout-minutes" in job for _, job in jobs())


def test_actions_have_exact_versions() -> None:
    used = [(where, step["uses"]) for where, step in steps() if "uses" in step]
    assert len(used) > 8
    for where, action in used:
        assert EXACT.fullmatch(action), f"{where}: {action}"


def test_workflows_run_rules_of_the_makefile() -> None:
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    run = {rule for line in lines() for rule in re.findall(r"\bmake ([a-z-]+)", line)}
    assert {"lint", "test", "test-docs", "test-gpu", "package"} <= run <= rules
    assert not any("pytest" in line for line in lines()), "tests are run by the Makefile's rules"


def test_pythons_and_torches_are_supported() -> None:
    supported = SpecifierSet(PROJECT["project"]["requires-python"])
    pythons = {str(step["with"]["python-version"]) for _, step in steps() if "python-version" in step.get("with", {})}
    matrix = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    pythons = {version for version in pythons if "matrix." not in version} | {row["python"] for row in matrix}
    assert all(supported.contains(f"{version}.0") for version in pythons)
    assert {"3.10", "3.12"} <= {row["python"] for row in matrix}
    assert {"oldest", "newest"} == {row["torch"] for row in matrix}
    lowest = re.search(r">=([\d.]+)", str(supported))
    assert lowest is not None and lowest[1] in pythons, "the oldest Python is tested"


def test_a_gpu_is_used_only_where_there_is_one() -> None:
    (job,) = read(ROOT / ".github" / "workflows" / "gpu.yml")["jobs"].values()
    assert job["runs-on"] == ["self-hosted", "gpu"] and "vars.GPU_RUNNER" in job["if"]
    publish = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]["publish"]
    assert "vars.PUBLISH" in publish["if"] and publish["needs"] == "build"


@pytest.mark.seconds(2)
def test_commands_in_workflows_parse() -> None:
    commands = [words(line) for line in lines() if re.match(r"(surface-sos|ns-train) ", line) and "--help" not in line]
    assert {command[0] for command in commands} == {"surface-sos", "ns-train"}
    for name, *arguments in commands:
        if name == "ns-train":
            config = train_config(arguments)
            assert config.output_dir == Path("smoke") and config.timestamp == "smoke"
        else:
            our_command(arguments)


# ------------------------------------------------------------------ nerfstudio's documentation


def test_the_entry_for_nerfstudio_is_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    from nerfstudio.configs import external_methods as theirs

    entries: list[theirs.ExternalMethod] = []
    monkeypatch.setattr(theirs, "external_methods", entries)
    runpy.run_path(str(ROOT / "docs" / "nerfstudio" / "external_methods.py"))
    (entry,) = entries
    assert isinstance(entry, theirs.ExternalMethod)
    names = [name for name, _ in entry.configurations]
    assert names == ["surface-sos", "surface-sos-lite", "surface-sos-paper"] and set(names) <= METHODS.keys()
    assert entry.pip_package is not None and entry.pip_package in entry.instructions
    configs, descriptions = theirs.get_external_methods()  # what nerfstudio makes of the list
    assert set(configs) == set(descriptions) == set(names)


def test_figures_for_nerfstudio_are_those_of_the_benchmarks() -> None:
    page = (ROOT / "docs" / "nerfstudio" / "surface_sos.md").read_text(encoding="utf-8")
    figures = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(surface-sos[\w-]*)` \| [^|]* \| ([\d.]+ GB) by count", page, re.MULTILINE))
    assert len(rows) == 3
    for name, memory in rows.items():
        counted = re.search(rf"^\| `{name}` \| ([\d.]+ GB) \| ([\d.]+ GB) \|", figures, re.MULTILINE)
        assert counted is not None
        assert memory == counted[1 if METHODS[name].pipeline.datamanager.train_num_rays_per_batch == 1024 else 2]
    assert re.search(r"^\| orbit \| `surface-sos-lite`, 7000 \|.*\| 612 s \| 1\.6 GB \|$", figures, re.MULTILINE)
    assert "1.6 GB" in page and "612 seconds" in page
