"""nerfstudio's commands on a run with several objects: outputs and figures of each by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from tests.end_to_end.test_commands import TINY
from tests.helpers.terminal import Terminal

NAMES = ("can", "mug", "pot", "books", "lemon")


@pytest.fixture(scope="module")
def run(terminal: Terminal, objects_capture: Path) -> Path:
    """A few steps from the voted hulls on."""
    options = ("--max-num-iterations", "20", *TINY, "--pipeline.model.initial-fit-steps", "150")
    return terminal.train("surface-sos-lite", objects_capture, "objects", *options)[0]


@pytest.mark.slow
@pytest.mark.seconds(60)
def test_outputs_and_figures_of_each_object(terminal: Terminal, run: Path, tmp_path: Path) -> None:
    names = ("mask", "objects", *(f"mask_{name}" for name in NAMES))
    terminal.render(
        "dataset", run, tmp_path, "--split", "train", "--image-format", "png", "--rendered-output-names", *names
    )
    stem = next((tmp_path / "train" / "objects").glob("*.png")).name
    pictures = {name: cv2.imread(str(tmp_path / "train" / name / stem)) for name in names}
    assert all(picture is not None and picture.shape == (72, 96, 3) for picture in pictures.values())
    masks = np.stack([pictures[f"mask_{name}"] for name in NAMES]) > 0
    assert np.array_equal(masks.any(0), pictures["mask"] > 0) and masks.sum(0).max() == 1, "each pixel is one's"
    assert masks[0].any() and pictures["objects"].any()
    terminal.render(
        *("interpolate", run, tmp_path / "film.mp4", "--interpolation-steps", "1", "--downscale-factor", "4"),
        *("--pose-source", "train", "--rendered-output-names", "mask_can", "objects"),
    )
    assert (tmp_path / "film.mp4").stat().st_size > 500
    figures, _ = terminal.eval(run)
    found = figures["results"]
    expected = {"mask_iou", "mask_iou_all", "mask_iou_bg", *(f"mask_iou_{name}" for name in NAMES)}
    assert expected | {"mask_wrong_identity"} <= found.keys()
    each = [found[f"mask_iou_{name}"] for name in NAMES]  # of the one held-out photo, which shows them all
    assert found["mask_iou"] == pytest.approx(np.mean(each)) and 0 < found["mask_iou"] < 1


@pytest.mark.slow
@pytest.mark.seconds(20)
def test_a_point_cloud_is_of_all_objects(terminal: Terminal, run: Path, tmp_path: Path) -> None:
    terminal.run(
        *("nerfstudio.scripts.exporter", "pointcloud", "--load-config", run / "config.yml", "--output-dir", tmp_path),
        *("--num-points", "500", "--remove-outliers", "False", "--normal-method", "open3d"),
    )
    cloud = trimesh.load(tmp_path / "point_cloud.ply")
    assert isinstance(cloud, trimesh.PointCloud) and len(cloud.vertices) >= 500
