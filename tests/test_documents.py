"""The documents are true: links lead somewhere, commands and options exist, tables show what the code has."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.utils import install_checks

from surface_sos_ns.capture.schema import Frame, TransformsFile
from tests.helpers.command_line import METHODS, NERFSTUDIO, help_text, leaves, our_command, parsed, train_config, words
from tests.helpers.paths import ROOT

DOCS = ROOT / "docs"
GLOSSARY = DOCS / "concepts" / "glossary.md"
PAGES = [page for page in sorted(DOCS.glob("**/*.md")) if DOCS / "_build" not in page.parents]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES, *sorted(ROOT.glob("configs/**/*.md"))]
RECIPES = sorted(ROOT.glob("configs/*.args"))
CODE_BLOCK = re.compile(r"^```([^`\n]*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(document: Path) -> str:
    """A document without its code blocks."""
    return CODE_BLOCK.sub("", document.read_text())


# ------------------------------------------------------------------ links


@cache
def anchors(document: Path) -> set[str]:
    """What a link may name after a #, as GitHub makes it of the headings: a second one of a name is numbered."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(document), flags=re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)  # of a link its words
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        found.add(next(name for name in (slug, *(f"{slug}-{n}" for n in range(1, 99))) if name not in found))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_to_files_and_headings_that_exist(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"", prose(document)):
        path, _, anchor = "".join(link).partition("#")
        if path.startswith("https://"):
            continue
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{named(document)}: {path}"
        assert not anchor or anchor in anchors(target), f"{named(document)}: {path}#{anchor}"


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("# The `first` part, twice\n## The first part, twice\n```bash\n# no heading\n```\n")
    assert anchors(document) == {"the-first-part-twice", "the-first-part-twice-1"}


@pytest.mark.parametrize("page", [DOCS / "architecture.md", GLOSSARY], ids=named)
def test_files_named_in_the_architecture_exist(page: Path) -> None:
    package = ROOT / "surface_sos_ns"
    names = re.findall(r"`((?:[\w.]+/)*\w+\.py|(?:\w+/)+)`", page.read_text())
    assert len(names) > 20
    for name in names:
        places = [ROOT / name, package / name, *package.glob(f"*/{name}")]
        assert any(place.exists() for place in places), f"{named(page)} names {name}"


def equation_rows() -> list[tuple[list[str], list[str]]]:
    """Files and symbols of each row of the tables of symbols and of equations in the glossary."""
    rows = re.findall(r"^\|[^|]*\|[^|]*\|([^|]*)\|([^|]*)\|$", GLOSSARY.read_text(), re.MULTILINE)
    found = [tuple(re.findall(r"`([^`]+)`", cell) for cell in row) for row in rows]
    return [(files, symbols) for files, symbols in found if files and symbols and "/" in files[0]]


def test_symbols_of_the_equations_are_in_the_files_beside_them() -> None:
    rows = equation_rows()
    assert len(rows) > 50
    for files, symbols in rows:
        paths = [ROOT / "surface_sos_ns" / name for name in files]
        sources = [path for place in paths for path in ([place] if place.is_file() else place.rglob("*.py"))]
        text = "\n".join(path.read_text() for path in sources)
        for symbol in symbols:
            for name in symbol.split("."):
                assert re.search(rf"^ *(def|class) {name}\b", text, re.MULTILINE), f"{symbol} is not in {files}"


# ------------------------------------------------------------------ commands


class Command(NamedTuple):
    """A command of the user's in a document: its words, as bash makes them."""

    document: str
    words: list[str]


def without_settings(line: str) -> str:
    """A line without the variables that are set before its command."""
    return re.sub(r"^(?:[A-Z_]+=\S* +)+", "", line.strip())


@cache
def in_blocks() -> list[Command]:
    """Every command of ours and of nerfstudio's that stands in a code block: complete, to be copied."""
    found = []
    for document in DOCUMENTS:
        for language, block in CODE_BLOCK.findall(document.read_text()):
            if language not in ("bash", "sh", ""):
                continue
            for line in map(without_settings, block.replace("\\\n", " ").splitlines()):
                if re.match(r"(surface-sos|ns-[\w-]+)( |$)", line):
                    found.append(Command(named(document), words(line)))
    return found


