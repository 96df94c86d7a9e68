"""The parser on tiny captures: masks matched to photos, splits, downscaling, points and the words on the console."""

from __future__ import annotations

import errno
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.mask_files import read_mask
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.points_file import first_fitting_points
from surface_sos_ns.capture.views import Views
from surface_sos_ns.plugin.cameras import views_from_cameras
from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManagerConfig
from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig
from surface_sos_ns.plugin.dataset import PixelCache, SurfaceSOSDataset
from surface_sos_ns.utils.image_io import ImageError
from tests.helpers.capture_files import Capture

APPLIED = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])
"""What ns-process-data does to COLMAP's frame."""


def parse(folder: Path, split: str = "train", **options):
    return SurfaceSOSDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def stems(paths: Sequence[Path | None] | None) -> list[str | None] | None:
    return None if paths is None else [None if path is None else path.stem for path in paths]


def test_masks_follow_their_photos_whatever_the_order_of_frames(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    capture.add_masks("coarse_mask_path", "coarse_masks", [1, 4, 7, 8])
    capture.meta["train_filenames"] = [f"images/frame_{i:03d}.png" for i in (7, 2, 4, 11)]
    outputs = parse(capture.save())
    assert stems(outputs.image_filenames) == ["frame_002", "frame_004", "frame_007", "frame_011"]
    assert stems(outputs.metadata["coarse_mask_filenames"]) == [None, "frame_004", "frame_007", None]
    dataset = SurfaceSOSDataset(outputs)
    for item, index in zip(dataset, (2, 4, 7, 11), strict=False):
        assert torch.allclose(item["image"], torch.tensor(capture.value(index) / 255))
        expected = capture.value(index) / 255 if index in (4, 7) else 0.0
        assert torch.allclose(item["coarse_mask"], torch.tensor(expected))
        assert torch.allclose(item["mask_weight"], torch.tensor(float(index in (4, 7))))


def test_folder_by_stem(tmp_path: Path) -> None:
    capture = Capture(tmp_path, suffix=".jpg")
    capture.add_masks("", "coarse_masks", [0, 5], keyed=False)
    capture.add_masks("", "other", [3], keyed=False)
    folder = capture.save()
    found = stems(parse(folder).metadata["coarse_mask_filenames"])
    assert found is not None and [i for i, name in enumerate(found) if name] == [0, 5]
    found = stems(parse(folder, coarse_masks="other").metadata["coarse_mask_filenames"])
    assert found is not None and [i for i, name in enumerate(found) if name] == [3]
    found = stems(parse(folder, coarse_masks=str(tmp_path / "other")).metadata["coarse_mask_filenames"])
    assert found is not None and [i for i, name in enumerate(found) if name] == [3]
    assert parse(folder, coarse_masks="none").metadata["coarse_mask_filenames"] is None


def test_folder_keeps_subfolders_apart(tmp_path: Path) -> None:
    capture = Capture(tmp_path, count=4)
    for index, side in enumerate(("left/a", "left/b", "right/a", "right/b")):
        path = tmp_path / "images" / f"{side}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", capture.size).save(path)
        capture.frames[index]["file_path"] = f"images/{side}.png"
        mask = tmp_path / "coarse_masks" / f"{side}.jpg.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", capture.size).save(mask)
    found = parse(capture.save()).metadata["coarse_mask_filenames"]
    assert [path.relative_to(tmp_path / "coarse_masks").as_posix() for path in found] == [
        "left/a.jpg.png",
        "left/b.jpg.png",
        "right/a.jpg.png",
        "right/b.jpg.png",
    ]


def test_masks_of_no_photo_are_mentioned(tmp_path: Path, capsys) -> None:
    capture = Capture(tmp_path)
    capture.add_masks("coarse_mask_path", "coarse_masks", [0])
    capture.add_masks("", "coarse_masks", [3], keyed=False)
    Image.new("L", capture.size).save(tmp_path / "coarse_masks" / "nobody.png")
    (tmp_path / "coarse_masks" / "._frame_005.png").write_bytes(b"left by a Mac")
    parser = SurfaceSOSDataParserConfig(data=capture.save()).setup()
    found = stems(parser.get_dataparser_outputs("train").metadata["coarse_mask_filenames"])
    assert found is not None and [i for i, name in enumerate(found) if name] == [0, 3]
    said = " ".join(capsys.readouterr().out.split())
    assert "1 files in" in said and "belong to no photo: nobody.png." in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"downscale_factor": 30}, "downscale factor is 30, and there are photos of 24 pixels"),
        ({"downscale_factor": 1.5}, "downscale factor is 1.5; expected a whole number"),
        ({"scale_factor": 0.0}, "--scale-factor is 0.0; expected a positive number"),
        ({"eval_mode": "fraction", "train_split_fraction": 1.5}, "--train-split-fraction is 1.5"),
        ({"eval_mode": "interval", "eval_interval": 1}, "--eval-interval is 1; expected at least 2"),
        ({"eval_mode": "filename"}, "wants 'train' or 'eval' in each photo's name"),
        ({"object_radius": -1.0}, "--object-radius is -1.0"),
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(CaptureError, match=words):
        parse(Capture(tmp_path).save(), **options)


