"""What happens in a run, and when: by hand-counted steps, on stand-ins that write down what they are asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.plugin.model import SurfaceSOSModelConfig
from surface_sos_ns.plugin.run_schedule import RunSchedule
from surface_sos_ns.plugin.training_run import TrainingRun, small_objects_remark
from surface_sos_ns.training.weight_average import WeightAverage


def test_fractions_of_a_run_become_steps() -> None:
    config = SurfaceSOSModelConfig(
        total_steps=200, mask_refresh=(0.5, 0.15, 0.001), probability_refresh=(0.25, 0.5), cache_interval=25
    )
    schedule = RunSchedule.of(config, average_from=0.96875)  # a 32nd: 6.25 steps
    assert schedule.mask_refreshes == {30: 1, 100: 2}, "in the order of steps; none before the first step"
    assert schedule.probability_refreshes == {50, 100}
    # Before each refresh of the masks, and before the end.
    averaged = [step for step in range(1, 201) if schedule.averages(step)]
    assert averaged == [*range(24, 31), *range(94, 101), *range(194, 201)]
    assert [schedule.last_mask_refresh(step) for step in (0, 30, 31, 100, 101)] == [None, None, 1, 1, 2]
    assert not any(RunSchedule.of(config, average_from=1.0).averages(step) for step in range(1, 201))


def test_objects_of_few_cells_are_named() -> None:
    assert small_objects_remark({"cup": 0.5, "lemon": 0.0938}, cell=2 / 64) is None
    remark = small_objects_remark({"cup": 0.5, "lemon": 0.0625, "pin": 0.01}, cell=2 / 64)
    assert remark is not None and "lemon (2.0), pin (0.3)" in remark and "cup" not in remark
    assert small_objects_remark({}, cell=2 / 64) is None


class Diary:
    """A scene, and all else that a run asks for something, in the order in which it was asked."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.room = None
        self.frame = ObjectFrame(np.array([1.0, 2.0, 3.0]), 0.5)

    def __getattr__(self, name: str) -> Any:
        def asked(*arguments: Any, **options: Any) -> Any:
            self.written.append(name if name != "set_progress" else f"progress {arguments[0]:.2f}")

        return asked


def a_run(folder: Path, diary: Diary, ready: bool, first_step: int = 0, renewed: bool = False) -> TrainingRun:
    """A run of ten steps: masks are refreshed before step 4, m^P before step 6, cached fields every fifth step."""
    config = SurfaceSOSModelConfig(
        total_steps=10, mask_refresh=(0.4,), probability_refresh=(0.6,), cache_interval=5, support_map=True
    )
    diary.ready, diary.object_grid = ready, diary
    diary.reliability = SimpleNamespace(forget=lambda views: diary.written.append("forget"))
    weight = torch.nn.Parameter(torch.zeros(1))
    cameras = SimpleNamespace(camera_to_worlds=torch.eye(4)[None, :3])
    hull = SimpleNamespace(probability=np.zeros((2, 2, 2)), signed_distance=lambda: np.zeros((2, 2, 2)))
    prior = SimpleNamespace(
        sphere=SimpleNamespace(centre=np.zeros(3), radius=1.0),
        points=None,
        masks_given=True,
        hull_identity=None,
        initial_hull=lambda slack: hull,
    )

    def prepare(where: Path, sphere: Any) -> Any:
        assert where == folder
        if ready:
            np.testing.assert_array_equal(sphere.centre, [1.0, 2.0, 3.0])
            assert sphere.radius == 0.5
        else:
            assert sphere is None
        diary.written.append("prepare")
        return prior

    class Camera(SimpleNamespace):
        def __getitem__(self, which: slice) -> Any:
            return SimpleNamespace(width=torch.tensor([4]), height=torch.tensor([4]))

    class Cache:
        def __len__(self) -> int:
            return 1

        def mask(self, view: int) -> np.ndarray:
            return np.zeros((4, 4), np.float32)

        def identity(self, view: int) -> None:
            return None

        def set_mask(self, view: int, mask: np.ndarray, identity: None) -> None:
            diary.written.append("new mask")

    def images(camera: Any, names: list[str], smooth_edges: bool) -> dict[str, torch.Tensor]:
        diary.written.append("render")
        return {"alpha": torch.ones(4, 4, 1)}

    model: Any = SimpleNamespace(
        config=config, scene=diary, training_views=None, device="cpu", images=images, object_names=()
    )
    manager: Any = SimpleNamespace(
        prepare=prepare,
        prior_renewed=renewed,
        train_cache=Cache(),
        train_dataset=SimpleNamespace(cameras=Camera(**vars(cameras)), metadata={"file_paths": ["a.jpg"]}),
    )
    schedule = RunSchedule.of(config, average_from=1.0)
    return TrainingRun(model, manager, WeightAverage([weight]), schedule, folder, first_step)


def test_a_new_run_goes_through_its_parts_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diary = Diary()

    def errors(model: Any, data: Any) -> np.ndarray:
        diary.written.append("photo errors")
        return np.ones(1)

    monkeypatch.setattr("surface_sos_ns.plugin.training_run.photo_errors", errors)
    run = a_run(tmp_path, diary, ready=False)
    run.prepare()
    run.initialise()
    assert diary.written == ["prepare", "initialise"]
    diary.written.clear()
    for step in range(10):
        run.before_step(step)
        diary.written.append(f"step {step}")
        run.after_step(step)
    assert diary.written == [
        *("progress 0.00", "update_cache", "step 0", "progress 0.10", "step 1", "progress 0.20", "step 2"),
        *("progress 0.30", "step 3", "progress 0.40", "render", "new mask", "forget", "step 4"),
        *("progress 0.50", "update_cache", "step 5", "progress 0.60", "refresh_probability", "step 6"),
        *("progress 0.70", "step 7", "progress 0.80", "step 8", "progress 0.90", "step 9"),
        *("progress 1.00", "update_cache", "discount_hidden", "map_support", "photo errors"),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["own_masks_1.npz"]


@pytest.mark.parametrize(("first_step", "restored"), [(4, []), (5, ["new mask"])])
def test_a_resumed_run_keeps_its_fields_and_takes_back_its_masks(
    tmp_path: Path, first_step: int, restored: list[str]
) -> None:
    before = a_run(tmp_path, Diary(), ready=True)
    before.prepare()
    before.initialise()
    before.before_step(4)
    diary = Diary()
    resumed = a_run(tmp_path, diary, ready=True, first_step=first_step)
    resumed.prepare()
    resumed.initialise()
    assert diary.written == ["prepare", *restored]


def test_a_run_that_is_gone_on_with_takes_other_masks_and_forgets_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = a_run(tmp_path, Diary(), ready=True)
    before.prepare()
    before.initialise()
    before.before_step(4)  # its own masks, in a file
    diary = Diary()
    corrected = a_run(tmp_path, diary, ready=True, first_step=5, renewed=True)
    corrected.prepare()
    corrected.initialise()
    assert diary.written == ["prepare", "start", "forget"], "and no mask of its own"
    assert "it goes on with the new ones" in capsys.readouterr().out
    # Stopped and resumed again, it still has the new ones: those of before are not taken back.
    again = Diary()
    resumed = a_run(tmp_path, again, ready=True, first_step=6)
    resumed.prepare()
    resumed.initialise()
    assert again.written == ["prepare"]