@cache
def in_sentences() -> list[Command]:
    """Those within a sentence: a beginning of a command, or a part of one, with at least one word after its name."""
    found = []
    for document in DOCUMENTS:
        for span in map(without_settings, re.findall(r"`([^`\n]+)`", prose(document))):
            if re.match(r"(surface-sos|ns-[\w-]+) ", span):
                found.append(Command(named(document), shlex.split(span.replace("...", ""))))
    return found


def program(name: str) -> list[Command]:
    return [command for command in in_blocks() if command.words[0] == name]


@pytest.mark.seconds(2)
def test_training_commands_parse() -> None:
    commands = [command.words for command in program("ns-train") if command.words[-1] != "--help"]
    assert len(commands) >= 5
    for arguments in commands:
        assert str(train_config(arguments[1:]).data) == "SCENE"


def test_other_commands_of_nerfstudio_parse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # ns-process-data makes its output folder while it reads its options
    # ns-process-data looks for them as soon as its options are read.
    monkeypatch.setattr(install_checks, "check_ffmpeg_installed", lambda: None)
    monkeypatch.setattr(install_checks, "check_colmap_installed", lambda colmap_cmd: None)
    commands = [command.words for command in in_blocks() if command.words[0] not in ("ns-train", "surface-sos")]
    assert {name for name, *_ in commands} >= {"ns-render", "ns-eval", "ns-process-data", "ns-export"}
    for name, *arguments in commands:
        parsed(NERFSTUDIO[name], arguments)


def test_our_commands_parse() -> None:
    commands = [command.words for command in program("surface-sos") if command.words[-1] != "--help"]
    assert {arguments[1] for arguments in commands} >= {"process", "masks", "export", "report"}
    for arguments in commands:
        our_command(arguments[1:])


@pytest.mark.parametrize("mistake", ["masks --dat SCENE", "mask --data SCENE", "masks --data SCENE --method magic"])
def test_a_mistake_in_a_command_would_be_found(mistake: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="surface-sos mask"):
        our_command(mistake.split())


@cache
def subcommands(program: str, level: tuple[str, ...] = ()) -> list[str]:
    """What may follow a command; of ns-train the methods."""
    if program == "ns-train":
        return [] if level else [*all_methods, *METHODS]
    usage = " ".join(help_text(program, level).split("\n\n")[0].split())
    choices = re.search(r"\{([^{}]+)\}$", usage)
    return [] if choices is None else choices[1].replace(" ", "").split(",")


@cache
def options(program: str, level: tuple[str, ...] = ()) -> frozenset[str]:
    """The options of a command, those of its subcommands included; of ns-train those of our methods."""
    if program == "ns-train":
        return frozenset(f"--{option}" for config in METHODS.values() for option, _ in leaves(config)) | {"--help"}
    below = [options(program, (*level, name)) for name in subcommands(program, level)]
    return frozenset(OPTION.findall(help_text(program, level))).union(*below)


def check_part(command: Command) -> None:
    """A beginning of a command, or a command with options left out: what there is of it exists."""
    program, *rest = command.words
    level: tuple[str, ...] = ()
    while (
        len(rest) > len(level) and (names := subcommands(program, level)) and rest[len(level)].strip(".").isidentifier()
    ):
        assert rest[len(level)] in names, command
        level = (*level, rest[len(level)])
    for option in OPTION.findall(" ".join(rest)):
        assert option in options(program, level), command


def test_commands_of_make_exist() -> None:
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named_rules = {
        rule for document in DOCUMENTS for rule in re.findall(r"(?:^|`)make ([a-z-]+)", document.read_text(), re.M)
    }
    assert {"demo", "test", "test-fast", "test-all"} <= named_rules <= rules


def test_parts_of_commands_in_sentences_exist() -> None:
    commands = in_sentences()
    assert len({command.words[0] for command in commands}) >= 4 and len(commands) > 20
    for command in commands:
        check_part(command)


@pytest.mark.parametrize("mistake", ["surface-sos mask --data X", "ns-render datasets", "ns-train --no-such-option"])
def test_a_mistake_in_a_sentence_would_be_found(mistake: str) -> None:
    with pytest.raises(AssertionError, match=mistake.split()[0]):
        check_part(Command("here", mistake.split()))


