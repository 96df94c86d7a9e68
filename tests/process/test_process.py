"""surface-sos process: poses against a scene whose cameras are known, what is refused, and the parts it is made of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from surface_sos_ns.capture.ply import read_ply_points
from surface_sos_ns.cli import main
from surface_sos_ns.process.error import ProcessError
from surface_sos_ns.process.folder import begin
from surface_sos_ns.process.lenses import group_by_camera
from surface_sos_ns.process.library_output import library_output_to
from surface_sos_ns.process.pairs import blocks, choose_matching, photo_pairs
from surface_sos_ns.process.photos import copy_upright, find_photos
from surface_sos_ns.process.video import count_frames, extract_frames
from surface_sos_ns.utils.files import PREFIX, SUFFIX
from surface_sos_ns.utils.locks import unlock_folder
from tests.helpers import textured_corner

VIEWS = 10
RNG = np.random.default_rng(0)


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 255, (height, width, 3), dtype=np.uint8))


def photo(path: Path, width: int = 64, height: int = 48, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(width, height).save(path, **options)
    return path


# --- the whole command ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos of the corner and one of something else, and the scene made of them."""
    folder = tmp_path_factory.mktemp("process")
    textured_corner.write_photos(folder / "photos", VIEWS)
    stranger = cv2.GaussianBlur(RNG.integers(0, 255, (300, 400, 3), dtype=np.uint8), (0, 0), 1.5)
    assert cv2.imwrite(str(folder / "photos" / "stranger.png"), stranger)
    assert main(["process", "--images", str(folder / "photos"), "--output", str(folder / "scene")]) == 0
    return folder


