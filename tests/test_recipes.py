"""The recipes in configs/ do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command_line import METHODS, leaves, train_config, words
from tests.helpers.paths import ROOT

RECIPES = sorted((ROOT / "configs").glob("*.args"))


def test_there_is_a_recipe_for_each_kind_of_capture() -> None:
    assert [path.stem for path in RECIPES] == ["forward_facing", "orbit", "video"]


@pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("surface-sos")])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_sets_what_it_says_and_nothing_else(recipe: Path, method: str) -> None:
    stated = dict(line.split(maxsplit=1) for line in recipe.read_text().splitlines() if line.startswith("--"))
    assert stated, "a recipe without options"
    config = train_config([method, *words(f"$(grep -v '^#' configs/{recipe.name})")])
    before, after = dict(leaves(METHODS[method])), dict(leaves(config))
    changed = {f"--{name}": after[name] for name in after if after[name] != before[name]}
    assert {name: type(value)(stated.get(name)) for name, value in changed.items()} == changed
    assert changed.keys() == stated.keys()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_each_option_of_a_recipe_has_its_reason_above_it(recipe: Path) -> None:
    lines = recipe.read_text().splitlines()
    for index, line in enumerate(lines):
        assert line == "" or line.startswith(("# ", "--")) or line == "#", f"{recipe.name}: {line!r}"
        if line.startswith("--"):
            assert len(line.split()) == 2, "one option and its value a line; the shell splits at spaces"
            assert lines[index - 1].startswith("# "), f"{recipe.name}: {line} has no reason above it"


def test_an_option_after_the_recipe_wins() -> None:
    config = train_config(
        words("surface-sos $(grep -v '^#' configs/video.args) --pipeline.model.scene.last-sharpness 250")
    )
    assert dict(leaves(config))["pipeline.model.scene.last-sharpness"] == 250
