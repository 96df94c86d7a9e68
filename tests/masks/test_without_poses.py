"""`surface-sos masks --images`: photos without poses, from the command line to the files."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from surface_sos_ns.cli import main
from surface_sos_ns.masks import methods, plain_photos
from surface_sos_ns.masks.methods import METHODS, WITHOUT_POSES, Method
from surface_sos_ns.masks.plain_photos import find_photos, groups, mask_files
from surface_sos_ns.masks.provider import CoarseMasks, PlainMaskProvider, PlainPhotos
from surface_sos_ns.utils import files
from surface_sos_ns.utils.files import WriteError

BRIGHT = f"{shlex.quote(sys.executable)} -c 'import cv2, sys; image = cv2.imread(sys.argv[1], 0); \
cv2.imwrite(sys.argv[2], 255 * (image > 128).astype(\"uint8\"))' {{input}} {{output}}"
"""A program whose masks are what is bright."""


class BrightMasks(PlainMaskProvider):
    """What is bright, at half of the photo's size; nothing where nothing is."""

    name, labels = "bright", "none"
    seen: list[int] = []  # noqa: RUF012  # sizes of the groups

    def __init__(self, features: str = "") -> None:
        self.features = features

    def check(self) -> None:
        pass

    def plain_masks(self, photos: PlainPhotos, progress) -> CoarseMasks:
        self.seen.append(len(photos))
        masks = [(cv2.resize(image, None, fx=0.5, fy=0.5)[..., 0] > 128).astype(np.float32) for image in photos.images]
        return CoarseMasks([mask if mask.any() else None for mask in masks], np.ones(len(masks)))


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> type[BrightMasks]:
    """`--method selfment` makes these masks."""
    entry = Method("", "", ("features",))
    monkeypatch.setattr(Method, "load", lambda self: BrightMasks)
    monkeypatch.setattr(methods, "WITHOUT_POSES", dict.fromkeys(("auto", "selfment"), entry))
    BrightMasks.seen = []
    return BrightMasks