def aligned(scene: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rotations and centres of the found cameras, and the found points, in metres of the corner, and the true indices.

    The similarity between the frames is the least-squares one of the camera centres (Umeyama 1991).
    """
    content = json.loads((scene / "transforms.json").read_text())
    poses = {frame["file_path"]: np.array(frame["transform_matrix"]) for frame in content["frames"]}
    assert sorted(poses) == sorted(f"images/view_{index + 1}.png" for index in range(VIEWS))
    found = np.stack([poses[f"images/view_{index + 1}.png"] for index in range(VIEWS)])
    _, truth = textured_corner.cameras(VIEWS)
    here, there = found[:, :3, 3] - found[:, :3, 3].mean(axis=0), truth - truth.mean(axis=0)
    left, values, right = np.linalg.svd(there.T @ here)
    signs = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    turn = left @ np.diag(signs) @ right
    scale = (values * signs).sum() / (here**2).sum()
    points = read_ply_points(scene / "sparse_pc.ply").xyz
    points = scale * (points - found[:, :3, 3].mean(axis=0)) @ turn.T + truth.mean(axis=0)
    rotations = turn @ found[:, :3, :3] @ np.diag([1, -1, -1])  # OpenGL's axes to OpenCV's
    return rotations, scale * here @ turn.T + truth.mean(axis=0), points, found


@pytest.mark.seconds(8)
def test_poses_points_and_lens_are_the_true_ones(corner: Path) -> None:
    rotations, centres, points, _ = aligned(corner / "scene")
    true_rotations, true_centres = textured_corner.cameras(VIEWS)
    cosine = (np.einsum("nij,nij->n", rotations, true_rotations) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.5
    extent = np.linalg.norm(true_centres - true_centres.mean(axis=0), axis=1).max()
    assert np.linalg.norm(centres - true_centres, axis=1).max() < 0.01 * extent
    assert len(points) > 200
    assert np.median(np.abs(points).min(axis=1)) < 0.01  # metres from the nearest of the three sides
    content = json.loads((corner / "scene" / "transforms.json").read_text())
    assert content["fl_x"] == pytest.approx(textured_corner.FOCAL, rel=0.03)
    assert content["fl_y"] == pytest.approx(textured_corner.FOCAL, rel=0.03)
    assert (content["w"], content["h"], content["camera_model"]) == (400, 300, "OPENCV")


def test_the_scene_is_what_ns_process_data_writes(corner: Path) -> None:
    scene = corner / "scene"
    content = json.loads((scene / "transforms.json").read_text())
    assert {"k1", "k2", "p1", "p2", "cx", "cy", "applied_transform", "ply_file_path"} <= set(content)
    assert all("colmap_im_id" in frame for frame in content["frames"])
    assert not [path for path in scene.iterdir() if path.name.startswith(".")]  # nothing half-written is left
    # COLMAP's own frame, turned by applied_transform, is that of the poses and of the points.
    import pycolmap

    model = pycolmap.Reconstruction(str(scene / "colmap" / "sparse" / "0"))
    turn = np.array(content["applied_transform"])
    centres = {
        f"images/{one.name}": turn[:, :3] @ one.projection_center() + turn[:, 3] for one in model.images.values()
    }
    for frame in content["frames"]:
        np.testing.assert_allclose(np.array(frame["transform_matrix"])[:3, 3], centres[frame["file_path"]], atol=1e-9)
    points = np.array([turn[:, :3] @ point.xyz + turn[:, 3] for point in model.points3D.values()])
    written = read_ply_points(scene / "sparse_pc.ply").xyz
    assert len(written) == len(points)
    assert cKDTree(written).query(points)[0].max() < 1e-4 > cKDTree(points).query(written)[0].max()


def test_the_parser_takes_it_and_points_land_where_they_were_seen(corner: Path) -> None:
    """Pixels of the features themselves, from COLMAP's model, against points, poses and lens as training gets them."""
    import pycolmap

    from surface_sos_ns.plugin.cameras import views_from_cameras
    from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig

    outputs = SurfaceSOSDataParserConfig(data=corner / "scene").setup().get_dataparser_outputs("train")
    names = [path.name for path in outputs.image_filenames]
    views = views_from_cameras(outputs.cameras)
    points = outputs.metadata["points_files"][0].load(views, outputs.metadata["file_paths"])
    assert len(names) == VIEWS and points.visibility.any(axis=1).all()
    model = pycolmap.Reconstruction(str(corner / "scene" / "colmap" / "sparse" / "0"))
    row_of = {point_id: row for row, point_id in enumerate(sorted(model.points3D))}
    for image in model.images.values():
        seen = [(row_of[spot.point3D_id], spot.xy) for spot in image.points2D if spot.has_point3D()]
        rows, pixels = np.array([row for row, _ in seen]), np.array([xy for _, xy in seen])
        uv, _ = views.project_one(names.index(image.name), points.xyz[rows])
        assert len(rows) > 50 and points.visibility[rows, names.index(image.name)].all()
        distance = np.linalg.norm(uv - pixels, axis=1)
        assert np.median(distance) < 0.5 and np.nanmax(distance) < 6.0


def test_summary_names_what_was_left_out(corner: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from surface_sos_ns.process.run import _summary
    from surface_sos_ns.process.settings import ProcessSettings
    from surface_sos_ns.process.structure import Structure

    class Model:
        def compute_mean_reprojection_error(self) -> float:
            return 0.5

        def num_points3D(self) -> int:
            return 1234

    command = ProcessSettings(corner / "photos", corner / "scene")
    text = _summary(command, Structure(Model(), ["a.jpg"] * 9, ["stranger.jpg"]), [])
    assert text.startswith("9 of 10 photos have a pose; 1234 points, 0.50 pixels")
    assert "stranger.jpg" in text and "That is few" not in text
    assert "That is few" in _summary(command, Structure(Model(), ["a.jpg"] * 7, ["b", "c", "d"]), [])
    assert f"ns-train surface-sos --data {corner / 'scene'}" in text


def test_few_placed_photos_are_tried_again_with_more_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The larger result is taken; a failure counts as none; many placed photos are not tried again."""
    from surface_sos_ns.process import run, structure
    from surface_sos_ns.process.settings import ProcessSettings

    names = [photo(tmp_path / "scene" / "images" / f"{index}.png").name for index in range(10)]
    outcomes: dict[str, int | None] = {}
    compared: list[tuple[str, bool]] = []

    def mapped(database: Path, images: Path, names: list[str], *others: object) -> structure.Structure:
        count = outcomes[database.name]
        if count is None:
            raise ProcessError("No poses were found")
        return structure.Structure(None, names[:count], names[count:])

    monkeypatch.setattr(structure, "extract_features", lambda *arguments: 0)
    monkeypatch.setattr(structure, "copy_features", lambda *arguments: None)
    monkeypatch.setattr(structure, "match_pairs", lambda *given: compared.append((given[0].name, given[-1])))
    monkeypatch.setattr(structure, "map_photos", mapped)
    monkeypatch.setattr(run, "standing_share", lambda *arguments: 0.0)
    asked = ProcessSettings(tmp_path / "photos", tmp_path / "scene")
    for first, second, best in ((3, 6, 6), (6, 3, 6), (None, 4, 4), (5, None, 5), (8, 10, 8)):
        outcomes.update({"database.db": first, "guided.db": second})
        compared.clear()
        found, advice = run._find_structure(asked, names)
        assert len(found.placed) == best and not advice
        again = "trying again with more matches" in capfd.readouterr().out
        assert again == (first != 8)
        assert compared == [("database.db", False)] + [("guided.db", True)] * again
    outcomes.update({"database.db": None, "guided.db": None})
    with pytest.raises(ProcessError, match="No poses were found"):
        run._find_structure(asked, names)


def test_copied_features_have_no_matches(corner: Path, tmp_path: Path) -> None:
    import pycolmap

    from surface_sos_ns.process.structure import copy_features

    original = corner / "scene" / "colmap" / "database.db"
    copy_features(original, tmp_path / "guided.db")
    with pycolmap.Database.open(original) as one, pycolmap.Database.open(tmp_path / "guided.db") as other:
        assert other.num_keypoints() == one.num_keypoints() > 1000 and other.num_cameras() == one.num_cameras()
        assert one.num_matched_image_pairs() > 0 == other.num_matched_image_pairs()
        assert other.num_verified_image_pairs() == 0


@pytest.mark.seconds(4)
def test_an_interrupted_scene_is_gone_on_with(
    corner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Killed before the poses were written: copies, features and matches are not made again, the result is equal."""
    import pycolmap

    for name in ("photos", "scene"):
        shutil.copytree(corner / name, tmp_path / name)
    scene = tmp_path / "scene"
    settings = json.loads((scene / "colmap" / "settings.json").read_text())
    (scene / "colmap" / "settings.json").write_text(
        json.dumps(settings | {"images": str((tmp_path / "photos").resolve())})
    )
    shutil.rmtree(scene / "colmap" / "sparse")
    (scene / "transforms.json").unlink()
    with pycolmap.Database.open(scene / "colmap" / "database.db") as database:
        before = (database.num_keypoints(), database.num_matched_image_pairs())
    monkeypatch.setattr("surface_sos_ns.process.photos.copy_upright", None)  # calling it would fail
    command = ["process", "--images", str(tmp_path / "photos"), "--output", str(scene)]
    assert main(command) == 0
    assert "Going on with" in capfd.readouterr().err
    with pycolmap.Database.open(scene / "colmap" / "database.db") as database:
        assert (database.num_keypoints(), database.num_matched_image_pairs()) == before
    np.testing.assert_allclose(aligned(scene)[1], aligned(corner / "scene")[1], atol=0.01)
    assert main(command) == 1
    assert "has a scene already" in capfd.readouterr().err


@pytest.mark.seconds(2)
def test_photos_of_nothing_common_end_with_advice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for index in range(3):
        photo(tmp_path / "photos" / f"{index}.png", 160, 120)
    assert main(["process", "--images", str(tmp_path / "photos"), "--output", str(tmp_path / "scene")]) == 1
    said = capfd.readouterr().err
    assert "No poses were found for these 3 photos" in said and "overlap" in said
    assert "incremental_pipeline" not in said  # the library's words are in the log
    assert "incremental_pipeline" in (tmp_path / "scene" / "process.log").read_text()
    assert not (tmp_path / "scene" / "transforms.json").exists()


# --- what is refused -----------------------------------------------------------------------------------------------


def refusal(capfd: pytest.CaptureFixture[str], images: Path, output: Path, *options: str) -> str:
    """What is said, in one line, and that nothing was made."""
    there = output.exists()
    assert main(["process", "--images", str(images), "--output", str(output), *options]) == 1
    assert output.exists() == there
    said = capfd.readouterr().err
    assert "Traceback" not in said
    return said


def test_bad_input_is_refused_before_anything_is_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output, folder = tmp_path / "scene", tmp_path / "photos"
    assert "does not exist" in refusal(capfd, folder, output)
    folder.mkdir()
    assert "holds 0 photos" in refusal(capfd, folder, output)
    photo(folder / "1.jpg")
    assert "holds 1 photos" in refusal(capfd, folder, output)
    photo(folder / "2.jpg")
    photo(folder / "3.jpg")
    assert "within each other" in refusal(capfd, folder, folder / "scene")
    assert "--max-image-size is 5" in refusal(capfd, folder, output, "--max-image-size", "5")
    photo(folder / "2.png")
    said = refusal(capfd, folder, output)
    assert "2.jpg" in said and "2.png" in said and "Rename" in said
    (folder / "2.png").unlink()
    (folder / "IMG_7.HEIC").write_bytes(b"ftypheic")
    assert "IMG_7.HEIC" in (said := refusal(capfd, folder, output)) and "JPEG" in said
    photo(folder / "IMG_7.JPG")  # the phone saved both
    assert len(find_photos(folder).photos) == 4
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    assert "clip.mp4 cannot be read as a video" in refusal(capfd, tmp_path / "clip.mp4", output)


def test_half_a_photo_is_found_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for index in range(3):
        photo(tmp_path / "photos" / f"{index}.jpg", 300, 200)
    broken = tmp_path / "photos" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:9000])
    assert main(["process", "--images", str(tmp_path / "photos"), "--output", str(tmp_path / "scene")]) == 1
    assert f"{broken} cannot be read as an image" in capfd.readouterr().err
    assert not (tmp_path / "scene" / "images").exists()  # the next run starts with the photos again