@pytest.mark.parametrize("document", [*DOCUMENTS, *RECIPES], ids=named)
def test_options_named_in_the_text_exist(document: Path) -> None:
    known = frozenset[str]().union(*(options(program) for program in ("surface-sos", "ns-train", *NERFSTUDIO)))
    text = re.sub(r"^.*\bcolmap [a-z_]+ --.*$|`ray [^`]+`", "", document.read_text(), flags=re.MULTILINE)  # others'
    for option in OPTION.findall(text):
        group = any(name.startswith(f"{option}.") for name in known)  # '--pipeline.model.objective'
        assert option in known or group, f"{named(document)} names {option}, which does not exist"


# ------------------------------------------------------------------ tables


def test_preset_table_shows_the_presets() -> None:
    page = (ROOT / "docs" / "guides" / "presets.md").read_text()
    numbers: dict[str, list[str]] = {"Steps": [], "Rays per step": [], "Samples per ray": [], "Entries": []}
    for name in ("surface-sos", "surface-sos-lite", "surface-sos-paper"):
        settings = dict(leaves(METHODS[name]))
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
    table = (ROOT / "docs" / "guides" / guide).read_text()
    return set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE))))


@pytest.mark.seconds(2)
def test_metric_table_is_complete() -> None:
    import torch
    import trimesh

    from surface_sos_ns.models.surface_sos.appearance import Appearance
    from surface_sos_ns.plugin.fitted_metrics import fitted_metrics
    from surface_sos_ns.utils.metrics import image_metrics, mask_metrics, mesh_metrics, object_metrics
    from surface_sos_ns.utils.part_metrics import part_metrics

    halves = torch.zeros(16, 16)
    halves[:8] = 1.0
    metrics = {*mask_metrics(halves, halves), *image_metrics(*[halves[..., None].expand(-1, -1, 3)] * 2)}
    metrics |= part_metrics(halves.numpy(), halves.numpy()).keys()
    metrics |= object_metrics(halves, halves, ["NAME"]).keys()
    grey, scene = torch.full((24, 24, 3), 0.5), SimpleNamespace(appearance=Appearance(1))
    view = {"rgb": grey, "accumulation": grey[..., :1]}
    metrics |= fitted_metrics(scene, view, {"image": grey}, lambda rays, code: grey).keys()
    box = trimesh.creation.box()
    for name in mesh_metrics(box, box, samples=10):
        assert f"| {name} |" in (DOCS / "reference" / "files.md").read_text()
    assert names_in_table("evaluation.md") == metrics | {"clean_plate_psnr", "lpips", "lpips_fitted"}


def test_output_table_is_complete(tmp_path: Path) -> None:
    import torch
    from nerfstudio.cameras.rays import RayBundle
    from nerfstudio.data.scene_box import SceneBox

    from surface_sos_ns.models.surface_sos.heads.parts import PartHead
    from surface_sos_ns.ops.torch_ops import TORCH
    from surface_sos_ns.plugin.part_results import PartFacts, save_parts

    config = METHODS["surface-sos-lite"].pipeline.model
    scene = dataclasses.replace(config.scene, backend="torch")  # type: ignore[attr-defined]
    model = dataclasses.replace(config, scene=scene).setup(  # type: ignore[call-arg]
        scene_box=SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])),
        num_train_data=2,
        metadata={},
    )
    save_parts(tmp_path, PartHead(6, TORCH), PartFacts("step-1.ckpt", "guesses", 0, (1 / 6,) * 6, (1,) * 6, 1))
    model.attach_parts(tmp_path, "step-1.ckpt")
    rays = RayBundle(
        origins=torch.tensor([0.0, 0.0, 3.0]).expand(2, 2, 3),
        directions=torch.tensor([0.0, 0.0, -1.0]).expand(2, 2, 3),
        pixel_area=torch.ones(2, 2, 1),
    )
    with torch.no_grad():
        outputs = model.eval().get_outputs_for_camera_ray_bundle(rays)
        assert outputs["background"].shape == (2, 2, 3)
    model.take_objects(("NAME", "other"))
    of_several = {name for name in model.output_needs() if not name.endswith("_other")}
    assert names_in_table("outputs.md") == {*outputs, *of_several, "rgba"}


def test_loss_table_shows_the_presets() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| ([\w ]+) \| .* \| (both|default|paper) \|$", text, flags=re.MULTILINE)
    assert rows and rows[0] == ("colour", "both"), "it has no weight: it is what the others are relative to"
    default, paper = (METHODS[name].pipeline.model.objective for name in ("surface-sos", "surface-sos-paper"))  # type: ignore[attr-defined]
    for name, presets in rows[1:]:
        weights = [getattr(objective, name.replace(" ", "_")) for objective in (default, paper)]
        expected = [presets in ("both", "default"), presets in ("both", "paper")]
        assert [weight > 0 for weight in weights] == expected, f"{name}: {weights}"