def photo(path: Path, width: int = 64, height: int = 48, value: int = 255) -> np.ndarray:
    """Writes a dark photo with a bright rectangle in it; returns what is bright."""
    image = np.full((height, width, 3), 20, np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return image[..., 0] > 128


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos of one stem, one of another size in a subfolder, and one in which nothing is bright."""
    folder = tmp_path / "photos"
    photo(folder / "a.png")
    photo(folder / "a.bmp")
    photo(folder / "more" / "c.png", 100, 200)
    photo(folder / "dark.png", value=30)
    (folder / "notes.txt").write_text("no photo")
    return folder


def run(images: Path, output: Path, *more: str) -> int:
    return main(["masks", "--images", str(images), "--output", str(output), *more])


def content(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --------------------------------------------------------------------------------------------------------- files


def test_every_photo_has_a_mask_of_its_name_and_size(
    bright: type, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "masks"
    assert run(photos, output, "--features", "descriptor") == 0
    said = capsys.readouterr().out
    assert "4 photos" in said and "Nothing was found in 1 photos, whose masks are black: dark.png" in said
    assert content(output) == [
        *("a.bmp.png", "a.png.png", "about.json", "contact_sheet.jpg", "dark.png", "more/c.png"),
    ]
    for name, expected in (
        ("a.png.png", photo(tmp_path / "x.png")),
        ("more/c.png", photo(tmp_path / "y.png", 100, 200)),
        ("dark.png", np.zeros((48, 64), bool)),
    ):
        mask = cv2.imread(str(output / name), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8 and mask.shape == expected.shape
        assert ((mask > 127) == expected).mean() > 0.98
    about = json.loads((output / "about.json").read_text())
    assert about["method"] == "bright" and about["options"] == {"features": "descriptor"}
    assert {line["mask"]: line["found"] for line in about["photos"]}["dark.png"] is False
    assert min(cv2.imread(str(output / "contact_sheet.jpg")).shape[:2]) > 150


def test_one_photo_is_enough(bright: type, photos: Path, tmp_path: Path) -> None:
    assert run(photos / "a.png", tmp_path / "out") == 0
    assert content(tmp_path / "out") == ["a.png", "about.json", "contact_sheet.jpg"]


def test_a_mask_stands_upright_as_its_photo(bright: type, tmp_path: Path) -> None:
    """The camera was held upright: the pixels are stored lying, with an EXIF tag that says so."""
    expected = photo(tmp_path / "upright.png", 60, 100)
    stored = np.rot90(cv2.imread(str(tmp_path / "upright.png")))  # counterclockwise
    exif = Image.Exif()
    exif[274] = 6  # shown turned clockwise
    (tmp_path / "photos").mkdir()
    Image.fromarray(stored).save(tmp_path / "photos" / "a.jpg", exif=exif)
    assert run(tmp_path / "photos", tmp_path / "out") == 0
    mask = cv2.imread(str(tmp_path / "out" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (100, 60) and ((mask > 127) == expected).mean() > 0.98


def test_many_photos_are_taken_in_groups(
    bright: type[BrightMasks], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_photos, "GROUP", 3)
    for index in range(7):
        photo(tmp_path / "photos" / f"{index}.png")
    assert run(tmp_path / "photos", tmp_path / "out") == 0
    assert BrightMasks.seen == [2, 3, 2]
    assert len(content(tmp_path / "out")) == 9


@pytest.mark.parametrize("count", [1, 64, 65, 200])
def test_groups_have_every_photo_once_and_nearly_equal_sizes(count: int) -> None:
    parts = groups(count)
    assert [index for part in parts for index in part] == list(range(count))
    assert max(map(len, parts)) <= 64 and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_photos_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "._2.png"):
        photo(tmp_path / name)
    assert [path.name for path in find_photos(tmp_path)] == ["2.png", "10.png"]
    assert mask_files(tmp_path, find_photos(tmp_path)) == ["2.png", "10.png"]


# ----------------------------------------------------------------------------------- nothing is lost or half done


def test_what_was_there_is_kept(bright: type, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    for number in range(3):
        photo(output / f"mine_{number}.png")
        assert run(photos, output) == 1
        assert "exists and is not empty" in capsys.readouterr().err
        assert run(photos, output, "--overwrite") == 0
    assert "mine_0.png" in content(tmp_path / "out_old")
    assert "mine_1.png" in content(tmp_path / "out_old_2")
    assert "mine_2.png" in content(tmp_path / "out_old_3")
    assert len(content(output)) == 6


@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_leaves_all_as_it_was(
    bright: type, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    output = tmp_path / "out"
    if existing:
        photo(output / "mine.png")
    before = content(tmp_path)
    written = []

    def full_disk(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 3:
            raise WriteError(f"{path} could not be written: no space.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr("surface_sos_ns.utils.image_io.write_bytes", full_disk)
    assert run(photos, output, "--overwrite") == 1
    assert content(tmp_path) == before
    assert not list(tmp_path.glob(f"{files.PREFIX}*"))


# ------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "Name a capture with --data, or photos without poses with --images"),
        (["--data", "x", "--images", "photos"], "--data and --images exclude each other"),
        (["--data", "x", "--output", "out"], "--output goes with --images"),
        (["--images", "photos"], "--images needs --output"),
        (["--images", "absent", "--output", "out"], "--images absent does not exist"),
        (["--images", "empty", "--output", "out"], "--images empty has no image file in it (.bmp"),
        (["--images", "photos", "--output", "photos"], "--output photos lies in --images photos"),
        (["--images", "photos", "--output", "photos/masks"], "--output photos/masks lies in --images photos"),
        (["--images", "photos", "--output", ".", "--overwrite"], "or the other way round"),
        (["--images", "photos", "--output", "photos/a.png/x"], "lies in --images"),
        (["--images", "photos", "--output", "file"], "--output file is a file"),
        (["--images", "photos", "--output", "out", "--method", "prior"], "--method prior needs the cameras' poses"),
        (["--images", "photos", "--output", "out", "--method", "click"], "without poses there are selfment"),
        (["--images", "photos", "--output", "out", "--vote"], "--vote needs poses"),
        (["--images", "photos", "--output", "out", "--object-point", "0", "0", "0"], "--object-point needs poses"),
        (["--images", "photos", "--output", "out", "--invert"], "--invert does not go with --images and --method auto"),
        (["--images", "damaged", "--output", "out", "--features", "descriptor"], "bad.png cannot be read"),
        (["--images", "photos", "--output", "out", "--features-onnx", "no.onnx"], "no.onnx is not there"),
    ],
)
def test_mistakes_are_told_before_any_work(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    photo(tmp_path / "damaged" / "good.png")
    (tmp_path / "damaged" / "bad.png").write_bytes((tmp_path / "damaged" / "good.png").read_bytes()[:60])
    before = sorted(tmp_path.rglob("*"))
    assert main(["masks", *options]) == 1
    assert words in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


# ------------------------------------------------------------------------------------------------------- methods


@pytest.mark.parametrize("name", WITHOUT_POSES)
def test_methods_without_poses_have_the_options_of_their_constructors(name: str) -> None:
    import inspect

    provider = WITHOUT_POSES[name].load()
    assert issubclass(provider, PlainMaskProvider) and provider.labels
    assert set(WITHOUT_POSES[name].options) <= set(inspect.signature(provider).parameters)
    assert set(WITHOUT_POSES[name].options) <= set(METHODS[name].options)


@pytest.mark.seconds(3)
def test_a_program_makes_masks_without_poses(photos: Path, tmp_path: Path) -> None:
    assert run(photos, tmp_path / "out", "--method", "rembg", "--program", BRIGHT) == 0
    mask = cv2.imread(str(tmp_path / "out" / "more" / "c.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask > 128, photo(tmp_path / "y.png", 100, 200))