def test_poses_in_map_coordinates_keep_their_precision(tmp_path: Path) -> None:
    """Cameras in metres of a map, 5000 km from its origin: as exact as the same ones around the origin."""
    offset = np.array([441548.0, 5121947.0, 2345.0])
    near, far = Capture(tmp_path / "near", count=6), Capture(tmp_path / "far", count=6)
    for frame in far.frames:
        for row, shift in zip(frame["transform_matrix"], offset, strict=False):
            row[3] += shift
    points = known_points()
    write_ply(tmp_path / "near" / "sparse_pc.ply", points)
    write_ply(tmp_path / "far" / "sparse_pc.ply", points + offset, "double")
    near.meta["ply_file_path"] = far.meta["ply_file_path"] = "sparse_pc.ply"
    hint = {"object_point": tuple(offset + np.array([0.5, -0.2, 0.0])), "object_radius": 0.5}
    ours, theirs = parse(far.save(), **hint), parse(near.save())
    torch.testing.assert_close(ours.cameras.camera_to_worlds, theirs.cameras.camera_to_worlds, atol=1e-6, rtol=0)
    views = views_from_cameras(ours.cameras)
    found = load_points(ours, views)
    for view in range(6):
        expected = pixels_in_capture_frame(near, view, points)
        np.testing.assert_allclose(views.project(found.xyz)[0][view], expected, atol=0.01)
    # Back again, as exports go, and as nerfstudio's own do.
    back = np.linalg.inv(ours.metadata["capture_to_world"])
    world = ours.cameras.camera_to_worlds.double().numpy()
    expected_centres = np.array(
        [frame["transform_matrix"] for frame in sorted(far.frames, key=lambda f: f["file_path"])]
    )
    np.testing.assert_allclose(world[:, :, 3] @ back[:3, :3].T + back[:3, 3], expected_centres[:, :3, 3], atol=1e-6)
    poses = ours.transform_poses_to_original_space(ours.cameras.camera_to_worlds, "opengl")
    np.testing.assert_allclose(poses[:, :, 3].numpy(), expected_centres[:, :3, 3], atol=1e-6)
    assert ours.metadata["object_hint"].point == pytest.approx(views_point(theirs, [0.5, -0.2, 0.0]), abs=1e-6)


def views_point(outputs, point: Sequence[float]) -> list[float]:
    """A point of the capture's frame in the world frame."""
    matrix = outputs.metadata["capture_to_world"]
    return (matrix[:3, :3] @ np.array(point) + matrix[:3, 3]).tolist()


