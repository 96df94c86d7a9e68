"""A run's result is corrected by a click, and the command that is printed goes on from the run."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from surface_sos_ns.cli import correction
from surface_sos_ns.masks.click import Click
from surface_sos_ns.masks.click_result import ResultSession
from surface_sos_ns.masks.provider import CoarseMasks, MaskError
from tests.helpers.terminal import Terminal


class Clicks(Click):
    """A user who clicks on the middle of what a mask shows, once, and is done."""

    def serve(self, session: Any, task: str, progress: Any) -> CoarseMasks:
        assert isinstance(session, ResultSession) and "click what is wrong" in task
        inside = cv2.distanceTransform(session.mask(0).astype(np.uint8), cv2.DIST_L2, 5)
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        session.click(0, column + 0.5, row + 0.5, False)
        session.propagate(progress)
        return session.coarse_masks()


@pytest.fixture
def capture(demo_capture: Path, tmp_path: Path) -> Path:
    """The demo's capture, to be written to."""
    return Path(shutil.copytree(demo_capture, tmp_path / "capture"))


@pytest.mark.seconds(40)
def test_a_run_is_corrected_and_gone_on_with(
    trained: Path, capture: Path, terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    config = trained / "config.yml"
    before = (capture / "coarse_masks" / "frame_00003.png").read_bytes()
    with pytest.raises(MaskError, match="--overwrite"):
        correction.correct_result(config, Clicks(), capture, False, print)
    correction.correct_result(config, Clicks(), capture, True, print)
    said = capsys.readouterr().out
    assert "corrected in 1 photos (1 clicks)" in said
    assert (capture / "coarse_masks_old" / "coarse_masks" / "frame_00003.png").read_bytes() == before
    frames = json.loads((capture / "transforms.json").read_text())["frames"]
    masks = [cv2.imread(str(capture / frame["coarse_mask_path"]), cv2.IMREAD_GRAYSCALE) for frame in frames]
    assert len(masks) == 32 and all(mask.shape == (75, 100) for mask in masks)
    assert np.mean([(mask > 127).any() for mask in masks]) > 0.9
    command = shlex.split(said.strip().splitlines()[-1].removeprefix("Next: "))
    assert command[:4] == ["ns-train", "surface-sos-lite", "--data", str(capture)]
    # 150 more than the 500 that the run has had, with the options that it was started with.
    assert command[command.index("--max-num-iterations") + 1] == "650"
    assert command[command.index("--pipeline.model.hull-slack") + 1] == "0.1"
    run, output = terminal.train("surface-sos-lite", capture, "corrected", *command[4:])
    assert "Continuing at step 500 of 650" in output and "it goes on with the new ones" in output
    assert (run / "nerfstudio_models" / "step-000000649.ckpt").is_file()


def test_what_lies_beyond_the_runs_sphere_needs_a_new_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from nerfstudio.configs.method_configs import all_methods

    preset = all_methods["surface-sos-lite"]
    monkeypatch.setattr(correction, "read_config", lambda path: preset)
    run: Any = SimpleNamespace(config=tmp_path / "config.yml", checkpoint=tmp_path / "m" / "step-000006999.ckpt")
    on = correction.next_command(run, Path("scene"))
    assert on == f"ns-train surface-sos-lite --data scene --load-dir {tmp_path / 'm'} --max-num-iterations 8750"
    assert correction.next_command(run, Path("scene"), anew=True) == "ns-train surface-sos-lite --data scene"
