"""Commands whose packages are extras say so before any work where one is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from surface_sos_ns.cli import main
from surface_sos_ns.export.settings import ExportSettings
from surface_sos_ns.utils import extras
from tests.helpers.paths import ROOT


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch):
    """A function that makes a package look as if it were not installed."""
    find = importlib.util.find_spec

    def hidden(package: str) -> None:
        module = extras.MODULE.get(package, package)
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: None if name == module else find(name, *rest)
        )

    return hidden


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run's config.yml that cannot be read: the package is looked for before it is."""
    path = tmp_path / "config.yml"
    path.write_text("nothing")
    return path


@pytest.mark.parametrize(
    "package, extra, what, arguments",
    [
        ("pycocotools", "export", "surface-sos export --what masks", ["export", "--what", "masks"]),
        ("pymatting", "export", "surface-sos export --what cutouts", ["export", "--what", "all"]),
        ("pymatting", "export", "surface-sos report", ["report"]),
        ("pymatting", "export", "surface-sos demo", ["demo"]),
        ("embreex", "demo", "Rendering the demo capture", ["demo"]),
        ("embreex", "demo", "Rendering the demo capture", ["capture"]),
        ("embreex", "demo", "Rendering the demo capture", ["bench", "render", "--no-scaling"]),
        (
            *("pysodmetrics", "saliency", "surface-sos bench saliency"),
            ["bench", "saliency", "--predictions", "masks", "--truth", "truth"],
        ),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(
    hide, config: Path, tmp_path: Path, capsys, monkeypatch, package: str, extra: str, what: str, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hide(package)
    options = {
        "export": ["--output-dir", "out", "--load-config", str(config)],
        "report": ["--load-config", str(config)],
    }
    before = sorted(tmp_path.rglob("*"))
    assert main([*arguments, *options.get(arguments[0], [])]) == 1
    said = capsys.readouterr().err
    expected = f"{what} needs the package {package}, which is not installed: pip install 'surface-sos-ns[{extra}]'."
    assert expected in said and "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before, "nothing was begun"


def test_an_export_that_does_not_need_the_package_goes_on(hide, config: Path, tmp_path: Path) -> None:
    hide("pymatting")
    ExportSettings(config, tmp_path / "out", ("masks", "mattes", "mesh")).check()
    path = ("path", str(config))  # a rendered cut-out has nothing of the background in it
    ExportSettings(config, tmp_path / "out", ("cutouts",), views=path).check()


def test_a_cut_out_from_python_needs_the_package_as_well(hide) -> None:
    from surface_sos_ns.utils.cutouts import cutout_of_photo, cutout_of_rendering

    hide("pymatting")
    photo, alpha = np.ones((4, 4, 3), np.float32), np.full((4, 4), 0.5, np.float32)
    with pytest.raises(extras.MissingPackageError, match=r"A cut-out of a photo needs the package pymatting"):
        cutout_of_photo(photo, alpha)
    assert cutout_of_rendering(photo, alpha).shape == (4, 4, 4), "a rendered one does not"


def test_a_machine_without_a_wheel_is_not_sent_to_pip(hide, monkeypatch: pytest.MonkeyPatch) -> None:
    hide("embreex")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    words = extras.missing_package("embreex", "surface-sos demo")
    assert words == "surface-sos demo needs the package embreex, which has no wheel for this kind of machine (aarch64)."


def test_each_extra_installs_the_packages_it_is_named_for() -> None:
    tomllib = pytest.importorskip("tomllib", reason="new in Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    of = {
        extra: {inner.name: inner.extras for inner in map(Requirement, names)}
        for extra, names in project["optional-dependencies"].items()
    }
    for package, extra in extras.EXTRA.items():
        assert package in of[extra], f"{package} is not in the extra {extra}"
    assert of["dev"]["surface-sos-ns"] == {"batch", "demo", "docs", "export", "onnx", "saliency"}, (
        "make test, demo and docs set up all that they need"
    )