def test_wrong_mask_folder_is_refused(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    (tmp_path / "empty").mkdir()
    folder = capture.save()
    with pytest.raises(CaptureError, match="nowhere does not exist"):
        parse(folder, coarse_masks="nowhere")
    with pytest.raises(CaptureError, match=r"frame_\d+.png, found no image files"):
        parse(folder, coarse_masks="empty")


def test_missing_mask_file_is_named(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    capture.add_masks("coarse_mask_path", "coarse_masks")
    (tmp_path / "coarse_masks" / "frame_003.png").unlink()
    with pytest.raises(CaptureError, match=r"1 of 12 files \(coarse_mask_path\) do not exist .*frame_003.png"):
        parse(capture.save())


def test_truth_is_for_evaluation_only(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    capture.add_masks("gt_mask_path", "gt_masks")
    capture.add_masks("clean_plate_path", "clean_plates", [0, 1])
    capture.meta["test_filenames"] = ["images/frame_001.png", "images/frame_006.png"]
    folder = capture.save()
    train = parse(folder)
    assert train.metadata["gt_mask_filenames"] is None and train.metadata["clean_plate_filenames"] is None
    assert "gt_mask" not in SurfaceSOSDataset(train)[0]
    test = parse(folder, "test")
    assert stems(test.metadata["gt_mask_filenames"]) == ["frame_001", "frame_006"]
    assert stems(test.metadata["clean_plate_filenames"]) == ["frame_001", None]
    item = SurfaceSOSDataset(test)[0]
    assert item["gt_mask"].shape == (24, 32, 1) and item["clean_plate"].shape == (24, 32, 3)
    assert "mask" not in item and "coarse_mask" not in item


def add_parts(capture: Capture, indices: Sequence[int], folder: str = "gt_parts", keyed: bool = True) -> np.ndarray:
    """Identities 0 to 3 at random, the same in all these views."""
    width, height = capture.size
    identities = np.random.default_rng(5).integers(0, 4, (height, width))
    (capture.folder / folder).mkdir()
    for index in indices:
        path = capture.folder / folder / f"{capture.stem(index)}.png"
        Image.fromarray(identities.astype(np.uint8)).save(path)
        if keyed:
            capture.frames[index]["gt_parts_path"] = f"{folder}/{path.name}"
    return identities


@pytest.mark.parametrize("keyed", [True, False])
def test_true_parts_are_found_by_key_or_name_and_for_evaluation_only(tmp_path: Path, keyed: bool, capsys) -> None:
    capture = Capture(tmp_path, count=12)
    identities = add_parts(capture, [0, 1], "elsewhere" if keyed else "gt_parts", keyed)
    capture.meta |= {"test_filenames": ["images/frame_001.png", "images/frame_006.png"], "part_names": ["a", "b", "c"]}
    folder = capture.save()
    train = parse(folder)
    assert "true parts for 2" in capsys.readouterr().out
    assert train.metadata["gt_parts_filenames"] is None and "gt_parts" not in SurfaceSOSDataset(train)[0]
    test = parse(folder, "test")
    assert stems(test.metadata["gt_parts_filenames"]) == ["frame_001", None]
    assert test.metadata["part_names"] == ["a", "b", "c"]
    dataset = SurfaceSOSDataset(test)
    truth = dataset[0]["gt_parts"]
    assert truth.dtype == torch.int64 and np.array_equal(truth[..., 0], identities)
    assert "gt_parts" not in dataset[1]


def test_true_parts_alone_are_truth_to_hold_photos_out_for(tmp_path: Path) -> None:
    capture = Capture(tmp_path, count=20)
    add_parts(capture, range(20))
    folder = capture.save()
    test = parse(folder, "test")
    assert (len(parse(folder).image_filenames), len(test.image_filenames)) == (18, 2)
    assert test.metadata["part_names"] is None and "gt_mask" not in SurfaceSOSDataset(test)[0]


def test_true_parts_of_large_photos_are_reduced_without_mixing(tmp_path: Path) -> None:
    capture = Capture(tmp_path, count=4, size=(33, 24))
    identities = add_parts(capture, [1, 2])
    (tmp_path / "gt_parts_2").mkdir()
    Image.fromarray(np.full((12, 16), 3, np.uint8)).save(tmp_path / "gt_parts_2" / "frame_002.png")
    dataset = SurfaceSOSDataset(parse(capture.save(), "test", eval_mode="all", downscale_factor=2))
    assert dataset[1]["gt_parts"].shape == (12, 16, 1)
    assert np.array_equal(dataset[1]["gt_parts"][..., 0], identities[1::2, 1:32:2])
    assert (dataset[2]["gt_parts"] == 3).all(), "a copy of the right size is taken as it is"


def test_wrong_files_of_true_parts_are_named(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "a", count=4)
    add_parts(capture, range(4))
    capture.meta["part_names"] = ["one", "two"]
    test = parse(capture.save(), "test")
    with pytest.raises(CaptureError, match=r"frame_000.png holds the identity 3; expected .* 1 to 2"):
        SurfaceSOSDataset(test)[0]
    capture.meta["part_names"] = {"one": 1}
    with pytest.raises(CaptureError, match=r"'part_names' is an object; expected a list of names"):
        parse(capture.save())
    del capture.meta["part_names"]
    Image.new("L", (31, 24)).save(tmp_path / "a" / "gt_parts" / "frame_001.png")
    with pytest.raises(CaptureError, match=r"true parts .*frame_001.png is 31 x 24 pixels, its photo"):
        parse(capture.save())
    Image.new("RGB", (32, 24)).save(tmp_path / "a" / "gt_parts" / "frame_001.png")
    with pytest.raises(CaptureError, match=r"frame_001.png is PNG \(RGB\); expected a PNG"):
        parse(capture.save())
    (tmp_path / "a" / "gt_parts" / "frame_001.png").unlink()
    with pytest.raises(CaptureError, match=r"1 of 4 files \(gt_parts_path\) do not exist .*frame_001.png"):
        parse(capture.save())
    capture.frames[1]["gt_parts_path"] = capture.frames[0]["gt_parts_path"]
    with pytest.raises(CaptureError, match=r"gt_parts"):
        parse(capture.save())


def test_truth_of_a_training_view_stays_out_even_when_all_views_train(tmp_path: Path) -> None:
    capture = Capture(tmp_path, count=12)
    capture.add_masks("gt_mask_path", "gt_masks")
    folder = capture.save()
    assert parse(folder, eval_mode="all").metadata["gt_mask_filenames"] is None
    assert len(parse(folder, "test", eval_mode="all").metadata["gt_mask_filenames"]) == 12


def test_split_without_truth_is_all_photos(tmp_path: Path, capsys) -> None:
    folder = Capture(tmp_path).save()
    for split in ("train", "val", "test"):
        assert len(parse(folder, split).image_filenames) == 12
    said = capsys.readouterr().out
    assert "all for training" in said and "no truth and no split given" in said
    assert "Be careful" not in said


def test_split_with_truth_holds_out_a_tenth(tmp_path: Path) -> None:
    capture = Capture(tmp_path, count=20)
    capture.add_masks("gt_mask_path", "gt_masks")
    folder = capture.save()
    train, test = parse(folder), parse(folder, "test")
    assert (len(train.image_filenames), len(test.image_filenames)) == (18, 2)
    assert not set(train.image_filenames) & set(test.image_filenames)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"train": [0, 1, 2, 3, 4]}, {"train": [0, 1, 2, 3, 4], "val": [5, 6, 7], "test": [5, 6, 7]}),
        ({"test": [3]}, {"train": [0, 1, 2, 4, 5, 6, 7], "val": [3], "test": [3]}),
        ({"val": [1, 2]}, {"train": [0, 3, 4, 5, 6, 7], "val": [1, 2], "test": [1, 2]}),
        ({"train": [0, 1, 2], "test": [6]}, {"train": [0, 1, 2], "val": [6], "test": [6]}),
        ({"train": list(range(8))}, {"train": list(range(8)), "val": list(range(8)), "test": list(range(8))}),
        ({"train": [0, 1], "val": [], "test": [2]}, {"train": [0, 1], "val": [2], "test": [2]}),
    ],
)
def test_missing_lists_of_a_split_are_derived(tmp_path: Path, given: dict, expected: dict) -> None:
    capture = Capture(tmp_path, count=8)
    for split, indices in given.items():
        capture.meta[f"{split}_filenames"] = [f"./images/{capture.stem(i)}.png" for i in indices]
    folder = capture.save()
    for split, indices in expected.items():
        assert stems(parse(folder, split).image_filenames) == [capture.stem(i) for i in indices]