def script_of_the_docs(name: str) -> ModuleType:
    """A script that writes a page, or Sphinx's settings."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_page_of_commands_is_what_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)  # the scripts import each other as they lie there
    script = script_of_the_docs("write_commands")
    page = script.PAGE.read_text()
    assert page == script.reference(), f"{named(script.PAGE)} is out of date: python docs/write_commands.py"
    # Each command has a section, and in it exactly the options that its --help names.
    sections = dict(re.findall(r"^##+ `surface-sos ([a-z0-9 ]+)`$(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE))
    levels = [(name,) for name in subcommands("surface-sos")]
    levels += [(*level, name) for level in levels for name in subcommands("surface-sos", level)]
    assert sections.keys() == {" ".join(level) for level in levels} and len(levels) > 15
    for level in levels:
        rows = re.findall(r"^\| (`--.*?) \| ", sections[" ".join(level)], flags=re.MULTILINE)
        # Its lines begin with options; what is said about them is further in. In a terminal there is a frame around.
        listed = re.findall(r"^(?:│|  ?) ?(--[a-z0-9-]+(?:, --no-[a-z0-9-]+)?)", help_text("surface-sos", level), re.M)
        assert OPTION.findall(" ".join(rows)) == OPTION.findall(" ".join(listed)), level


def test_every_key_of_a_capture_is_in_the_page_of_captures() -> None:
    page = (DOCS / "captures.md").read_text()
    keys = {*TransformsFile.model_fields, *Frame.model_fields} - {"frames", "k5", "k6", "depth_file_path"}  # not used
    assert len(keys) > 30
    missing = {key for key in keys if not re.search(rf"[`\s]{key}[`\s]", page)}
    assert not missing


# ------------------------------------------------------------------ the site


def test_links_out_of_the_docs_lead_to_pages_of_the_site() -> None:
    pytest.importorskip("sphinx", reason="Sphinx is not installed: pip install -e '.[docs]'")
    conf = script_of_the_docs("conf")
    for outside, inside in conf.PAGES.items():
        assert (ROOT / outside).exists() and (DOCS / inside).is_file(), outside
    text = "[a](../../configs/README.md#x) [b](python.md) [c](https://x.org/y)\n```bash\n[d](../../README.md)\n```\n"
    guides = DOCS / "guides"
    shown = conf.with_links_of_the_site(text, guides, guides / "page.md")
    assert shown == text.replace("../../configs/README.md", "../reference/recipes.md")


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for package in ("sphinx", "myst_parser", "furo", "sphinx_copybutton"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[docs]'")
    recipe = re.search(r"^\t@\$\(VENV\)/bin/python (-m sphinx .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None and "-W" in recipe[1].split() and "-n" in recipe[1].split()
    arguments = [word.replace("docs/_build", str(tmp_path)) for word in recipe[1].split()]
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {page.relative_to(tmp_path / "html").with_suffix(".md") for page in (tmp_path / "html").rglob("*.html")}
    left_out = {page.relative_to(DOCS) for page in PAGES} - made
    assert {page.parent for page in left_out} == {Path("nerfstudio")}  # those are for another site
    assert "in_the_light_of" in (tmp_path / "html" / "reference" / "api.html").read_text()


def test_the_page_of_options_is_what_the_code_says() -> None:
    script = script_of_the_docs("write_options")
    page = (ROOT / "docs" / "options.md").read_text()
    assert page == script.reference(), "docs/options.md is out of date: python docs/write_options.py"
    # Each row is an option that ns-train knows, and its defaults are those of the methods of its part of the page.
    first, second = page.split("\n## `nerf-sos`")
    for part, methods, least in ((first, script.METHODS, 60), (second, script.BASELINES, 30)):
        rows = re.findall(r"^\| `--([\w.-]+)` \| (.*?) \| ", part, flags=re.MULTILINE)
        assert len(rows) > least
        for name, defaults in rows:
            given = []
            for method in methods:
                value: Any = METHODS[method]
                for attribute in name.replace("-", "_").split("."):
                    value = getattr(value, attribute)
                given.append(script.shown(value))
            assert defaults == (given[0] if len(set(given)) == 1 else " / ".join(given)), name
