"""Masks of several objects: read from folders in every coding, voted one by one, and written as identity images."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.cli import main
from surface_sos_ns.masks import object_votes
from surface_sos_ns.masks.contact_sheet import contact_sheet
from surface_sos_ns.masks.folder import Folder
from surface_sos_ns.masks.identity_images import merge_objects, sized_identities
from surface_sos_ns.masks.object_votes import in_order_of, masks_of_object, vote_objects, voted_identities
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos
from surface_sos_ns.masks.summary import agreement_lines
from surface_sos_ns.masks.write import truth_remark, write_masks
from surface_sos_ns.utils.encoding import identity_file
from surface_sos_ns.utils.identity_colours import identity_bytes
from tests.helpers.ball_views import iou
from tests.helpers.three_balls import cameras_around_balls, three_balls

NAMES = ("can", "cup", "lemon")


@pytest.fixture(scope="module")
def scene() -> tuple[Photos, list[np.ndarray]]:
    """Three balls in 12 photos, and their true identities."""
    views = cameras_around_balls(12)
    images, identities, _ = three_balls(views)
    files = [Path(f"/capture/images/{index:02}.jpg") for index in range(12)]
    return Photos(files, images, views, views.sizes()), identities


@pytest.fixture(autouse=True)
def coarse_hulls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_votes, "RESOLUTION", 64)  # enough for small photos


def found_from(identities: list[np.ndarray]) -> CoarseMasks:
    masks = [(one > 0).astype(np.float32) for one in identities]
    return CoarseMasks(masks, np.ones(len(masks)), (), identities, NAMES)


# ------------------------------------------------------------------------------------------------- identity images


def test_identity_images_are_palettes_of_the_fixed_colours(tmp_path: Path) -> None:
    identities = np.random.default_rng(0).integers(0, 33, (40, 50)).astype(np.uint8)
    for count in (32, 3, 2):
        shown = np.minimum(identities, count).astype(np.uint8)
        (tmp_path / "a.png").write_bytes(identity_file(shown, count))
        image = Image.open(tmp_path / "a.png")
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), shown)
        colours = np.vstack([[0, 0, 0], identity_bytes(count)])
        np.testing.assert_array_equal(np.array(image.convert("RGB")), colours[shown])


def test_identities_are_resized_by_shares_and_never_mixed() -> None:
    """Twice as large, a border between two objects runs where it ran, and no third identity comes up on it."""
    identities = np.zeros((20, 30), np.uint8)
    identities[4:16, 5:15], identities[4:16, 15:25] = 1, 3
    mask = (identities > 0).astype(np.float32)
    large = sized_identities(mask, identities, (60, 40))
    assert set(np.unique(large)) == {0, 1, 3}
    exact = identities.repeat(2, axis=0).repeat(2, axis=1)
    assert (large != exact).mean() < 0.02
    np.testing.assert_array_equal(sized_identities(mask, identities, (30, 20)), identities)
    faint = np.where(identities == 1, np.float32(0.4), mask)  # a mask under one half is no object
    assert set(np.unique(sized_identities(faint, identities, (30, 20)))) == {0, 3}


def test_where_masks_overlap_the_stronger_counts_and_of_equals_the_smaller_object() -> None:
    table, cup = np.zeros((10, 10), np.float32), np.zeros((20, 20), np.float32)
    table[2:] = 1
    cup[10:14, 4:10] = 1
    mask, identities = merge_objects([table, None, cup])
    assert mask is not None and identities is not None and identities.shape == (20, 20)
    assert (identities[10:14, 4:10] == 3).all() and identities[18, 0] == 1 and identities[0, 0] == 0
    assert merge_objects([None, None]) == (None, None)


# ---------------------------------------------------------------------------------------------------------- voting


@pytest.mark.seconds(7)
def test_every_object_is_voted_on_its_own(scene: tuple[Photos, list[np.ndarray]]) -> None:
    """Identities swapped in one photo, and an object missed in another: both are told, and the vote mends them."""
    photos, truth = scene
    given = [one.copy() for one in truth]
    given[4] = np.array([0, 2, 1, 3], np.uint8)[truth[4]]
    given[7][given[7] == 3] = 0
    voted = vote_objects(photos, found_from(given))
    assert voted.photos_showing() == [12, 12, 11]
    assert voted.disagreeing == [4] and voted.mean > 0.75
    lines = agreement_lines([str(path) for path in photos.files], found_from(given), voted)
    assert "mean over the objects" in lines[0] and "lemon 0." in lines[1] and "(11 photos)" in lines[1]
    mended = voted_identities(found_from(given), voted, *voted.projected(photos))
    for view in (4, 7):
        for identity in (1, 2, 3):
            assert iou(mended.identities[view] == identity, truth[view] == identity) > 0.6


def test_an_object_in_one_photo_is_an_error(scene: tuple[Photos, list[np.ndarray]]) -> None:
    photos, truth = scene
    given = [np.where(one == 3, 0, one).astype(np.uint8) if index else one for index, one in enumerate(truth)]
    with pytest.raises(MaskError, match=r"No two photos show lemon \(in 1\)"):
        vote_objects(photos, found_from(given))


def test_masks_of_one_of_several(scene: tuple[Photos, list[np.ndarray]]) -> None:
    _, truth = scene
    without = found_from(
        [np.where(one == 2, 0, one).astype(np.uint8) if index == 5 else one for index, one in enumerate(truth)]
    )
    masks = masks_of_object(without, 2)
    assert masks[5] is None
    np.testing.assert_array_equal(masks[4], truth[4] == 2)


def test_identities_keep_the_order_of_the_names_that_the_capture_has(scene: tuple[Photos, list[np.ndarray]]) -> None:
    found = found_from(scene[1])
    ordered = in_order_of(("lemon", "can", "cup"), found)
    assert tuple(ordered.names) == ("lemon", "can", "cup")
    for name in NAMES:
        before, after = NAMES.index(name) + 1, ordered.names.index(name) + 1
        np.testing.assert_array_equal(masks_of_object(found, before)[0], masks_of_object(ordered, after)[0])
    assert in_order_of(("lemon", "can", "pot"), found) is found and in_order_of((), found) is found


# ----------------------------------------------------------------------------------------------------------- sheet


def test_the_sheet_has_the_colours_of_the_identities(scene: tuple[Photos, list[np.ndarray]]) -> None:
    photos, truth = scene
    dark = dataclasses.replace(photos, images=[np.zeros_like(image) for image in photos.images])
    found = found_from(truth)
    sheet = contact_sheet(dark, found.masks, identities=found.identities, object_names=NAMES).astype(int)
    plain = contact_sheet(dark, found.masks)
    assert sheet.shape[0] > plain.shape[0] and sheet.shape[1] == plain.shape[1]
    for colour in identity_bytes(3).astype(int):
        on_photos = (np.abs(sheet[40:] - 0.35 * colour).max(axis=2) < 3).sum()
        assert on_photos > 200
        assert (np.abs(sheet[:40] - colour).max(axis=2) < 2).sum() > 60  # beside its name


# --------------------------------------------------------------------------------------------------------- folders


def read(source: Path, photos: Photos, **options) -> CoarseMasks:
    provider = Folder(source, **options)
    provider.check()
    return provider.masks(photos, lambda words: None)


def coloured(identities: np.ndarray) -> Image.Image:
    """Flat colours; by their numbers (65536 R + ...) in the order 3, 2, 1."""
    return Image.fromarray(np.array([[0, 0, 0], [250, 9, 9], [20, 200, 30], [9, 9, 220]], np.uint8)[identities])


def shuffled_palette(identities: np.ndarray, index: int) -> Image.Image:
    """The colours of `coloured` in a palette that each file orders in its own way, as programs do that save space."""
    order = np.random.default_rng(index).permutation(3) + 1
    colours = np.array([[0, 0, 0], [250, 9, 9], [20, 200, 30], [9, 9, 220]])
    place = np.zeros(4, np.uint8)
    place[order] = [1, 2, 3]
    image = Image.frombytes("P", identities.shape[::-1], place[identities].tobytes())
    image.putpalette([0, 0, 0, *colours[order].ravel().tolist()])
    return image


CODINGS = {
    "ids": (lambda ids, _: Image.fromarray(ids), (1, 2, 3)),
    "ids with gaps": (lambda ids, _: Image.fromarray(np.array([0, 40, 7, 200], np.uint8)[ids]), (2, 1, 3)),
    "16 bit": (lambda ids, _: Image.fromarray(np.array([0, 1000, 2001, 40000], np.uint16)[ids]), (1, 2, 3)),
    "palette": (lambda ids, _: Image.open(io.BytesIO(identity_file(ids, 3))), (1, 2, 3)),
    "colours": (lambda ids, _: coloured(ids), (3, 2, 1)),
    "palettes that differ": (shuffled_palette, (3, 2, 1)),
    "grey as colours": (lambda ids, _: Image.fromarray(ids * 50).convert("RGB"), (1, 2, 3)),
}
"""How identities are drawn, and which identities the objects 1, 2, 3 are to come back with."""


@pytest.mark.parametrize("coding", CODINGS)
def test_all_codings_of_several_objects_come_back(scene, tmp_path: Path, coding: str) -> None:
    photos, truth = scene
    draw, expected = CODINGS[coding]
    for index, (path, identities) in enumerate(zip(photos.files, truth, strict=True)):
        if index != 3:
            draw(identities, index).save(tmp_path / f"{path.stem}.png")
    found = read(tmp_path, photos, objects=0)
    assert found.names == ("object_1", "object_2", "object_3") and found.masks[3] is None
    table = np.array([0, *expected], np.uint8)
    for index, identities in enumerate(truth):
        if index != 3:
            np.testing.assert_array_equal(found.identities[index], table[identities])
            np.testing.assert_array_equal(found.masks[index], identities > 0)
    np.testing.assert_array_equal(found.confidence, [float(index != 3) for index in range(12)])
    named = read(tmp_path, photos, names=NAMES)
    assert named.names == NAMES and " is lemon (11 masks)" in named.remarks[-1]
    if coding == "colours":
        assert "#0909dc is can" in named.remarks[-1]


def test_numbers_that_differ_from_photo_to_photo_are_matched(scene, tmp_path: Path) -> None:
    photos, identities = scene
    generator = np.random.default_rng(3)
    for path, one in zip(photos.files, identities, strict=True):
        table = np.concatenate([[0], generator.permutation(3) + 1]).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{path.stem}.png"), table[one])
    found = Folder(tmp_path, objects=0).masks(photos, print)
    assert any("differently from photo to photo" in remark for remark in found.remarks)
    # Numbered by size, as the balls are.
    same = [np.array_equal(one, truth) for one, truth in zip(found.identities, identities, strict=True)]
    assert all(same) and tuple(found.names) == ("object_1", "object_2", "object_3")
    named = Folder(tmp_path, names=NAMES).masks(photos, print)
    assert tuple(named.names) == NAMES and named.identities[0] is not None
    with pytest.raises(MaskError, match="shows 3 objects .* has 4 names"):
        Folder(tmp_path, names=(*NAMES, "book")).masks(photos, print)


def test_a_folder_for_each_object(scene, tmp_path: Path) -> None:
    """Grey masks of any coding; the names are the folders', and choose among them."""
    photos, truth = scene
    for identity, name in enumerate(NAMES, start=1):
        (tmp_path / name).mkdir()
        for path, identities in zip(photos.files, truth, strict=True):
            if name != "cup" or path.stem != "05":
                mask = Image.fromarray(np.uint8(identities == identity) * (1 if name == "can" else 255))
                mask.save(tmp_path / name / f"mask_{path.stem}.png")
    found = read(tmp_path, photos, objects=3)
    assert found.names == ("can", "cup", "lemon")
    for index, identities in enumerate(truth):
        expected = np.where(identities == 2, 0, identities) if index == 5 else identities
        np.testing.assert_array_equal(found.identities[index], expected)
    assert any(line.startswith("cup: 11 of 12 photos have a mask") for line in found.remarks)
    some = read(tmp_path, photos, names=("lemon", "cup"))
    assert some.names == ("lemon", "cup")
    np.testing.assert_array_equal(some.identities[0] == 1, truth[0] == 3)
    with pytest.raises(MaskError, match="has no folder pot; its folders are can, cup, lemon"):
        read(tmp_path, photos, names=("lemon", "pot"))
    (tmp_path / "bg").mkdir()
    Image.fromarray(np.uint8(truth[0] == 1)).save(tmp_path / "bg" / "00.png")
    with pytest.raises(CaptureError, match="have a meaning of their own"):
        read(tmp_path, photos, objects=0)