def test_explicit_eval_mode_overrides_the_lists(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    capture.meta["train_filenames"] = ["images/frame_000.png", "images/frame_001.png"]
    folder = capture.save()
    assert len(parse(folder).image_filenames) == 2
    assert len(parse(folder, eval_mode="all").image_filenames) == 12


def test_unknown_name_in_a_list_is_named(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    capture.meta["val_filenames"] = ["images/nobody.png"]
    with pytest.raises(
        CaptureError, match="val_filenames lists photos that no frame has, or several: images/nobody.png"
    ):
        parse(capture.save())


def test_explicit_downscale_makes_the_folder(tmp_path: Path, capsys) -> None:
    capture = Capture(tmp_path, count=4, size=(33, 24))
    capture.add_masks("coarse_mask_path", "coarse_masks")
    rows = np.zeros((24, 33, 3), np.uint8)
    rows[1::2] = 200
    Image.fromarray(rows).save(tmp_path / "images" / "frame_000.png")
    folder = capture.save()
    outputs = parse(folder, downscale_factor=2)
    assert "Making 4 files at 1/2 of their size" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "images_2").iterdir()) == [f"frame_{i:03d}.png" for i in range(4)]
    assert not list(tmp_path.glob(".*"))
    assert {path.parent.name for path in outputs.image_filenames} == {"images_2"}
    assert float(outputs.cameras.fx[0]) == pytest.approx(1.1 * 33 / 2)
    item = SurfaceSOSDataset(outputs)[0]
    assert item["image"].shape == (12, 16, 3) and item["coarse_mask"].shape == (12, 16, 1)
    assert torch.allclose(item["image"], torch.tensor(100 / 255)), "whole blocks are averaged"
    parse(folder, downscale_factor=2.0)
    assert "Making" not in capsys.readouterr().out, "the folder is made once"
    (tmp_path / "images_2" / "frame_002.png").unlink()
    parse(folder, downscale_factor=2)
    assert "Making 1 files" in capsys.readouterr().out


def test_downscaled_masks_are_used_where_they_are(tmp_path: Path) -> None:
    capture = Capture(tmp_path, count=4)
    capture.add_masks("coarse_mask_path", "coarse_masks")
    (tmp_path / "coarse_masks_2").mkdir()
    Image.new("L", (16, 12), 255).save(tmp_path / "coarse_masks_2" / "frame_001.png")
    dataset = SurfaceSOSDataset(parse(capture.save(), downscale_factor=2))
    assert float(dataset[1]["coarse_mask"].mean()) == 1.0
    assert float(dataset[2]["coarse_mask"].mean()) == pytest.approx(capture.value(2) / 255)


def test_large_photos_are_made_smaller_by_themselves(tmp_path: Path) -> None:
    capture = Capture(tmp_path, count=2, size=(3400, 40), suffix=".jpg")
    outputs = parse(capture.save())
    assert {path.parent.name for path in outputs.image_filenames} == {"images_4"}
    assert int(outputs.cameras.width[0]) == 850


@pytest.mark.parametrize("size", [(32, 24), (3400, 40)])
def test_read_only_capture_that_needs_smaller_photos(tmp_path: Path, monkeypatch, capsys, size) -> None:
    capture = Capture(tmp_path, count=2, size=size)
    folder = capture.save()

    def refuse(self: Path, **_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CaptureError, match=r"images_2, which does not exist and cannot be made .*writable"):
        parse(folder, downscale_factor=2)
    assert {path.parent.name for path in parse(folder).image_filenames} == {"images"}
    said = " ".join(capsys.readouterr().out.split())
    assert ("used at full size" in said) == (size[0] > 1600)


def test_truncated_photo_is_named(tmp_path: Path) -> None:
    capture = Capture(tmp_path, count=2, size=(200, 150), suffix=".jpg")
    dataset = SurfaceSOSDataset(parse(capture.save()))
    path = tmp_path / "images" / "frame_001.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    assert dataset[0]["image"].shape == (150, 200, 3)
    with pytest.raises(ImageError, match=r"frame_001.jpg cannot be read"):
        dataset[1]


