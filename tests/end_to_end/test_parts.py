"""`surface-sos parts` on a trained run: what is kept beside it, and what stays as it is."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from surface_sos_ns.api import Run, RunError, load_run
from surface_sos_ns.parts.settings import PartsError
from tests.helpers.command_line import our_command


def digests(folder: Path) -> dict[str, str]:
    """Of all files of a run but for its parts."""
    files = (path for path in folder.rglob("*") if path.is_file() and "parts" not in path.parts)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def command(folder: Path, parts: int, *more: str) -> None:
    config = str(folder / "config.yml")
    our_command(["parts", "--load-config", config, "--parts", str(parts), "--features", "descriptor", *more]).main()


@pytest.fixture(scope="module")
def with_parts(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A copy of the run with 4 parts and then 3, and the digests of its files before."""
    folder = tmp_path_factory.mktemp("parts") / "run"
    shutil.copytree(trained, folder)
    before = digests(folder)
    command(folder, 4)
    command(folder, 3)
    return folder, before


@pytest.fixture(scope="module")
def run(with_parts: tuple[Path, dict[str, str]]) -> Run:
    return load_run(with_parts[0] / "config.yml")


@pytest.mark.seconds(40)
def test_results_are_kept_side_by_side_and_the_run_is_untouched(with_parts: tuple[Path, dict[str, str]]) -> None:
    folder, before = with_parts
    assert sorted(path.name for path in (folder / "parts").glob("*.npz")) == ["parts_3.npz", "parts_4.npz"]
    assert digests(folder) == before


@pytest.mark.seconds(5)
def test_the_latest_result_is_the_one_without_a_number(run: Run) -> None:
    assert [result.parts for result in run.part_results] == [3, 4]
    assert {"parts", "part_ids", "parts_3", "part_ids_3", "parts_4", "part_ids_4"} <= set(run.outputs)
    images = run.render(0, ["parts", "parts_3", "alpha"])
    assert np.array_equal(images["parts"], images["parts_3"])
    assert (images["parts"][images["alpha"][..., 0] < 0.01] < 0.02).all()


@pytest.mark.seconds(5)
def test_identities_fill_the_mask_and_nothing_else(run: Run) -> None:
    identities, mask = run.parts(0), run.mask(0)
    assert identities.dtype == np.uint8 and identities.shape == mask.shape
    assert np.array_equal(identities > 0, mask)
    assert set(np.unique(identities)) <= {0, 1, 2, 3} and run.parts(0, 4).max() <= 4


def test_the_mesh_has_the_parts_at_its_vertices(run: Run) -> None:
    mesh = run.mesh(48, parts=True)
    labels = mesh.vertex_attributes["part"]
    assert labels.shape == (len(mesh.vertices),) and set(np.unique(labels)) <= {1, 2, 3}
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3]
    for part in np.unique(labels):
        assert len(np.unique(colours[labels == part], axis=0)) == 1


def test_parts_that_were_not_found_are_named_with_the_command(run: Run) -> None:
    with pytest.raises(RunError, match=r"no result of 9 parts; there are 3, 4.*surface-sos parts .*--parts 9"):
        run.parts(0, 9)


def test_a_result_is_not_replaced_unasked(with_parts: tuple[Path, dict[str, str]]) -> None:
    file = with_parts[0] / "parts" / "parts_3.npz"
    before = file.read_bytes()
    with pytest.raises(PartsError, match=r"parts_3\.npz exists.*--overwrite"):
        command(with_parts[0], 3)
    assert file.read_bytes() == before


@pytest.mark.seconds(15)
def test_found_again_with_another_seed_parts_keep_their_numbers(
    with_parts: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_run(with_parts[0] / "config.yml").parts(0, 3)
    command(with_parts[0], 3, "--overwrite", "--seed", "1")
    (following,) = re.findall(r"^Next: surface-sos (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert our_command(shlex.split(following)).kinds == ("parts",), "what it says to type can be typed"
    after = load_run(with_parts[0] / "config.yml").parts(0, 3)
    shown = (before > 0) & (after > 0)
    assert (before == after)[shown].mean() > 0.6  # of other divisions; with other numbers it is a third


def test_mistakes_are_told_before_the_run_is_opened(tmp_path: Path) -> None:
    with pytest.raises(PartsError, match=r"config\.yml does not exist"):
        command(tmp_path, 3)
    (tmp_path / "config.yml").touch()
    with pytest.raises(PartsError, match="--parts is 1; expected 2 to 64"):
        command(tmp_path, 1)