def test_folders_with_the_names_of_the_photos_folders_are_no_objects(scene, tmp_path: Path) -> None:
    photos, truth = scene
    files = [Path(f"/capture/images/{('left', 'right')[index % 2]}/{index:02}.jpg") for index in range(12)]
    for path, identities in zip(files, truth, strict=True):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        Image.fromarray(identities).save(tmp_path / path.parent.name / f"{path.stem}.png")
    found = read(tmp_path, dataclasses.replace(photos, files=files), objects=0)
    assert found.names == ("object_1", "object_2", "object_3")
    np.testing.assert_array_equal(found.identities[5], truth[5])


def test_mistakes_in_a_folder_of_several_objects(scene, tmp_path: Path) -> None:
    photos, truth = scene

    def put(draw) -> Path:
        for path, identities in zip(photos.files, truth, strict=True):
            draw(identities).save(tmp_path / f"{path.stem}.png")
        return tmp_path

    with pytest.raises(MaskError, match="shows 1 only; --objects is for several"):
        read(put(lambda ids: Image.fromarray(np.minimum(ids, 1))), photos, objects=0)
    with pytest.raises(MaskError, match="shows no object"):
        read(put(lambda ids: Image.fromarray(ids * 0)), photos, objects=0)
    with pytest.raises(MaskError, match=r"shows 3 objects \(1, 2, 3\), and --names has 2 names"):
        read(put(Image.fromarray), photos, names=("a", "b"))
    with pytest.raises(MaskError, match="and --objects says 5"):
        read(tmp_path, photos, objects=5)
    blended = put(lambda ids: coloured(ids).resize((159, 119), Image.Resampling.BILINEAR))
    with pytest.raises(MaskError, match="by numbers or flat colours|without blended outlines"):
        read(blended, photos, objects=0)

    def dots(ids: np.ndarray) -> Image.Image:
        spoilt = ids.copy()
        spoilt[0, :5] = 9
        return Image.fromarray(spoilt)

    with pytest.raises(MaskError, match=r"25 pixels in fewer than 2 masks: 9 \(60 pixels\)"):
        read(put(dots), photos, objects=0)

    def many(ids: np.ndarray) -> Image.Image:
        return Image.fromarray((np.add.outer(np.arange(120) // 17, 7 * (np.arange(160) // 27))).astype(np.uint8))

    with pytest.raises(MaskError, match="shows 42 objects; expected 32 at most"):
        read(put(many), photos, objects=0)
    for options, words in (
        ({"objects": 2, "instance": (1,)}, "leave one out"),
        ({"names": ("a",)}, "are for several objects"),
        ({"names": ("a", "b"), "objects": 3}, "leave one of the two out"),
        ({"objects": 0, "invert": True}, "--invert is for masks of one object"),
    ):
        with pytest.raises(MaskError, match=words):
            read(tmp_path, photos, **options)
    with pytest.raises(CaptureError, match="two objects 'cup'"):
        read(tmp_path, photos, names=("cup", "Cup"))
    Image.fromarray(truth[0] * 50).save(tmp_path / "00.jpg")
    (tmp_path / "00.png").unlink()
    with pytest.raises(MaskError, match=r"00\.jpg shows no objects .* lossy compression"):
        read(tmp_path, photos, objects=0)


# --------------------------------------------------------------------------------------------------------- writing


def capture(folder: Path, photos: Photos) -> Path:
    """The capture of these photos, in files."""
    frames = []
    views = photos.views
    for index, image in enumerate(photos.images):
        path = folder / "images" / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1])
        pose = np.eye(4)
        pose[:3] = views.camera_to_world[index]
        frames.append({"file_path": f"images/{index:02}.png", "transform_matrix": pose.tolist()})
    lens = {"fl_x": views.fx[0], "fl_y": views.fy[0], "cx": views.cx[0], "cy": views.cy[0], "w": 160, "h": 120}
    source = folder / "transforms.json"
    source.write_text(json.dumps({"camera_model": "OPENCV", **lens, "frames": frames}, indent=1))
    return source


def test_names_go_into_the_json_file_and_go_with_their_masks(scene, tmp_path: Path) -> None:
    photos, truth = scene
    source = capture(tmp_path, photos)
    before = json.loads(source.read_text())
    paths = [frame["file_path"] for frame in before["frames"]]
    found = found_from(truth)
    masks = [None, *found.masks[1:]]
    identities = [None, *found.identities[1:]]
    write_masks(source, paths, masks, photos.sizes, {}, identities=identities, object_names=NAMES)
    after = json.loads(source.read_text())
    assert after["object_names"] == list(NAMES) and "coarse_mask_path" not in after["frames"][0]
    for frame, true in zip(after["frames"][1:], truth[1:], strict=True):
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / frame["coarse_mask_path"])), true)
    write_masks(source, paths, found.masks, photos.sizes, {}, overwrite=True)
    after = json.loads(source.read_text())
    assert "object_names" not in after
    for frame in after["frames"]:
        frame.pop("coarse_mask_path")
    assert after == before
    assert json.loads((tmp_path / "coarse_masks_old" / "transforms.json").read_text())["object_names"] == list(NAMES)


