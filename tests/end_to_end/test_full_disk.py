"""Disks that are full: one sentence names the file, what was there is as it was, and the same again works later.

A limit on the size of files stands for the disk: what is written beyond it is refused by the system, to libraries too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from surface_sos_ns.cli import main
from surface_sos_ns.export.writer import write_export
from surface_sos_ns.masks.write import write_masks
from surface_sos_ns.plugin.self_training import Mask, save_masks
from surface_sos_ns.utils.files import WriteError
from tests.helpers.ball_run import open_ball, settings

resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")

Full = Callable[[int], AbstractContextManager[None]]
RNG = np.random.default_rng(0)


@pytest.fixture
def full() -> Full:
    """Within `full(size)` no file can have more bytes than that."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.seconds(3)
@pytest.mark.parametrize(
    ("what", "size", "name"),
    [
        ("masks", 100, "export.json"),
        ("cutouts", 1200, "cutouts/left/0001.png"),
        ("mesh", 20_000, "mesh/object_points.ply"),
        ("video", 20_000, "video/cutout.mov"),  # written by FFmpeg
    ],
)
def test_an_export_names_the_file_and_goes_on_later(
    what: str, size: int, name: str, tmp_path: Path, full: Full
) -> None:
    run, output = open_ball(tmp_path / "capture"), tmp_path / "out"
    with (
        full(size),
        pytest.raises(WriteError, match=f"^{output / name} could not be written: .* the same command again"),
    ):
        write_export(run, settings(output, what))
    assert not (output / name).exists() and not list(output.rglob(".*"))
    written = contents(output)
    write_export(run, settings(output, what))
    write_export(run, settings(tmp_path / "whole", what))
    assert contents(output) == contents(tmp_path / "whole")
    assert all(contents(output)[name] == written[name] for name in written if name != "export.json")


@pytest.mark.seconds(4)
def test_an_export_that_cannot_replace_an_older_one_leaves_it(tmp_path: Path, full: Full) -> None:
    run, output = open_ball(tmp_path / "capture"), tmp_path / "out"
    write_export(run, settings(output, "cutouts"))
    before = contents(output)
    with full(1200), pytest.raises(WriteError, match="cutouts/left/0001.png could not be written"):
        write_export(run, settings(output, "cutouts", overwrite=True))
    after = contents(output)
    assert {name: after[name] for name in before if name != "export.json"} == {
        name: before[name] for name in before if name != "export.json"
    }
    run.asked.clear()
    write_export(run, settings(output, "cutouts", overwrite=True))
    assert len(run.asked) == 4, "all of them are replaced"
    assert contents(output) == before


def test_masks_leave_a_capture_as_it_was(tmp_path: Path, full: Full) -> None:
    names = [f"images/{index}.jpg" for index in range(3)]
    source = tmp_path / "transforms.json"
    pose = np.eye(4).tolist()
    source.write_text(json.dumps({"frames": [{"file_path": name, "transform_matrix": pose} for name in names]}))
    masks, sizes = [RNG.random((48, 64)) for _ in names], [(64, 48)] * 3
    write_masks(source, names, [mask * 0 for mask in masks], sizes, {})
    before = contents(tmp_path)
    with full(500), pytest.raises(WriteError, match=f"^{tmp_path / 'coarse_masks' / '0.png'} could not be written"):
        write_masks(source, names, masks, sizes, {}, overwrite=True)
    assert contents(tmp_path) == before and not list(tmp_path.glob(".*"))


def test_a_scene_without_room_for_its_photos(tmp_path: Path, full: Full, capsys: pytest.CaptureFixture[str]) -> None:
    photos, scene = tmp_path / "photos", tmp_path / "scene"
    photos.mkdir()
    for index in range(3):
        cv2.imwrite(str(photos / f"{index}.png"), RNG.integers(0, 256, (60, 80, 3), np.uint8))
    with full(5000):
        assert main(["process", "--images", str(photos), "--output", str(scene)]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{scene / 'images' / '0.png'} could not be written" in said and "the same command again" in said
    assert list(contents(scene)) == ["colmap/settings.json"]


def test_a_report_leaves_the_older_page(
    tmp_path: Path, full: Full, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yml").write_text("")
    page = tmp_path / "report.html"
    page.write_text("an older page")
    monkeypatch.setattr("surface_sos_ns.api.load_run", lambda *_: None)
    monkeypatch.setattr("surface_sos_ns.report.collect.collect", lambda *_: None)
    monkeypatch.setattr("surface_sos_ns.report.page.page", lambda _: "a" * 20_000)
    command = ["report", "--load-config", str(tmp_path / "config.yml"), "--overwrite"]
    for size, named in ((100, tmp_path), (10_000, page)):  # found before and after the work
        with full(size):
            assert main(command) == 1
        said = capsys.readouterr().err.strip()
        assert f"{named} could not be written" in said and "\n" not in said
        assert page.read_text() == "an older page" and not list(tmp_path.glob(".*"))
    assert main(command) == 0
    assert page.read_text() == "a" * 20_000


def test_a_runs_own_masks_are_named(tmp_path: Path, full: Full) -> None:
    path = tmp_path / "own_masks_1.npz"
    with full(500), pytest.raises(WriteError, match=f"^{path} could not be written"):
        save_masks(path, [Mask(RNG.random((40, 60)).astype(np.float32))])
    assert not list(tmp_path.iterdir())
