"""surface-sos process with masks: an object that turns before a camera that stands, and things that move about."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from surface_sos_ns.cli import main
from surface_sos_ns.process.error import ProcessError
from surface_sos_ns.process.feature_masks import feature_folder, find_masks, write_masks
from surface_sos_ns.process.photos import find_photos
from surface_sos_ns.process.run import run_process
from surface_sos_ns.process.settings import ProcessSettings
from tests.helpers import textured_corner
from tests.helpers.textured_corner import HEIGHT, WIDTH

VIEWS = 8


@pytest.fixture(scope="module")
def turntable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos and masks of the corner, which turns in a room that stands still."""
    folder = tmp_path_factory.mktemp("turntable")
    textured_corner.write_photos(folder / "photos", VIEWS, turntable=folder / "masks")
    return folder


@pytest.mark.seconds(8)
@pytest.mark.parametrize("rim", [0, 70], ids=["exact masks", "masks with a rim of room"])
def test_the_object_alone_gives_the_poses_of_a_turntable(turntable: Path, rim: int) -> None:
    scene, masks = turntable / f"scene {rim}".replace(" ", "_"), turntable / "masks"
    if rim:
        masks = turntable / "wide_masks"
        masks.mkdir()
        for path in (turntable / "masks").iterdir():
            mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(masks / path.name), cv2.dilate(mask, np.ones((2 * rim + 1, 2 * rim + 1))))
    command = ["process", "--images", str(turntable / "photos"), "--output", str(scene)]
    assert main([*command, "--masks", str(masks), "--use", "object"]) == 0
    frames = json.loads((scene / "transforms.json").read_text())["frames"]
    assert len(frames) == VIEWS
    order = [int(Path(frame["file_path"]).stem.rpartition("_")[2]) - 1 for frame in frames]
    found = np.array([frame["transform_matrix"] for frame in frames])[:, :3, :3] @ np.diag([1, -1, -1])
    truth = textured_corner.cameras(VIEWS)[0][order]
    # Rotations from one camera to the next do not depend on the frame of the world.
    steps = [np.einsum("nji,njk->nik", turns[:-1], turns[1:]) for turns in (found, truth)]
    cosine = (np.einsum("nij,nij->n", *steps) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.5
    # The masks are the scene's own.
    from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig

    outputs = SurfaceSOSDataParserConfig(data=scene).setup().get_dataparser_outputs("train")
    given = outputs.metadata["coarse_mask_filenames"]
    assert [path.stem for path in given] == [path.stem for path in outputs.image_filenames]
    written = cv2.imread(str(given[0]), cv2.IMREAD_GRAYSCALE)
    name = given[0].name.replace("_", " ")
    assert np.abs(written.astype(int) - cv2.imread(str(masks / name), cv2.IMREAD_GRAYSCALE)).max() <= 1


@pytest.mark.seconds(8)
def test_a_turntable_without_masks_is_named_with_what_to_do(
    turntable: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photos = turntable / "photos"
    words = f"surface-sos masks --images {photos} --output MASKS; then add --masks MASKS --use object"
    try:
        last = run_process(ProcessSettings(photos, tmp_path / "scene"))  # poses of neither room nor object
    except ProcessError as error:
        last = str(error)
        assert last.startswith("No poses were found. It looks like a turntable")
    assert words in last and words in capfd.readouterr().out, "at once, and in what is read last"


@pytest.mark.seconds(6)
def test_nothing_is_taken_from_what_moves_about(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    textured_corner.write_photos(tmp_path / "photos", VIEWS)
    (tmp_path / "masks").mkdir()
    generator = np.random.default_rng(0)
    ball = cv2.GaussianBlur(generator.integers(0, 255, (90, 90, 3), dtype=np.uint8), (0, 0), 1.5)
    places = {}
    for path in sorted((tmp_path / "photos").iterdir()):
        picture, mask = cv2.imread(str(path)), np.zeros((HEIGHT, WIDTH), np.uint8)
        top, left = int(generator.integers(0, HEIGHT - 90)), int(generator.integers(0, WIDTH - 90))
        picture[top : top + 90, left : left + 90], mask[top : top + 90, left : left + 90] = ball, 255
        cv2.imwrite(str(path), picture)
        cv2.imwrite(str(tmp_path / "masks" / path.name), mask)
        places[path.name.replace(" ", "_")] = (left, top)
    run_process(ProcessSettings(tmp_path / "photos", tmp_path / "scene", masks=tmp_path / "masks", use="background"))
    assert not (tmp_path / "scene" / "coarse_masks").exists(), "what moves need not be the object"
    assert "turntable" not in capfd.readouterr().out
    with closing(pycolmap.Database.open(tmp_path / "scene" / "colmap" / "database.db")) as opened:
        for image in opened.read_all_images():
            spots = np.asarray(opened.read_keypoints(image.image_id))[:, :2] - places[image.name]
            inside = ((spots > -1) & (spots < 91)).all(axis=1)
            assert len(spots) > 100 and not inside.any()
    assert len(json.loads((tmp_path / "scene" / "transforms.json").read_text())["frames"]) == VIEWS


def test_a_camera_that_moves_is_no_turntable(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    textured_corner.write_photos(tmp_path / "photos", 4)
    run_process(ProcessSettings(tmp_path / "photos", tmp_path / "scene"))
    assert "turntable" not in capfd.readouterr().out


def photos_in(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((60, 80, 3), 90, np.uint8))
    return folder


def masks_in(folder: Path, value: int = 255, size: tuple[int, int] = (30, 40), names: str = "012") -> Path:
    """Masks with a box of the value in their middle, half as large as the photos."""
    folder.mkdir(parents=True)
    for name in names:
        mask = np.zeros(size, np.uint8)
        mask[10:20, 10:30] = value
        cv2.imwrite(str(folder / f"{name}.png"), mask)
    return folder


def test_features_keep_away_from_the_outline(tmp_path: Path) -> None:
    photos, masks = photos_in(tmp_path / "scene" / "images"), masks_in(tmp_path / "masks")
    files = find_masks(masks, find_photos(photos).photos, photos)
    assert [path.name for path in files] == ["0.png", "1.png", "2.png"]
    for use, inside in (("object", True), ("background", False)):
        scene = tmp_path / use
        (scene / "colmap").mkdir(parents=True)
        (scene / "images").symlink_to(photos)
        write_masks(files, ["0.png", "1.png", "2.png"], scene, use)  # type: ignore[arg-type]
        kept = cv2.imread(str(feature_folder(scene) / "1.png.png"), cv2.IMREAD_GRAYSCALE)
        assert kept.shape == (60, 80) and set(np.unique(kept)) == {0, 255}
        assert (kept[22:38, 23:57] == (255 if inside else 0)).all() and (kept[0, 0] == 0) == inside
        assert kept[20, 40] == 0 and kept[40, 40] == 0, "on the outline there are none either way"
        assert (scene / "coarse_masks").is_dir() == inside


def test_masks_that_do_not_fit_are_refused_before_any_work(tmp_path: Path) -> None:
    photos, masks = photos_in(tmp_path / "photos"), masks_in(tmp_path / "masks")

    def refusal(**options: object) -> str:
        with pytest.raises(ProcessError) as caught:
            run_process(ProcessSettings(photos, tmp_path / "scene", **options))  # type: ignore[arg-type]
        return str(caught.value)

    assert "--masks and --use belong together" in refusal(masks=masks)
    assert "--masks and --use belong together" in refusal(use="object")
    assert "nowhere does not exist" in refusal(masks=tmp_path / "nowhere", use="object")
    few = masks_in(tmp_path / "few", names="02")
    assert f"1 of 3 photos have no mask in {few}, such as 1.png" in refusal(masks=few, use="object")
    assert not (tmp_path / "scene").exists()
    black = masks_in(tmp_path / "black", value=0)
    assert "3 of 3 masks are white nearly nowhere, such as 0.png" in refusal(masks=black, use="object")
    assert not feature_folder(tmp_path / "scene").exists()
    tall = masks_in(tmp_path / "tall", size=(40, 30))
    with pytest.raises(ProcessError, match="0.png is 30 x 40 pixels, and the photo 0.png 80 x 60"):
        run_process(ProcessSettings(photos, tmp_path / "other", masks=tall, use="object"))