def test_nothing_that_exists_is_lost(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "scene"
    output.mkdir()
    begin(output, {"a": 1}, overwrite=False)  # an empty folder may be filled
    begin(output, {"a": 1}, overwrite=False)  # and gone on with
    with pytest.raises(ProcessError, match="other photos or settings"):
        begin(output, {"a": 2}, overwrite=False)
    (output / "colmap/settings.json").write_text('{"a": 1')
    with pytest.raises(ProcessError, match=r"settings\.json cannot be read .*--overwrite"):
        begin(output, {"a": 1}, overwrite=False)
    (output / "colmap/settings.json").write_text('{"a": 1}')
    begin(output, {"a": 2}, overwrite=True)
    assert json.loads((tmp_path / "scene_old1/colmap/settings.json").read_text()) == {"a": 1}
    begin(output, {"a": 3}, overwrite=True)
    assert json.loads((tmp_path / "scene_old2/colmap/settings.json").read_text()) == {"a": 2}
    (output / "transforms.json").write_text("{}")
    with pytest.raises(ProcessError, match="has a scene already"):
        begin(output, {"a": 3}, overwrite=False)
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "letter.txt").write_text("dear")
    with pytest.raises(ProcessError, match="not empty"):
        begin(tmp_path / "holiday", {}, overwrite=False)