def test_downscale_of_valid_masks(tmp_path: Path) -> None:
    capture = Capture(tmp_path, count=3)
    capture.add_masks("mask_path", "masks")
    outputs = parse(capture.save(), downscale_factor=2)
    assert {path.parent.name for path in outputs.mask_filenames} == {"masks_2"}
    item = SurfaceSOSDataset(outputs)[0]
    assert item["mask"].shape == (12, 16, 1) and item["mask"].dtype == torch.bool


STORED = {3: lambda seen: seen[::-1, ::-1], 6: lambda seen: np.rot90(seen, 1), 5: lambda seen: seen.swapaxes(0, 1)}
"""By EXIF's table: what is stored of a picture that is seen upright."""


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("tag", STORED)
def test_photos_and_masks_are_turned_as_their_tags_say(tmp_path: Path, capsys, tag: int, factor: int) -> None:
    """Photos, masks of the object and of valid pixels, at full size and in smaller copies."""
    capture = Capture(tmp_path, count=2)
    exif = Image.Exif()
    exif[0x0112] = tag
    seen = {
        "file_path": np.kron(np.arange(72).reshape(6, 4, 3)[..., :], np.ones((4, 8, 1))).astype(np.uint8),
        "coarse_mask_path": np.kron([[0, 255], [0, 0]], np.ones((12, 16))).astype(np.uint8),
        "mask_path": np.kron([[255, 0], [255, 255]], np.ones((12, 16))).astype(np.uint8),
    }
    for frame in capture.frames:
        stem = Path(frame["file_path"]).stem
        for key, folder in (("file_path", "images"), ("coarse_mask_path", "coarse_masks"), ("mask_path", "masks")):
            frame[key] = f"{folder}/{stem}.png"
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.ascontiguousarray(STORED[tag](seen[key]))).save(tmp_path / frame[key], exif=exif)
    outputs = parse(capture.save(), downscale_factor=factor)
    item = SurfaceSOSDataset(outputs)[0]
    every = (slice(None, None, factor),) * 2
    np.testing.assert_allclose(item["image"].numpy() * 255, seen["file_path"][every], atol=1e-4)
    np.testing.assert_array_equal(item["coarse_mask"][..., 0].numpy() * 255, seen["coarse_mask_path"][every])
    np.testing.assert_array_equal(item["mask"][..., 0].numpy() * 255, seen["mask_path"][every])
    assert ("2 photos (frame_000.png, frame_001.png) are turned" in capsys.readouterr().out.replace("\n", " ")) == (
        tag == 3  # for the others the size tells
    )


