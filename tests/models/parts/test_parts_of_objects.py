"""Parts of one of several objects: a ball in slices along x."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from surface_sos_ns.api import Run, RunError
from surface_sos_ns.models.parts import fit
from surface_sos_ns.parts.find import find_parts
from surface_sos_ns.parts.settings import PartsError, PartsSettings
from surface_sos_ns.plugin.part_results import heads_of, read_parts, usable_parts
from tests.helpers.sliced_scene_run import CENTRE, NAMES, RADIUS, sliced_run


def asked(run: Run, **options: object) -> PartsSettings:
    return PartsSettings(run.config, **({"features": "descriptor", "parts": 2} | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """With 2 and 3 parts of the slice at the right, and then 2 of the one in the middle."""
    run = sliced_run(tmp_path_factory.mktemp("several"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "RESOLUTION", 64)
        patch.setattr(fit, "POINTS", 1500)
        for name, parts in (("right", 3), ("right", 2), ("middle", 2)):
            find_parts(run, asked(run, object=name, parts=parts), print)
    return run


@pytest.mark.seconds(15)
def test_results_are_kept_by_the_objects_name(run: Run) -> None:
    folder = run.config.parent / "parts"
    assert sorted(path.name for path in folder.glob("*.npz")) == [
        *("parts_middle_2.npz", "parts_right_2.npz", "parts_right_3.npz"),
    ]
    assert [(result.facts.object, result.parts) for result in run.part_results] == [
        *(("middle", 2), ("right", 2), ("right", 3)),
    ]
    assert {name for name in run.outputs if name.startswith("part")} == {
        *("parts", "part_ids", "parts_middle", "part_ids_middle", "parts_right", "part_ids_right"),
        *("parts_middle_2", "part_ids_middle_2", "parts_right_2", "part_ids_right_2"),
        *("parts_right_3", "part_ids_right_3"),
    }
    assert run.model.part_numbers() == ["middle_2", "right_2", "right_3"]


@pytest.mark.seconds(3)
def test_parts_are_on_their_object_and_nowhere_else(run: Run) -> None:
    for view in (0, 1):
        for name, parts in (("right", 2), ("right", 3), ("middle", 2)):
            found, mask = run.parts(view, parts, name), run.mask(view, name)
            assert ((found > 0) == mask).all() and found.max() <= parts
        images = run.render(view, ["parts_right", "parts_right_2", "alpha_right"])
        assert (images["parts_right"] == images["parts_right_2"]).all()
        assert images["parts_right"][images["alpha_right"][..., 0] < 0.02].max(initial=0) < 0.05


@pytest.mark.seconds(2)
def test_the_surface_that_is_described_is_the_objects_alone(run: Run) -> None:
    mesh = run.mesh("right", 48, parts=2)
    assert set(np.unique(mesh.vertex_attributes["part"])) == {1, 2}, "both parts are on it"
    world = mesh.vertices * 0.5 + [1.0, 0, 0]
    assert world[:, 0].min() > CENTRE[0] + RADIUS / 3 - 0.1
    assert (run.mesh(None, 48, parts=3).vertices == run.mesh("right", 48).vertices).all()


def test_a_result_is_read_with_the_cube_it_was_learned_in(run: Run) -> None:
    result = next(result for result in run.part_results if result.parts == 3)
    again = read_parts(result.file, run.model.scene.ops, NAMES).head
    points = torch.rand(50, 3) * 0.3 + 0.2
    assert torch.equal(again.identities(points), result.head.identities(points))
    assert again.object == ("right", 3)
    assert float(again.place[0]) > 0.2 and 0.1 < float(again.place[3]) < 0.8, "about the slice"


def test_the_latest_of_an_object_has_no_number_unless_that_is_anothers_name(run: Run) -> None:
    heads = heads_of(run.part_results)
    assert [head.latest_of_object for head in heads] == [True, True, False]
    two = next(head for head in heads if head.name == "parts_right_2")
    two.object = ("right_2", 2)  # whose latest result would be called as the one of 2 parts of right
    three = next(head for head in heads if head.name == "parts_right_3")
    three.object, three.field.out.out_features = ("right", 3), 2
    try:
        assert [head.latest_of_object for head in heads_of(run.part_results)] == [True, False, True]
    finally:
        two.object, three.field.out.out_features = ("right", 3), 3
        heads_of(run.part_results)


def test_results_of_other_objects_are_left_out(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run.config.parent
    for names in (("cup", "lemon"), ()):
        assert usable_parts(folder, run.checkpoint.name, run.model.scene.ops, names) == []
    said = " ".join(capsys.readouterr().out.split())
    assert "is of the object 'middle', which this run does not have" in said


def test_mistakes_are_answered_with_the_names(run: Run, tmp_path: Path) -> None:
    with pytest.raises(PartsError, match="has 3 objects: left, middle, right. Name the one.*--object left"):
        find_parts(run, asked(run), print)
    with pytest.raises(PartsError, match="--object: .* no object 'cup'; its objects are left, middle, right"):
        find_parts(run, asked(run, object="cup"), print)
    with pytest.raises(PartsError, match=r"parts_right_2\.npz exists"):
        find_parts(run, asked(run, object="right"), print)
    with pytest.raises(RunError, match=r"no parts of left\. Find them.*--object left"):
        run.parts(0, object="left")
    one = sliced_run(tmp_path, ())
    with pytest.raises(PartsError, match="--object: .*has one object, without a name"):
        find_parts(one, asked(one, object="cup"), print)