def test_a_scene_whose_maker_was_killed_at_its_very_beginning_can_be_made(tmp_path: Path) -> None:
    """Before its settings were written: an empty folder in it, or half of the file."""
    output = tmp_path / "scene"
    for content in (None, '{"a"'):
        (output / "colmap").mkdir(parents=True)
        if content is not None:
            (output / "colmap" / f"{PREFIX}0{SUFFIX}").write_text(content)
        begin(output, {"a": 1}, overwrite=False)
        unlock_folder(output)
        assert [path.name for path in (output / "colmap").iterdir()] == ["settings.json"]
        assert json.loads((output / "colmap" / "settings.json").read_text()) == {"a": 1}
        shutil.rmtree(output)


# --- photos --------------------------------------------------------------------------------------------------------


def test_names_and_order(tmp_path: Path) -> None:
    for name in ("IMG_10.jpg", "IMG_9.JPEG", "front view.v2.png", "._IMG_9.JPEG", "@eaDir/IMG_9.JPEG", "scan.tif"):
        photo(tmp_path / "photos" / name, format={"EG": "JPEG", "if": "TIFF"}.get(name[-2:]))
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    assert [one.name for one in find_photos(tmp_path / "photos").photos] == [
        "front_view_v2.png", "IMG_9.jpg", "IMG_10.jpg", "scan.png",
    ]  # fmt: skip
    photo(tmp_path / "photos" / "left" / "IMG_9.jpg")
    assert {one.name for one in find_photos(tmp_path / "photos").photos} >= {"IMG_9.jpg", "left_IMG_9.jpg"}