@pytest.mark.parametrize("factor", [1, 2])
def test_photos_are_not_turned_where_the_cameras_are_for_stored_pixels(tmp_path: Path, capsys, factor: int) -> None:
    """As COLMAP and nerfstudio have them."""
    capture = Capture(tmp_path, count=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.kron(np.arange(72).reshape(6, 4, 3), np.ones((4, 8, 1))).astype(np.uint8)
    for frame in capture.frames:
        Image.fromarray(stored).save(tmp_path / frame["file_path"], exif=exif)
    image = SurfaceSOSDataset(parse(capture.save(), downscale_factor=factor))[0]["image"].numpy()
    np.testing.assert_allclose(image * 255, stored[::factor, ::factor], atol=1e-4)
    assert "2 photos (frame_000.png, frame_001.png) are not turned" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize("kind", ["RGB", "jpg", "alpha", "0 and 1"])
def test_valid_masks_of_every_kind(tmp_path: Path, kind: str) -> None:
    """nerfstudio itself reads one channel only, and takes JPEG's noise for valid."""
    capture = Capture(tmp_path, count=2)
    valid = np.zeros((24, 32), bool)
    valid[4:20, 8:24] = True  # blocks of JPEG's 8 pixels across, and halves of them down
    grey = Image.fromarray(valid.astype(np.uint8) * (1 if kind == "0 and 1" else 255))
    for frame in capture.frames:
        frame["mask_path"] = f"masks/{Path(frame['file_path']).stem}.{'jpg' if kind == 'jpg' else 'png'}"
        path = tmp_path / frame["mask_path"]
        path.parent.mkdir(exist_ok=True)
        if kind == "alpha":
            grey = Image.fromarray(np.dstack([np.full((24, 32, 3), 200, np.uint8), valid.astype(np.uint8) * 255]))
        (grey.convert("RGB") if kind == "RGB" else grey).save(path, **({"quality": 60} if kind == "jpg" else {}))
    dataset = SurfaceSOSDataset(parse(capture.save()))
    np.testing.assert_array_equal(dataset[0]["mask"][..., 0].numpy(), valid)
    cache = PixelCache.load(dataset)
    assert cache.valid is not None
    np.testing.assert_array_equal(cache.valid.numpy(), np.flatnonzero(np.concatenate([valid.ravel()] * 2)))


def test_camera_only_use_opens_no_image(tmp_path: Path) -> None:
    capture = Capture(tmp_path, count=4)
    folder = capture.save()
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    parser = SurfaceSOSDataParserConfig(data=folder).setup()
    parser.downscale_factor = 1  # what nerfstudio's data manager does for camera-path renders
    assert len(parser.get_dataparser_outputs("train").cameras) == 4


def test_input_checks_run_in_the_parser(tmp_path: Path, capsys) -> None:
    capture = Capture(tmp_path / "a", count=4)
    capture.frames[2]["transform_matrix"][0][0] = float("nan")
    with pytest.raises(CaptureError, match=r"images/frame_002.png: 'transform_matrix'\[0\]\[0\] is nan"):
        parse(capture.save())
    capture = Capture(tmp_path / "b", count=4)
    (tmp_path / "b" / "images" / "frame_001.png").write_bytes(b"no")
    with pytest.raises(CaptureError, match=r"frame_001.png cannot be read"):
        parse(capture.save())
    capture = Capture(tmp_path / "c", count=4)
    capture.meta["w"] = 64
    with pytest.raises(CaptureError, match="32 x 24 pixels, but the cameras"):
        parse(capture.save())
    capture = Capture(tmp_path / "d", count=4)
    capture.add_masks("coarse_mask_path", "coarse_masks")
    Image.new("L", (20, 20)).save(tmp_path / "d" / "coarse_masks" / "frame_000.png")
    with pytest.raises(CaptureError, match=r"frame_000.png is 20 x 20 pixels"):
        parse(capture.save())
    capture = Capture(tmp_path / "e", count=4)
    capture.add_masks("mask_path", "masks", [0, 1])
    with pytest.raises(CaptureError, match="mask_path is given for 2 of 4"):
        parse(capture.save())
    capture = Capture(tmp_path / "f", count=4)
    capture.meta["camera_model"] = "EQUIRECTANGULAR"
    with pytest.raises(CaptureError, match="EQUIRECTANGULAR"):
        parse(capture.save())
    with pytest.raises(CaptureError, match="does not exist"):
        parse(tmp_path / "nowhere")
    with pytest.raises(CaptureError, match="ns-process-data"):
        parse(tmp_path)


def test_object_mask_under_mask_path_is_warned_about(tmp_path: Path, capsys) -> None:
    capture = Capture(tmp_path, count=4)
    capture.add_masks("mask_path", "masks")
    for path in (tmp_path / "masks").iterdir():
        mask = np.zeros((24, 32), np.uint8)
        mask[6:18, 10:22] = 255
        Image.fromarray(mask).save(path)
    parse(capture.save())
    said = " ".join(capsys.readouterr().out.split())
    assert "Warning" in said and "coarse_mask_path" in said


def test_one_line_says_what_was_found(tmp_path: Path, capsys) -> None:
    capture = Capture(tmp_path)
    capture.add_masks("coarse_mask_path", "coarse_masks", [0, 1, 2])
    capture.add_masks("gt_mask_path", "gt_masks", [0, 1])
    parser = SurfaceSOSDataParserConfig(data=capture.save()).setup()
    parser.get_dataparser_outputs("train")
    parser.get_dataparser_outputs("val")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Capture")]
    assert len(lines) == 1
    for words in ("12 photos", "32 x 24", "coarse masks for 3", "truth for 2", "no sparse points"):
        assert words in lines[0]


def test_cameras_are_those_of_nerfstudio(tmp_path: Path) -> None:
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    capture = Capture(tmp_path)
    capture.meta |= {"k1": 0.1, "k2": -0.05, "p1": 0.01, "p2": -0.02}
    folder = capture.save()
    ours = parse(folder)
    theirs = NerfstudioDataParserConfig(data=folder, eval_mode="all").setup().get_dataparser_outputs("train")
    assert ours.image_filenames == theirs.image_filenames
    assert torch.equal(ours.cameras.camera_to_worlds, theirs.cameras.camera_to_worlds)
    assert torch.equal(ours.cameras.distortion_params, theirs.cameras.distortion_params)
    assert torch.equal(ours.dataparser_transform, theirs.dataparser_transform)
    assert ours.dataparser_scale == theirs.dataparser_scale


@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE"])
def test_views_project_onto_the_pixels_that_rays_start_from(tmp_path: Path, model: str) -> None:
    capture = Capture(tmp_path, count=5)
    capture.meta |= {"camera_model": model, "k1": 0.1, "k2": -0.05, "cx": 15.0, "cy": 12.7}
    capture.meta |= {"p1": 0.01, "p2": -0.02} if model == "OPENCV" else {}
    cameras = parse(capture.save()).cameras
    views: Views = views_from_cameras(cameras)
    assert views.fisheye.all() == (model == "OPENCV_FISHEYE")
    rows, columns = np.meshgrid([2, 11, 20], [3, 15, 28], indexing="ij")
    pixels = np.stack([rows.ravel(), columns.ravel()], axis=-1)
    for view in range(len(cameras)):
        rays = cameras.generate_rays(torch.full((len(pixels), 1), view), torch.from_numpy(pixels).float() + 0.5)
        points = (rays.origins + 1.7 * rays.directions).double().numpy()
        uv, depth = views.project(points)
        np.testing.assert_allclose(uv[view], pixels[:, ::-1] + 0.5, atol=2e-3)
        assert (depth[view] > 0).all()


def known_points() -> np.ndarray:
    """Points near the orbit's target, frame of transforms.json."""
    return np.random.default_rng(3).normal([0.5, -0.2, 0.0], 0.15, (40, 3))


def pixels_in_capture_frame(capture: Capture, index: int, points: np.ndarray) -> np.ndarray:
    """(P, 2) pinhole pixels of view ``index``, straight from the pose in transforms.json."""
    pose = np.array(capture.frames[index]["transform_matrix"])
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    return np.stack(
        [
            capture.meta["cx"] - capture.meta["fl_x"] * local[:, 0] / local[:, 2],
            capture.meta["cy"] + capture.meta["fl_y"] * local[:, 1] / local[:, 2],
        ],
        axis=-1,
    )


def load_points(outputs, views: Views, remark: str = "") -> SparsePoints | None:
    """The points in the world frame; there is to be a remark on each file that does not serve, and none else."""
    points, remarks = first_fitting_points(outputs.metadata["points_files"], views, outputs.metadata["file_paths"])
    assert [remark in words for words in remarks] == ([True] if remark else [])
    return points


def write_ply(path: Path, points: np.ndarray, kind: str = "float") -> None:
    lines = ["ply", "format ascii 1.0", f"element vertex {len(points)}"]
    lines += [f"property {kind} {axis}" for axis in "xyz"] + [f"property uint8 {c}" for c in ("red", "green", "blue")]
    lines += ["end_header"] + [f"{x:.7f} {y:.7f} {z:.7f} 10 20 30" for x, y, z in points]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("applied", [None, APPLIED])
@pytest.mark.parametrize("applied_scale", [None, 2.5])
def test_ply_points_land_where_the_capture_says(tmp_path: Path, applied, applied_scale) -> None:
    capture = Capture(tmp_path, count=6)
    write_ply(tmp_path / "sparse_pc.ply", known_points())
    capture.meta["ply_file_path"] = "sparse_pc.ply"
    if applied is not None:
        capture.meta["applied_transform"] = applied.tolist()
    if applied_scale is not None:
        capture.meta["applied_scale"] = applied_scale
    outputs = parse(capture.save(), scale_factor=0.7)
    views = views_from_cameras(outputs.cameras)
    points = load_points(outputs, views)
    uv, depth = views.project(points.xyz)
    for view in range(6):
        np.testing.assert_allclose(uv[view], pixels_in_capture_frame(capture, view, known_points()), atol=0.01)
    assert (depth > 0).all() and points.rgb[0].tolist() == [10, 20, 30]


def write_colmap(folder: Path, capture: Capture, to_colmap: np.ndarray, points: np.ndarray, seen: np.ndarray) -> None:
    """A COLMAP text model of the capture; ``to_colmap`` (3, 3) rotates the frame of transforms.json into COLMAP's."""
    from scipy.spatial.transform import Rotation

    folder.mkdir(parents=True)
    meta = capture.meta
    (folder / "cameras.txt").write_text(
        f"1 OPENCV {meta['w']} {meta['h']} {meta['fl_x']} {meta['fl_y']} {meta['cx']} {meta['cy']} 0 0 0 0\n"
    )
    tracks: list[list[str]] = [[] for _ in points]
    lines = []
    for index, frame in enumerate(capture.frames):
        pose = np.array(frame["transform_matrix"])
        rotation = (to_colmap @ pose[:3, :3] * [1, -1, -1]).T
        translation = -rotation @ to_colmap @ pose[:3, 3]
        x, y, z, w = Rotation.from_matrix(rotation).as_quat()
        lines.append(f"{index + 1} {w} {x} {y} {z} {' '.join(map(str, translation))} 1 {Path(frame['file_path']).name}")
        uv = pixels_in_capture_frame(capture, index, points)
        lines.append(" ".join(f"{uv[p, 0]} {uv[p, 1]} {p + 1}" for p in np.flatnonzero(seen[:, index])))
        for place, p in enumerate(np.flatnonzero(seen[:, index])):
            tracks[p] += [str(index + 1), str(place)]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    moved = points @ to_colmap.T
    (folder / "points3D.txt").write_text(
        "\n".join(
            f"{p + 1} {' '.join(map(str, moved[p]))} 10 20 30 0.5 {' '.join(tracks[p])}" for p in range(len(points))
        )
        + "\n"
    )


@pytest.mark.parametrize("written", [True, False])
def test_colmap_points_are_brought_into_the_world_frame(tmp_path: Path, written: bool) -> None:
    """With applied_transform in the file, and without any (a capture kept in COLMAP's own frame)."""
    capture = Capture(tmp_path, count=6)
    points = known_points()
    seen = np.random.default_rng(0).random((len(points), 6)) < 0.6
    seen[:, :2] = True
    to_colmap = APPLIED[:, :3].T if written else np.eye(3)
    write_colmap(tmp_path / "colmap" / "sparse" / "0", capture, to_colmap, points, seen)
    if written:
        capture.meta["applied_transform"] = APPLIED.tolist()
    capture.meta["train_filenames"] = [f"images/frame_{i:03d}.png" for i in (4, 0, 2)]
    outputs = parse(capture.save())
    views = views_from_cameras(outputs.cameras)
    found = load_points(outputs, views)
    candidates = pixels_in_capture_frame(capture, 0, points)
    order = [int(np.abs(candidates - uv).sum(axis=1).argmin()) for uv in views.project(found.xyz)[0][0]]
    assert sorted(order) == list(range(len(points)))
    for view, index in enumerate((0, 2, 4)):
        expected = pixels_in_capture_frame(capture, index, points[order])
        np.testing.assert_allclose(views.project(found.xyz)[0][view], expected, atol=0.01)
        np.testing.assert_array_equal(found.visibility[:, view], seen[order, index])


def test_unusable_points_are_left_out_with_a_word(tmp_path: Path, capsys) -> None:
    capture = Capture(tmp_path, count=6)
    capture.meta["ply_file_path"] = "sparse_pc.ply"
    assert parse(capture.save()).metadata["points_files"] == ()
    assert "going on without it" in " ".join(capsys.readouterr().out.split())
    for content in (known_points() + 500.0, None):
        if content is None:
            (tmp_path / "sparse_pc.ply").write_text("nonsense")
        else:
            write_ply(tmp_path / "sparse_pc.ply", content)
        outputs = parse(capture.save())
        assert load_points(outputs, views_from_cameras(outputs.cameras), "left out") is None


def test_metadata_is_small_and_picklable(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    write_ply(tmp_path / "sparse_pc.ply", known_points())
    capture.meta["ply_file_path"] = "sparse_pc.ply"
    metadata = parse(capture.save(), object_point=(0.5, -0.2, 0.0)).metadata
    assert len(pickle.dumps(metadata)) < 20_000
    assert pickle.loads(pickle.dumps(metadata))["points_files"][0].path.name == "sparse_pc.ply"


def test_object_hint_is_in_the_world_frame(tmp_path: Path) -> None:
    capture = Capture(tmp_path, count=6)
    outputs = parse(capture.save(), object_point=(0.5, -0.2, 0.0), object_radius=0.5)
    hint = outputs.metadata["object_hint"]
    uv, _ = views_from_cameras(outputs.cameras).project(np.array([hint.point]))
    np.testing.assert_allclose(uv[:, 0], np.broadcast_to([16.0, 12.0], (6, 2)), atol=1e-3)
    assert hint.radius == pytest.approx(0.5 * outputs.dataparser_scale)


@pytest.mark.parametrize(
    ("array", "mode"),
    [
        (np.array([[0, 128], [255, 255]], np.uint8), "L"),
        (np.array([[0, 1], [1, 1]], np.uint8), "L"),
        (np.array([[0, 32896], [65535, 65535]], np.uint16), "I;16"),
        (np.array([[0, 128], [255, 255]], np.uint8)[..., None].repeat(3, -1), "RGB"),
    ],
)
def test_masks_of_all_kinds_are_read(tmp_path: Path, array: np.ndarray, mode: str) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(array).save(path)
    with Image.open(path) as image:
        assert image.mode == mode
    middle = 1.0 if array.max() == 1 else 128 / 255
    np.testing.assert_allclose(read_mask(path), [[0, middle], [1, 1]], atol=1e-3)


def test_label_maps_and_cutouts_are_read(tmp_path: Path) -> None:
    labels = Image.fromarray(np.array([[0, 2], [2, 0]], np.uint8), mode="P")
    labels.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
    labels.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "labels.png"), [[0, 1], [1, 0]])
    cutout = np.full((2, 2, 4), 200, np.uint8)
    cutout[..., 3] = [[0, 255], [51, 0]]
    Image.fromarray(cutout).save(tmp_path / "cutout.png")
    np.testing.assert_allclose(read_mask(tmp_path / "cutout.png"), [[0, 1], [0.2, 0]], atol=1e-6)


