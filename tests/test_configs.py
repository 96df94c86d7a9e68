"""The recipes do what they say, and the commands and tables of the documentation are true."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tyro
from nerfstudio.engine.trainer import TrainerConfig

from surface_sos_ns.plugin.methods import surface_sos, surface_sos_lite, surface_sos_paper

REPOSITORY = Path(__file__).parents[1]
RECIPES = sorted((REPOSITORY / "configs").glob("*.args"))
DOCUMENTS = sorted([REPOSITORY / "README.md", *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("configs/*.md")])
METHODS: dict[str, TrainerConfig] = {
    str(method.config.method_name): method.config for method in (surface_sos, surface_sos_lite, surface_sos_paper)
}


def words(shell_line: str) -> list[str]:
    """The arguments that bash makes of a line, in the repository's folder."""
    line = ["bash", "-c", f"printf '%s\\0' {shell_line}"]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def parsed(command: Any, arguments: list[str], **options: Any) -> Any:
    """What tyro makes of a command's arguments, or a failure with what it said."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return tyro.cli(command, args=arguments, **options)
    except SystemExit:
        pytest.fail(f"{' '.join(arguments)}\n{said.getvalue()}")


def train_config(arguments: list[str]) -> TrainerConfig:
    """What `ns-train ARGUMENTS` would run."""
    default = METHODS[arguments[0]]
    # nerfstudio's own markers: without them a bool would be a pair of flags.
    markers = (tyro.conf.SuppressFixed, tyro.conf.FlagConversionOff)
    return parsed(type(default), arguments[1:], default=default, config=markers)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting below a config, with its name as an option."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            name = field.name.replace("_", "-")
            yield from leaves(getattr(value, field.name), f"{path}.{name}" if path else name)
    else:
        yield path, value


@cache
def commands() -> list[tuple[str, str]]:
    """File name and text of every command of a code block that starts with ns-."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"^```bash\n(.*?)^```", document.read_text(), flags=re.DOTALL | re.MULTILINE):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(document.name, line) for line in lines if line.startswith("ns-")]
    return found


def test_there_is_a_recipe_for_each_kind_of_capture() -> None:
    assert [path.stem for path in RECIPES] == ["forward_facing", "orbit", "video"]


@pytest.mark.parametrize("method", METHODS)
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


def test_documented_training_commands_parse() -> None:
    lines = [line for _, line in commands() if line.startswith("ns-train ") and not line.endswith("--help")]
    assert len(lines) >= 5
    for line in lines:
        config = train_config(words(line)[1:])
        assert str(config.data) == "SCENE"


def test_documented_nerfstudio_commands_parse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from nerfstudio.scripts import eval as evaluation
    from nerfstudio.scripts import exporter, process_data, render
    from nerfstudio.scripts.viewer import run_viewer
    from nerfstudio.utils import install_checks

    monkeypatch.chdir(tmp_path)  # ns-process-data makes its output folder while it reads its options
    # ns-process-data looks for them as soon as its options are read.
    monkeypatch.setattr(install_checks, "check_ffmpeg_installed", lambda: None)
    monkeypatch.setattr(install_checks, "check_colmap_installed", lambda colmap_cmd: None)
    parsers = {
        "ns-render": render.Commands,
        "ns-export": exporter.Commands,
        "ns-eval": evaluation.ComputePSNR,
        "ns-viewer": tyro.conf.FlagConversionOff[run_viewer.RunViewer],
        "ns-process-data": process_data.Commands,
    }
    lines = [line for _, line in commands() if not line.startswith("ns-train ")]
    assert {line.split()[0] for line in lines} >= {"ns-render", "ns-eval", "ns-process-data"}
    for line in lines:
        program, *arguments = words(line)
        parsed(parsers[program], arguments)


def test_options_named_in_the_text_exist() -> None:
    known = {f"--{name}" for config in METHODS.values() for name, _ in leaves(config)}
    for document in [*DOCUMENTS, *RECIPES]:
        for option in re.findall(r"--(?:pipeline|viewer|machine|vis|load|max)[\w.-]*\w", document.read_text()):
            ours = option in known or any(name.startswith(f"{option}.") for name in known)  # '--pipeline.model.scene.*'
            assert ours or option == "--load-config", f"{document.name} names {option}, which does not exist"


