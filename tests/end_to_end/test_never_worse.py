"""Training never makes masks worse than what came in: on the demo, held-out views, for several kinds of masks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from surface_sos_ns.demo.detector_masks import chosen_photos, noisy_outline, without_part
from surface_sos_ns.utils.overlap import intersection_over_union
from tests.helpers.terminal import Terminal

STEPS = ("--max-num-iterations", "2000", "--pipeline.datamanager.train-num-rays-per-batch", "512")
SPOUT = (2, 3)
"""Identities of the spout and its rose among the can's parts."""


def with_masks(capture: Path, folder: Path, kind: str) -> tuple[Path, float]:
    """A copy of the demo with other coarse masks; their mean IoU on the held-out views."""
    content = json.loads((capture / "transforms.json").read_text())
    folder.mkdir()
    for path in capture.iterdir():
        if path.name not in ("transforms.json", "coarse_masks"):
            os.symlink(path, folder / path.name)
    (folder / "coarse_masks").mkdir()
    frames, held_out = content["frames"], set(content["val_filenames"])
    groups = [[i for i, frame in enumerate(frames) if (frame["file_path"] in held_out) == out] for out in (False, True)]
    wrong, ious = chosen_photos(groups, 0.6, 0), []
    for view, frame in enumerate(frames):
        rng = np.random.default_rng([view, 7])
        truth = cv2.imread(str(capture / frame["gt_mask_path"]), cv2.IMREAD_GRAYSCALE) > 127
        parts = cv2.imread(str(capture / frame["gt_parts_path"]), cv2.IMREAD_UNCHANGED)
        mask = {
            "coarse": cv2.imread(str(capture / frame["coarse_mask_path"]), cv2.IMREAD_GRAYSCALE),
            "rough outlines": noisy_outline(truth, rng),
            "no spout in most": without_part(truth, truth & np.isin(parts, SPOUT), view in wrong, rng),
        }[kind]
        cv2.imwrite(str(folder / frame["coarse_mask_path"]), mask)
        if frame["file_path"] in held_out:
            ious.append(intersection_over_union(mask > 127, truth))
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder, float(np.mean(ious))


@pytest.mark.slow
@pytest.mark.seconds(300)
@pytest.mark.parametrize("kind", ["coarse", "rough outlines", "no spout in most"])
def test_masks_get_better(terminal: Terminal, demo_capture: Path, tmp_path: Path, kind: str) -> None:
    folder, before = with_masks(demo_capture, tmp_path / "capture", kind)
    assert before < 0.97
    run, _ = terminal.train("surface-sos-lite", folder, kind.replace(" ", "_"), *STEPS)
    figures, _ = terminal.eval(run)
    assert figures["results"]["mask_iou"] >= before