def test_options_parse_on_the_command_line() -> None:
    config = tyro.cli(
        SurfaceSOSDataManagerConfig,
        args=[
            "--dataparser.coarse-masks",
            "my_masks",
            "--dataparser.eval-mode",
            "all",
            "--dataparser.object-point",
            "1",
            "2",
            "3",
            "--dataparser.object-radius",
            "0.5",
            "--dataparser.downscale-factor",
            "2",
            "--band-fraction",
            "0.25",
        ],
    )
    assert config.dataparser.coarse_masks == "my_masks" and config.dataparser.eval_mode == "all"
    assert config.dataparser.object_point == (1, 2, 3) and config.dataparser.object_radius == 0.5
    assert config.dataparser.downscale_factor == 2 and config.band_fraction == 0.25


def test_masks_that_are_not_asked_for_need_not_be_there(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    capture.add_masks("coarse_mask_path", "coarse_masks")
    capture.add_masks("", "other", [3], keyed=False)
    folder = capture.save()
    shutil.rmtree(tmp_path / "coarse_masks")
    assert parse(folder, coarse_masks="none").metadata["coarse_mask_filenames"] is None
    assert len([path for path in parse(folder, coarse_masks="other").metadata["coarse_mask_filenames"] if path]) == 1
    with pytest.raises(CaptureError, match=r"12 of 12 files \(coarse_mask_path\) do not exist"):
        parse(folder)


def test_a_mask_that_two_photos_name_is_refused(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    capture.add_masks("coarse_mask_path", "coarse_masks")
    capture.frames[4]["coarse_mask_path"] = "./coarse_masks/frame_003.png"
    with pytest.raises(CaptureError, match=r"frame_003.png .* are one file"):
        parse(capture.save())