def test_names_in_the_scene_are_plain(tmp_path: Path) -> None:
    """What starts a comment or ends a name in COLMAP's lists, or is more than nerfstudio's reader of them takes."""
    folder = tmp_path / os.fsdecode(b"caf\xe9 photos")
    given = {
        "#1.jpg": "_1.jpg",
        "a b.jpg": "a_b_2.jpg",  # the next one can keep its name
        "a_b.jpg": "a_b.jpg",
        "caf\u00e9.jpg": "cafe_2.jpg",
        "cafe\u0301.JPG": "cafe.jpg",  # looks the same
        'say "x".png': "say__x_.png",
        "front.v2..jfif": "front_v2_.jpg",
        "new\nline.jpe": "new_line.jpg",
        "\u7167\u7247.jpg": "__.jpg",
        os.fsdecode(b"bytes \xe9.jpg"): "bytes__.jpg",
        f"{'x' * 200}.jpg": f"{'x' * 100}.jpg",
    }
    for name in given:
        photo(folder / name, format="PNG" if name.endswith("png") else "JPEG")
    found = find_photos(folder)
    assert {one.source.name: one.name for one in found.photos} == given
    (said,) = found.remarks
    assert "10 have other names in the scene" in said and "#1.jpg is _1.jpg" in said
    (tmp_path / "out").mkdir()
    copy_upright(found.photos, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(given.values())


def grey_photo(path: Path, bits: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = RNG.integers(0, 2**bits, (48, 64)).astype(np.uint8 if bits == 8 else np.uint16)
    Image.fromarray(values).save(path)
    return path


def test_what_is_no_photo_is_left_out_and_said(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    for number in (1, 2, 3):
        photo(folder / "images" / f"{number}.jpg")
        grey_photo(folder / "depth" / f"{number}.png", 16)
        grey_photo(folder / "confidence" / f"{number}.png", 8)
        photo(folder / "images" / f"{number}_mask.png")  # in colours, but its name is a photo's
    grey_photo(folder / "images" / "range 7.png", 16)  # as no photo is
    grey_photo(folder / "images" / "4.png", 8)  # a grey photo
    photo(folder / "images" / "unmasked.jpg")
    photo(folder / "images" / "IMG_0012.jpg")
    photo(folder / "images" / "IMG_E0012.jpg")
    photo(folder / "images" / "IMG_E0013.jpg")  # without an original
    for name in ("cameras/1.json", "clip.mov", "clip 2.mov", "images/IMG_0012.HEIC"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    for name in ("._1.jpg", ".DS_Store", "Thumbs.db", "@eaDir/1.jpg", "__MACOSX/1.jpg"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = find_photos(folder)
    assert {one.source.name for one in found.photos} == {
        "1.jpg", "2.jpg", "3.jpg", "4.png", "unmasked.jpg", "IMG_0012.jpg", "IMG_E0013.jpg",
    }  # fmt: skip
    (said,) = found.remarks
    assert said.startswith("Left out: 7 depth maps: confidence/1.png, confidence/2.png, confidence/3.png and 4 more; ")
    assert "3 masks: images/1_mask.png" in said and "1 edited copies: images/IMG_E0012.jpg" in said
    assert "4 files of other kinds (.mov 2, .json 1, .heic 1)" in said.replace(".heic 1, .json 1", ".json 1, .heic 1")
    assert "DS_Store" not in said and "Thumbs" not in said and "eaDir" not in said


def test_photos_of_sixteen_bits_are_photos_where_all_are(tmp_path: Path) -> None:
    paths = [grey_photo(tmp_path / "in" / f"{number}.png", 16) for number in (1, 2, 3)]
    found = find_photos(tmp_path / "in")
    assert len(found.photos) == 3 and not found.remarks
    (tmp_path / "out").mkdir()
    copy_upright(found.photos, tmp_path / "out")
    for path in paths:
        with Image.open(path) as before, Image.open(tmp_path / "out" / path.name) as after:
            expected = np.rint(np.array(before) / 257)
            np.testing.assert_array_equal(np.array(after), np.dstack([expected] * 3))


def test_photos_whose_names_are_of_masks(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        photo(tmp_path / f"mask_{number}.jpg")
    assert len(find_photos(tmp_path).photos) == 3
    for number in (4, 5, 6):
        photo(tmp_path / f"IMG_{number}.jpg")
    assert len(find_photos(tmp_path).photos) == 6  # of a carnival mask: in colours, and no photo is called as the rest


@pytest.mark.seconds(10)
def test_names_that_lists_take_for_something_else(tmp_path: Path) -> None:
    """A comment sign, a suffix that is not said to be a JPEG's; in a folder whose name is no UTF-8."""
    folder = tmp_path / os.fsdecode(b"caf\xe9 [b] 100%")
    names = ["#1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jfif", "6.jpg", "7.jpg"]
    for written, name in zip(textured_corner.write_photos(tmp_path / "drawn", len(names)), names, strict=True):
        (folder / "photos").mkdir(parents=True, exist_ok=True)
        with Image.open(tmp_path / "drawn" / written) as drawn:
            drawn.save(folder / "photos" / name, format="JPEG", quality=95)
    assert main(["process", "--images", str(folder / "photos"), "--output", str(folder / "scene")]) == 0
    frames = json.loads((folder / "scene" / "transforms.json").read_text())["frames"]
    assert len(frames) == 7 and all((folder / "scene" / frame["file_path"]).is_file() for frame in frames)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    """EXIF's eight orientations, from its table of where row 0 and column 0 of the file are seen."""
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:10, :20] = 255, 0, 0  # top left
    upright[:10, 40:] = 0, 255, 0  # top right
    upright[30:, :20] = 0, 0, 255  # bottom left
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright, 1), 7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x0110] = "a camera"
    for index in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "in" / f"{index}.jpg", exif=exif, quality=95)
    (tmp_path / "out").mkdir()
    copy_upright(find_photos(tmp_path / "in").photos, tmp_path / "out")
    with Image.open(tmp_path / "out" / "0.jpg") as copied:
        assert copied.getexif().get(0x0112, 1) == 1 and copied.getexif()[0x0110] == "a camera"
        # Colours next to an edge bleed in a JPEG.
        assert np.abs(np.array(copied).astype(int) - upright)[2:8, 2:17].max() < 25
        assert np.abs(np.array(copied).astype(int) - upright)[2:8, 43:58].max() < 25
        assert np.abs(np.array(copied).astype(int) - upright)[33:38, 2:17].max() < 25
    same = (tmp_path / "out" / "0.jpg").read_bytes() == (tmp_path / "in" / "0.jpg").read_bytes()
    assert same == (orientation == 1)


def test_photos_share_a_camera_where_their_files_say_so(tmp_path: Path) -> None:
    def taken(name: str, focal: float, width: int) -> Path:
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x920A] = focal
        return photo(tmp_path / name, width, exif=exif)

    wide = [taken("a.jpg", 4.2, 64), taken("b.jpg", 4.2, 64)]
    zoomed, turned = taken("c.jpg", 8.4, 64), taken("d.jpg", 4.2, 48)
    assert group_by_camera([*wide, zoomed, turned], "auto") == [wide, [zoomed], [turned]]
    assert group_by_camera([*wide, zoomed], "shared") == [[*wide, zoomed]]
    assert group_by_camera(wide, "per-image") == [[wide[0]], [wide[1]]]
    with pytest.raises(ProcessError, match="photos of one size"):
        group_by_camera([*wide, turned], "shared")


@pytest.mark.seconds(3)
def test_several_cameras_are_written_with_their_lenses(tmp_path: Path) -> None:
    import pycolmap

    from surface_sos_ns.process.scene import write_scene

    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 2, 1, 3, 20
    options.camera_model_id = pycolmap.CameraModelId.OPENCV_FISHEYE
    options.camera_params = [300.0, 310.0, 200.0, 150.0, 0.01, 0.02, 0.03, 0.04]
    model = pycolmap.synthesize_dataset(options)
    write_scene(tmp_path, model)
    content = json.loads((tmp_path / "transforms.json").read_text())
    assert content["camera_model"] == "OPENCV_FISHEYE" and len(content["frames"]) == 6
    assert all((frame["fl_x"], frame["k4"]) == (300.0, 0.04) for frame in content["frames"])


# --- video ---------------------------------------------------------------------------------------------------------

SHARP = [3, 8, 10, 17, 22]  # one in each five frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """A film of 25 frames, different all, five of which are sharp; and the frames that went in."""
    import av

    frames = []
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 120, "yuv420p", 8_000_000
        for index in range(25):
            picture = cv2.GaussianBlur(RNG.integers(0, 255, (120, 160, 3), dtype=np.uint8), (0, 0), 1.5)
            picture = np.clip(128 + 3.0 * (picture.astype(float) - 128), 0, 255).astype(np.uint8)
            picture[:, : 6 * (index + 1)] //= 2  # says which frame it is, blurred or not
            frames.append(picture if index in SHARP else cv2.GaussianBlur(picture, (0, 0), 2.5))
            for packet in stream.encode(av.VideoFrame.from_ndarray(frames[-1], format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path, frames


def test_the_sharpest_frame_of_each_stretch_is_taken(clip: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    path, frames = clip
    assert count_frames(path) == 25
    assert extract_frames(path, 5, tmp_path, 25) == 5
    names = [f"frame_{number:05d}.jpg" for number in range(1, 6)]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    taken = []
    for name in names:
        got = np.array(Image.open(tmp_path / name)).astype(float)
        taken.append(int(np.argmin([np.abs(got - frame).mean() for frame in frames])))
    assert taken == SHARP


def test_a_short_video_gives_all_its_frames(clip: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    assert extract_frames(clip[0], 120, tmp_path, 25) == 25


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg to write a video that was held upright")
def test_a_video_held_upright_is_upright(clip: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    quiet = ["ffmpeg", "-y", "-loglevel", "error"]
    turned, frames = tmp_path / "turned.mp4", tmp_path / "frames"
    subprocess.run([*quiet, "-i", clip[0], "-c", "copy", tmp_path / "plain.mp4"], check=True)
    plain = ["-i", tmp_path / "plain.mp4", "-c", "copy"]
    rotated = [*quiet, "-display_rotation", "90", *plain, turned]
    if subprocess.run(rotated, check=False, capture_output=True).returncode:  # before version 6
        subprocess.run([*quiet, *plain, "-metadata:s:v:0", "rotate=90", turned], check=True)
    subprocess.run([*quiet, "-i", turned, "-frames:v", "1", tmp_path / "first.png"], check=True)
    frames.mkdir()
    extract_frames(turned, 25, frames, 25)
    expected = np.array(Image.open(tmp_path / "first.png").convert("RGB")).astype(float)
    assert expected.shape == (160, 120, 3)
    got = np.array(Image.open(frames / "frame_00001.jpg")).astype(float)
    assert np.abs(got - expected).mean() < 10 < np.abs(got[::-1, ::-1] - expected).mean()


# --- pairs, chatter ------------------------------------------------------------------------------------------------


def test_pairs() -> None:
    assert photo_pairs(4, "exhaustive") == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    circle = photo_pairs(20, "circle")
    assert all((a, b) in circle for a, b in ((0, 6), (0, 19), (0, 14), (5, 19))) and len(circle) == 20 * 6
    assert not {(0, 7), (0, 13), (3, 16)} & set(circle)
    assert choose_matching(44, False, turns=True) == "circle" and choose_matching(12, False, turns=True) == "exhaustive"
    row = photo_pairs(121, "sequential")
    assert len(row) < 121 * 120 / 2 / 3 and row == sorted(set(row))
    assert {(40, b) for b in range(41, 51)} <= set(row)  # neighbours
    assert {(7, 23), (7, 39), (7, 71)} <= set(row)  # 16, 32, 64 apart
    assert (0, 120) in row  # a round trip closes
    assert (7, 19) not in row
    portions = blocks(row)
    assert sorted(pair for portion in portions for pair in portion) == row
    assert max(len({index for pair in portion for index in pair}) for portion in portions) <= 16
    assert choose_matching(200, in_a_row=False) == "exhaustive"
    assert choose_matching(201, in_a_row=False) == choose_matching(50, in_a_row=True) == "sequential"


def test_chatter_goes_to_the_file_and_comes_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    os.write(2, b"before ")
    with library_output_to(log):
        os.write(2, b"chatter")
    os.write(2, b"after")
    assert log.read_text() == "chatter"
    assert capfd.readouterr().err == "before after"