def test_truth_that_is_numbered_by_other_names_is_told(scene, tmp_path: Path) -> None:
    source = capture(tmp_path, scene[0])
    assert truth_remark(source, NAMES) is None  # no truth
    (tmp_path / "gt_objects").mkdir()
    assert "numbered in an unknown order" in truth_remark(source, NAMES)
    meta = json.loads(source.read_text())
    source.write_text(json.dumps({"object_names": ["pot", "cup"], **meta}))
    assert "numbered by pot, cup, and these masks by can, cup, lemon" in truth_remark(source, NAMES)
    assert truth_remark(source, ("pot", "cup")) is None and truth_remark(source, ()) is None


@pytest.mark.seconds(8)
def test_several_objects_from_the_command_line(scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, truth = scene
    (tmp_path / "scene").mkdir()
    (tmp_path / "theirs").mkdir()
    capture(tmp_path / "scene", photos)
    for index, identities in enumerate(truth):
        coloured(identities).save(tmp_path / "theirs" / f"{index:02}.png")
    command = ["masks", "--data", str(tmp_path / "scene"), "--method", "folder", "--source", str(tmp_path / "theirs")]
    assert main([*command, "--objects", "--names", "lemon", "cup", "can"]) == 0
    said = capsys.readouterr().out
    assert "#0909dc is lemon" in said and "Each object: lemon 0." in said
    meta = json.loads((tmp_path / "scene" / "transforms.json").read_text())
    assert meta["object_names"] == ["lemon", "cup", "can"]
    table = np.array([0, 3, 2, 1])
    for frame, true in zip(meta["frames"], truth, strict=True):
        written = np.array(Image.open(tmp_path / "scene" / frame["coarse_mask_path"]))
        np.testing.assert_array_equal(written, table[true])
    about = json.loads((tmp_path / "scene" / "coarse_masks" / "about.json").read_text())
    assert [(one["name"], one["identity"], one["photos"]) for one in about["objects"]] == [
        ("lemon", 1, 12),
        ("cup", 2, 12),
        ("can", 3, 12),
    ]
    assert set(about["views"][0]["objects"]) == {"lemon", "cup", "can"}
    # Voted, and by other names of the same objects: the order stays that of the capture.
    assert main([*command, "--objects", "3", "--names", "lemon", "cup", "can", "--vote", "--overwrite"]) == 0
    for frame, true in zip(meta["frames"], truth, strict=True):
        written = np.array(Image.open(tmp_path / "scene" / frame["coarse_mask_path"]))
        for identity in (1, 2, 3):
            assert iou(written == identity, table[true] == identity) > 0.55
    assert main([*command, "--objects", "1", "2"]) == 1
    assert "one number" in capsys.readouterr().err
    assert main([*command, "--objects", "--instance", "7", "--overwrite"]) == 1
