"""A photo that a few wrong matches have placed finds its place, or is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from surface_sos_ns.cli import main
from surface_sos_ns.process.doubtful import doubtful_photos, place_doubtful_again
from tests.helpers import textured_corner

VIEWS = 9
MISPLACED = "view_4.png"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of the textured corner."""
    folder = tmp_path_factory.mktemp("doubtful")
    textured_corner.write_photos(folder / "photos", VIEWS)
    assert main(["process", "--images", str(folder / "photos"), "--output", str(folder / "scene")]) == 0
    return folder / "scene"


def _named(model: Any, name: str) -> Any:
    return next(image for image in model.images.values() if image.name == name)


@pytest.fixture
def misplaced(scene: Path) -> Any:
    """The scene's model with one photo where it does not belong, and a tenth of its points."""
    model = pycolmap.Reconstruction(scene / "colmap" / "sparse" / "0")
    image = _named(model, MISPLACED)
    manager = pycolmap.ObservationManager(model)
    seen = [index for index, point in enumerate(image.points2D) if point.has_point3D()]
    for index in seen[len(seen) // 10 :]:
        manager.delete_observation(image.image_id, index)
    turn = pycolmap.Rotation3d(np.array([0.0, np.sin(0.4), 0.0, np.cos(0.4)]))
    model.frames[image.frame_id].set_cam_from_world(
        image.camera_id, pycolmap.Rigid3d(turn, np.array([3.0, -2.0, 5.0])) * image.cam_from_world()
    )
    model.update_point_3d_errors()
    return model


def _mapping(scene: Path, folder: Path) -> Callable[[Path], Any]:
    def go_on(start: Path) -> Any:
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads, options.random_seed = 1, 0
        found = pycolmap.incremental_mapping(
            scene / "colmap" / "database.db", scene / "images", folder, options, input_path=start
        )
        return max(found.values(), key=lambda model: model.num_reg_images())

    return go_on


@pytest.mark.seconds(8)
def test_it_finds_its_place_by_all_points(scene: Path, misplaced: Any, tmp_path: Path) -> None:
    (doubtful,) = doubtful_photos(misplaced)
    assert misplaced.images[doubtful].name == MISPLACED
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    found = place_doubtful_again(misplaced, _mapping(scene, tmp_path / "out"), tmp_path / "in")
    image = _named(found, MISPLACED)
    assert image.has_pose and doubtful_photos(found) == {}
    other = _named(found, "view_5.png")  # poses are compared from photo to photo, whatever the frame
    first = pycolmap.Reconstruction(scene / "colmap" / "sparse" / "0")
    was = first.images[image.image_id].cam_from_world() * _named(first, "view_5.png").cam_from_world().inverse()
    now = image.cam_from_world() * other.cam_from_world().inverse()
    cosine = (np.trace(was.rotation.matrix().T @ now.rotation.matrix()) - 1) / 2
    assert np.degrees(np.arccos(min(cosine, 1.0))) < 0.3


def test_one_that_cannot_be_trusted_is_left_out(misplaced: Any, tmp_path: Path) -> None:
    (number,) = doubtful_photos(misplaced)
    again = pycolmap.Reconstruction(misplaced)
    found = place_doubtful_again(misplaced, lambda folder: again, tmp_path)  # placed as badly as before
    assert not _named(found, MISPLACED).has_pose and found.num_reg_images() == VIEWS - 1
    assert number not in doubtful_photos(found)


def test_nothing_is_done_where_all_are_well_placed(scene: Path, tmp_path: Path) -> None:
    model = pycolmap.Reconstruction(scene / "colmap" / "sparse" / "0")
    assert doubtful_photos(model) == {}
    assert place_doubtful_again(model, lambda folder: pytest.fail("mapped again"), tmp_path) is model
