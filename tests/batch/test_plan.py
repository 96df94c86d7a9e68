"""Which captures a batch has, and what is refused before anything begins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from surface_sos_ns.batch.error import BatchError
from surface_sos_ns.batch.job import words
from surface_sos_ns.batch.plan import plan
from surface_sos_ns.batch.settings import BatchSettings
from surface_sos_ns.batch.stages import stages_of
from surface_sos_ns.cli.command_line import parse


@pytest.fixture
def captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scene, a COLMAP folder, photos and a video, by their names alone; and no look at ns-train's options."""
    for name in ("shoots/cup", "shoots/jug", "gaussian/sparse/0", "scene"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "scene" / "transforms.json").write_text(json.dumps({"frames": []}))
    (tmp_path / "gaussian" / "sparse" / "0" / "images.bin").write_bytes(b"")
    (tmp_path / "clip.mp4").write_bytes(b"")
    monkeypatch.setattr("surface_sos_ns.batch.plan._parse", _parse_ours)
    return tmp_path


def _parse_ours(job: object, stage: str, parse_command: object) -> None:
    from surface_sos_ns.batch.stages import arguments

    if stage != "train":
        parse(arguments(job, stage))  # type: ignore[arg-type]


def _settings(captures: Path, *names: str, **options: object) -> BatchSettings:
    return replace(BatchSettings(tuple(str(captures / name) for name in names), captures / "out"), **options)


def _refused(captures: Path, recipe: str) -> str:
    (captures / "recipe.yml").write_text(recipe)
    with pytest.raises(BatchError) as caught:
        plan(_settings(captures, "recipe.yml"), False, parse)
    return str(caught.value)


def test_kinds_are_seen_and_patterns_are_expanded(captures: Path) -> None:
    jobs = plan(_settings(captures, "shoots/*", "clip.mp4", "scene", "gaussian"), False, parse)
    assert [(job.name, job.kind) for job in jobs] == [
        ("cup", "photos"),
        ("jug", "photos"),
        ("clip", "video"),
        ("scene", "scene"),
        ("gaussian", "scene"),
    ]
    assert [stage.name for stage in stages_of(jobs[0])] == ["process", "train", "eval", "export", "report"]
    assert [stage.name for stage in stages_of(jobs[3])] == ["train", "eval", "export", "report"]
    assert jobs[3].scene == captures / "scene" and jobs[0].scene == captures / "out" / "cup" / "scene"
    assert {job.method for job in jobs} == {"surface-sos-lite"}
    assert plan(_settings(captures, "scene"), True, parse)[0].method == "surface-sos"


def test_captures_of_one_name_get_folders_of_their_own(captures: Path) -> None:
    (captures / "other" / "Cup").mkdir(parents=True)
    jobs = plan(_settings(captures, "shoots/cup", "other/Cup"), False, parse)
    assert [job.name for job in jobs] == ["cup", "Cup-2"]  # not told apart by every file system
    assert [job.folder.name for job in jobs] == ["cup", "Cup-2"]


def test_a_recipe_has_options_for_all_and_for_each(captures: Path) -> None:
    (captures / "recipe.yml").write_text(
        """
        steps: 500
        export: {what: [masks, mesh], fps: 12}
        captures:
          - shoots/*
          - {path: scene, name: can, steps: 90, seed: 7, masks: {method: prior, vote: true}, export: {fps: 30}}
          - {path: clip.mp4, process: {frames: 40}, report: false}
        """
    )
    cup, _jug, can, clip = plan(_settings(captures, "recipe.yml", masks="selfment"), False, parse)
    assert (cup.steps, cup.seed, cup.options["masks"]) == (500, 42, {"method": "selfment"})
    assert (can.steps, can.seed) == (90, 7)
    assert can.options["masks"] == {"method": "prior", "vote": True}
    assert can.options["export"] == {"what": ["masks", "mesh"], "fps": 30}
    assert can.scene == captures / "out" / "can" / "scene"  # the capture itself stays as it is
    assert clip.options["process"] == {"frames": 40}
    assert "report" not in [stage.name for stage in stages_of(clip)]


def test_outlines_before_poses_are_those_of_a_turntable(captures: Path) -> None:
    (captures / "recipe.yml").write_text("{outlines: {method: selfment}, captures: [shoots/cup, scene]}")
    cup, scene = plan(_settings(captures, "recipe.yml"), False, parse)
    assert [stage.name for stage in stages_of(cup)][:2] == ["outlines", "process"]
    assert cup.options["process"] == {"use": "object"}
    assert next(stage.name for stage in stages_of(scene)) == "train"  # has poses


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("captures: [", "no YAML"),
        ("captures: []", "captures"),
        ("{captures: [scene], step: 5}", "step"),
        ("{captures: [scene], steps: 0}", "steps"),
        ("{captures: [absent]}", "absent does not exist"),
        ("{captures: ['none*']}", "pattern"),
        ("{captures: [scene, scene]}", "named twice"),
        ("{captures: [{path: 'shoots/*', name: one}]}", "2 captures"),
        ("{captures: [{path: scene, name: ../up}]}", "name"),
        ("{captures: [scene], export: {wat: 1}}", "wat"),
        ("{captures: [scene], export: {output_dir: x}}", "gives itself"),
        ("{captures: [scene], export: {fps: fast}}", "fps"),
        ("{captures: [shoots/cup], process: {frames: many}}", "frames"),
        ("{captures: [scene], masks: {method: click}}", "browser"),
        ("{captures: [scene], train: {data: x}}", "gives itself"),
    ],
)
def test_what_cannot_work_is_said_before_anything_begins(captures: Path, recipe: str, words: str) -> None:
    assert words in _refused(captures, recipe)


def test_options_become_words_as_each_command_reads_them() -> None:
    options = {"vote": True, "invert": False, "names": ["cup", "jug"], "object_radius": 0.5}
    assert words(options, flags=True) == ["--vote", "--no-invert", "--names", "cup", "jug", "--object-radius", "0.5"]
    assert words({"cuda-graph": False}, flags=False) == ["--cuda-graph", "False"]


@pytest.mark.seconds(15)
def test_options_of_ns_train_are_read_by_its_own_parser(tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    scene.mkdir()
    (scene / "transforms.json").write_text("{}")
    recipe = tmp_path / "recipe.yml"
    recipe.write_text("{captures: [scene], train: {pipeline.model.nonsense: 3}}")
    with pytest.raises(BatchError, match="nonsense"):
        plan(BatchSettings((str(recipe),), tmp_path / "out"), False, parse)
    recipe.write_text("{captures: [scene], train: {average-from: 0.9}}")
    assert plan(BatchSettings((str(recipe),), tmp_path / "out"), False, parse)[0].options["train"]
