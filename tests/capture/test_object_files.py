"""Masks of several objects that do not fit the capture or each other: what is said about them, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.identity_files import identity_counts, resized_identities
from surface_sos_ns.capture.object_files import identities_of, largest_identity
from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig
from surface_sos_ns.utils.image_io import ImageError
from tests.helpers.capture_files import Capture
from tests.helpers.object_capture import (
    NAMES,
    add_identity_masks,
    add_masks_by_name,
    object_capture,
    save,
    true_identities,
)


def parse(capture: Capture, **options) -> tuple[str, ...]:
    outputs = SurfaceSOSDataParserConfig(data=capture.save(), **options).setup().get_dataparser_outputs("train")
    return outputs.metadata["object_names"]


def numbered(tmp_path: Path, names: tuple[str, ...] = NAMES) -> Capture:
    capture = object_capture(tmp_path)
    add_identity_masks(capture)
    if names:
        capture.meta["object_names"] = list(names)
    return capture


def change(capture: Capture, index: int, **pixels: int) -> None:
    """Write identities into single pixels of a coarse mask: `p0=7` into the first one."""
    values = true_identities(index)
    for place, identity in pixels.items():
        values.flat[int(place[1:])] = identity
    save(capture.folder / "coarse_masks" / f"{capture.stem(index)}.png", values)


def test_identities_without_a_name_are_listed_with_their_photos_and_pixels(tmp_path: Path) -> None:
    capture = numbered(tmp_path)
    change(capture, 1, p0=7)
    change(capture, 2, p0=7, p1=7, p5=9)
    with pytest.raises(CaptureError) as caught:
        parse(capture)
    assert "7 (2 photos, 3 pixels), 9 (1 photos, 1 pixels)" in str(caught.value)
    assert "1 to 3, the number of objects (cup, lemon, book)" in str(caught.value)


def test_an_object_in_one_photo_alone_is_named(tmp_path: Path) -> None:
    capture = numbered(tmp_path, (*NAMES, "pot", "vase"))
    change(capture, 4, p0=4)
    with pytest.raises(CaptureError, match=r"fewer than two photos .* of pot \(1 photos\), vase \(0 photos\)"):
        parse(capture)


def test_numbers_with_gaps_are_named(tmp_path: Path) -> None:
    capture = numbered(tmp_path, ())
    change(capture, 4, p0=6)
    with pytest.raises(CaptureError, match=r"up to 6, and none holds those of object_4 \(0 photos\), object_5"):
        parse(capture)


def test_numbers_of_single_photos_are_mentioned_and_may_be_a_detectors(tmp_path: Path, capsys) -> None:
    capture = numbered(tmp_path, ())
    change(capture, 4, p0=4)
    assert parse(capture) == ("object_1", "object_2", "object_3", "object_4")
    assert "few photos have a coarse mask of object_4 (1)" in " ".join(capsys.readouterr().out.split())


def test_names_and_folders_that_do_not_fit(tmp_path: Path) -> None:
    capture = object_capture(tmp_path)
    add_masks_by_name(capture)
    capture.meta["object_names"] = [*NAMES, "pot"]
    with pytest.raises(CaptureError, match=r"no photo has a coarse mask of pot\. Add masks"):
        parse(capture)
    capture.frames[0]["coarse_mask_path"] = {"cup": "coarse_masks/cup/frame_000.png", "pan": "coarse_masks/pan.png"}
    with pytest.raises(CaptureError, match=r"1 of 2 files \(coarse_mask_path\) do not exist .*coarse_masks/pan.png"):
        parse(capture)
    capture.frames[0]["coarse_mask_path"]["pan"] = "coarse_masks/lemon/frame_000.png"
    with pytest.raises(CaptureError, match=r"given for pan, which are none of the objects \(cup, lemon, book, pot\)"):
        parse(capture)
    capture.frames[0]["coarse_mask_path"]["cup"] = "coarse_masks/lemon/frame_000.png"
    with pytest.raises(CaptureError, match=r"are one file"):
        parse(capture)


def test_a_folder_that_cannot_be_a_name(tmp_path: Path) -> None:
    capture = object_capture(tmp_path)
    add_masks_by_name(capture)
    (tmp_path / "coarse_masks" / "cup").rename(tmp_path / "coarse_masks" / "my cup")
    with pytest.raises(CaptureError, match=r"coarse_masks names an object 'my cup'; expected letters"):
        parse(capture)


def test_folders_beside_masks_that_belong_to_the_photos_are_left_alone(tmp_path: Path, capsys) -> None:
    capture = object_capture(tmp_path)
    add_masks_by_name(capture)
    for index in range(capture.count):
        save(tmp_path / "coarse_masks" / f"{capture.stem(index)}.png", (true_identities(index) > 0) * np.uint8(255))
    assert parse(capture) == ()
    assert "32 files in" in " ".join(capsys.readouterr().out.split())


def test_more_than_thirty_two_objects(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "names", count=4)
    capture.meta["object_names"] = [f"thing_{number}" for number in range(33)]
    with pytest.raises(CaptureError, match=r"object_names\) names 33 objects; expected 1 to 32"):
        parse(capture)
    capture = Capture(tmp_path / "folders", count=4)
    for number in range(33):
        save(capture.folder / "coarse_masks" / f"thing_{number}" / "frame_000.png", np.zeros((24, 32), np.uint8))
    with pytest.raises(CaptureError, match=r"coarse_masks names 33 objects; expected 1 to 32"):
        parse(capture)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("cup", r"'object_names' is the text 'cup'; expected a list of names"),
        (["cup", "Cup"], r"names two objects 'cup'"),
        (["cup", "bg"], r"names an object 'bg'"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, names: object, words: str) -> None:
    capture = Capture(tmp_path, count=4)
    capture.meta["object_names"] = names
    with pytest.raises(CaptureError, match=words):
        parse(capture)


@pytest.mark.parametrize("value", [["a.png"], {"cup": 3}, 7, {"cup": ""}])
def test_a_mask_path_is_a_path_or_one_for_each_object(tmp_path: Path, value: object) -> None:
    capture = Capture(tmp_path, count=4)
    capture.frames[0]["coarse_mask_path"] = value
    with pytest.raises(CaptureError, match=r"'coarse_mask_path' is .*; expected the path of a file, or of a file for"):
        parse(capture)


def test_clean_plates_without_single_objects_are_a_known_key(tmp_path: Path, capsys) -> None:
    capture = Capture(tmp_path, count=4)
    capture.frames[0]["plates_without"] = {"cup": "plates/cup/frame_000.jpg"}
    parse(capture)
    assert "is not read" not in capsys.readouterr().out
    capture.frames[0]["plates_without"] = "plates/frame_000.jpg"
    with pytest.raises(CaptureError, match=r"'plates_without' is the text .*; expected the path of a file for each"):
        parse(capture)


def test_files_that_cannot_hold_identities_are_named(tmp_path: Path) -> None:
    capture = numbered(tmp_path)
    (tmp_path / "coarse_masks" / "frame_003.png").unlink()
    save(tmp_path / "coarse_masks" / "frame_003.jpg", true_identities(3))
    with pytest.raises(CaptureError, match=r"image of objects .*frame_003.jpg is JPEG \(L\); expected a PNG"):
        parse(capture)
    (tmp_path / "coarse_masks" / "frame_003.jpg").unlink()
    save(tmp_path / "coarse_masks" / "frame_003.png", true_identities(3)[:-1])
    with pytest.raises(CaptureError, match=r"image of objects .*frame_003.png is 32 x 23 pixels, its photo"):
        parse(capture)


@pytest.mark.parametrize("names", [NAMES, ()])
def test_a_plain_mask_among_identities_is_named(tmp_path: Path, names: tuple[str, ...]) -> None:
    capture = numbered(tmp_path, names)
    save(tmp_path / "coarse_masks" / "frame_003.png", (true_identities(3) > 0) * np.uint8(255))
    pixels = int((true_identities(3) > 0).sum())
    with pytest.raises(CaptureError, match=rf"identities that no object has: 255 \(1 photos, {pixels} pixels\)"):
        parse(capture)


def test_masks_of_a_wrong_size_by_name(tmp_path: Path) -> None:
    capture = object_capture(tmp_path)
    add_masks_by_name(capture)
    save(tmp_path / "coarse_masks" / "cup" / "frame_002.png", np.zeros((10, 32), np.uint8))
    with pytest.raises(CaptureError, match=r"coarse mask .*cup/frame_002.png is 32 x 10 pixels, its photo"):
        parse(capture)


def test_two_names_for_one_thing(tmp_path: Path) -> None:
    capture = object_capture(tmp_path)
    add_masks_by_name(capture)
    for index in range(capture.count):
        mask = true_identities(index) == 2
        mask[mask.any(axis=1).argmax()] = False  # a row less, of ten
        save(tmp_path / "coarse_masks" / "citrus" / f"{capture.stem(index)}.png", mask * np.uint8(255))
    with pytest.raises(CaptureError, match=r"masks of citrus and lemon are of one thing: .* \(IoU 0.90\)"):
        parse(capture)


def test_one_name_for_the_identities_of_several(tmp_path: Path) -> None:
    capture = numbered(tmp_path, ("cup",))
    with pytest.raises(CaptureError, match=r"names one object \(cup\) .* hold identities up to 3"):
        parse(capture)


def test_true_identities_of_other_objects_are_named(tmp_path: Path) -> None:
    capture = numbered(tmp_path)
    truth = true_identities(5)
    truth[0, 0] = 5
    save(tmp_path / "gt_objects" / "frame_005.png", truth)
    with pytest.raises(CaptureError, match=r"true identities in .*gt_objects .* hold 5 \(1 photos\); expected"):
        parse(capture)


def test_a_damaged_identity_image_is_named(tmp_path: Path) -> None:
    capture = numbered(tmp_path)
    path = tmp_path / "coarse_masks" / "frame_003.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises((CaptureError, ImageError), match=r"frame_003.png"):
        parse(capture)


# -------------------------------------------------------------------------------------------------------- the pieces


def test_which_files_hold_identities(tmp_path: Path) -> None:
    def file(name: str, values: list[int], mode: str = "L", **options) -> Path:
        image = Image.fromarray(np.resize(np.uint8(values), (8, 8))).convert(mode)
        image.save(tmp_path / name, **options)
        return tmp_path / name

    one, two = file("1.png", [0, 1]), file("2.png", [0, 2])
    assert largest_identity([one, two]) == 2
    assert largest_identity([one, one]) == largest_identity([two, two]) == largest_identity([]) == 0
    assert largest_identity([file("32.png", [0, 3, 32])]) == 32
    assert largest_identity([file("33.png", [0, 3, 33])]) == 0
    assert largest_identity([file("a.tif", [0, 3, 4])]) == largest_identity([file("a.bmp", [0, 3, 4])]) == 4
    assert largest_identity([file("a.jpg", [0, 3, 4]), file("b.png", [0, 3, 4], "RGB")]) == 0
    bright = file("4.png", [0, 255])
    assert largest_identity([bright, file("3.png", [0, 1, 3])]) == 0
    assert largest_identity([bright, tmp_path / "3.png", tmp_path / "32.png"]) == 32


def test_identities_are_counted(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.uint16([[0, 1, 1], [2, 1, 300]]))
    assert identity_counts(path, 32) is None
    assert identity_counts(path, 32, "objects") == {1: 3, 2: 1, 300: 1}


def test_identities_are_resized_by_the_nearest_pixel() -> None:
    values = np.uint8([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert resized_identities(values, 2, 1).tolist() == [[6, 8]]
    assert resized_identities(values, 8, 2).tolist() == np.repeat(values, 2, axis=1).tolist()
    assert resized_identities(values, 4, 2) is values
    assert resized_identities(values, 3, 2).tolist() == [[1, 3, 4], [5, 7, 8]]


def test_overlapping_masks() -> None:
    """By hand: the larger value, of equals the smaller object, and nobody where all are 0."""
    masks = {1: np.float32([[1, 1, 0.5, 0]]), 3: np.float32([[0, 1, 0.6, 0]]), 2: np.float32([[0.2, 0, 0, 0]])}
    mask, identities = identities_of(masks)
    assert identities.tolist() == [[1, 3, 3, 0]] and identities.dtype == np.uint8
    np.testing.assert_allclose(mask, [[1, 1, 0.6, 0]])