def test_links_and_named_files_exist() -> None:
    for document in DOCUMENTS:
        text = document.read_text()
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            assert target.startswith("https://") or (document.parent / target).exists(), f"{document.name}: {target}"
        headings = {re.sub(r"[^\w\- ]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in text.splitlines()}
        for anchor in re.findall(r"\]\(#([^)]+)\)", text):
            assert anchor in headings, f"{document.name}: #{anchor}"
    architecture = (REPOSITORY / "docs" / "architecture.md").read_text()
    package = REPOSITORY / "surface_sos_ns"
    for name in re.findall(r"`((?:[\w.]+/)*\w+\.py|(?:\w+/)+)`", architecture):
        places = [REPOSITORY / name, package / name, *package.glob(f"*/{name}")]
        assert any(place.exists() for place in places), f"architecture.md names {name}"


def test_preset_table_shows_the_presets() -> None:
    page = (REPOSITORY / "docs" / "guides" / "presets.md").read_text()
    numbers: dict[str, list[str]] = {"Steps": [], "Rays per step": [], "Samples per ray": [], "Entries": []}
    for config in METHODS.values():
        settings = dict(leaves(config))
        entries = settings["pipeline.model.scene.foreground-grid.log2-entries"]
        numbers["Steps"].append(f"{settings['max-num-iterations']:,}".replace(",", " "))
        numbers["Rays per step"].append(
            f"{settings['pipeline.datamanager.train-num-rays-per-batch']:,}".replace(",", " ")
        )
        training, pictures = (settings[f"pipeline.model.scene.{name}"] for name in ("samples", "render-samples"))
        numbers["Samples per ray"].append(f"{training}, {pictures}")
        numbers["Entries"].append(f"2^{entries}")
        assert entries == settings["pipeline.model.scene.background-grid.log2-entries"]
    numbers["Entries per level of the hash grids"] = numbers.pop("Entries")
    numbers["Samples per ray, in training and in pictures"] = numbers.pop("Samples per ray")
    for title, cells in numbers.items():
        assert f"| {title} | {' | '.join(cells)} |" in page, f"the line '{title}' of presets.md should be {cells}"


def names_in_table(guide: str) -> set[str]:
    """What stands in backquotes in the first column of a guide's table."""
    table = (REPOSITORY / "docs" / "guides" / guide).read_text()
    return set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE))))


def test_metric_table_is_complete() -> None:
    import torch

    from surface_sos_ns.utils.metrics import image_metrics, mask_metrics

    halves = torch.zeros(16, 16)
    halves[:8] = 1.0
    metrics = {*mask_metrics(halves, halves), *image_metrics(*[halves[..., None].expand(-1, -1, 3)] * 2)}
    assert names_in_table("evaluation.md") == metrics | {"clean_plate_psnr", "lpips"}


def test_output_table_is_complete() -> None:
    import torch
    from nerfstudio.cameras.rays import RayBundle
    from nerfstudio.data.scene_box import SceneBox

    config = METHODS["surface-sos-lite"].pipeline.model
    scene = dataclasses.replace(config.scene, grid_backend="torch")  # type: ignore[attr-defined]
    model = dataclasses.replace(config, scene=scene).setup(  # type: ignore[call-arg]
        scene_box=SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=2, metadata={}
    )
    rays = RayBundle(
        origins=torch.tensor([0.0, 0.0, 3.0]).expand(2, 2, 3),
        directions=torch.tensor([0.0, 0.0, -1.0]).expand(2, 2, 3),
        pixel_area=torch.ones(2, 2, 1),
    )
    with torch.no_grad():
        outputs = model.eval().get_outputs_for_camera_ray_bundle(rays)
        assert outputs["background"].shape == (2, 2, 3)
    assert names_in_table("outputs.md") == {*outputs, "rgba"}


def test_loss_table_shows_the_presets() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| ([\w ]+) \| .* \| (both|default|paper) \|$", text, flags=re.MULTILINE)
    assert rows and rows[0] == ("colour", "both"), "it has no weight: it is what the others are relative to"
    default, paper = (METHODS[name].pipeline.model.objective for name in ("surface-sos", "surface-sos-paper"))  # type: ignore[attr-defined]
    for name, presets in rows[1:]:
        weights = [getattr(objective, name.replace(" ", "_")) for objective in (default, paper)]
        expected = [presets in ("both", "default"), presets in ("both", "paper")]
        assert [weight > 0 for weight in weights] == expected, f"{name}: {weights}"


def test_the_page_of_options_is_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("write_options", REPOSITORY / "docs" / "write_options.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (REPOSITORY / "docs" / "options.md").read_text()
    assert page == script.reference(), "docs/options.md is out of date: python docs/write_options.py"
    # Each row is an option that ns-train knows, and its defaults are those of the three methods.
    rows = re.findall(r"^\| `--([\w.-]+)` \| (.*?) \| ", page, flags=re.MULTILINE)
    assert len(rows) > 60
    for name, defaults in rows:
        given = []
        for method in script.METHODS:
            value: Any = METHODS[method]
            for part in name.replace("-", "_").split("."):
                value = getattr(value, part)
            given.append(script.shown(value))
        assert defaults == (given[0] if len(set(given)) == 1 else " / ".join(given)), name
