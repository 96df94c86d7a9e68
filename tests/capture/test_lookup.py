"""Files that transforms.json spells in another way than the disk does, and files that are nobody's photos."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.lookup import (
    FileFinder,
    downscaled_copy,
    files_by_name,
    image_files,
    visible_files,
)
from surface_sos_ns.capture.names import match_files, match_problem
from tests.helpers.permissions import open_folder, ordinary_user

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
LATIN_1 = os.fsdecode(b"caf\xe9")


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


# What is there, what is written, and what is found; None where nothing is.
FINDS: dict[str, tuple[list[str], str, str | None]] = {
    "as written": (["images/1.jpg"], "images/1.jpg", "images/1.jpg"),
    "dots": (["images/1.jpg"], "./images/../images/1.jpg", "./images/../images/1.jpg"),
    "decomposed": ([f"images/{DECOMPOSED}.jpg"], f"images/{COMPOSED}.jpg", f"images/{DECOMPOSED}.jpg"),
    "composed": ([f"images/{COMPOSED}.jpg"], f"images/{DECOMPOSED}.jpg", f"images/{COMPOSED}.jpg"),
    "folder": ([f"{DECOMPOSED}/1.jpg"], f"{COMPOSED}/1.jpg", f"{DECOMPOSED}/1.jpg"),
    "both forms": ([f"{DECOMPOSED}.jpg", f"{COMPOSED}.jpg"], f"{COMPOSED}.jpg", f"{COMPOSED}.jpg"),
    "backslashes": (["images/left/1.jpg"], "images\\left\\1.jpg", "images/left/1.jpg"),
    "a name with a backslash": (["images\\1.jpg", "images/1.jpg"], "images\\1.jpg", "images\\1.jpg"),
    "backslashes, decomposed": ([f"images/{DECOMPOSED}.jpg"], f"images\\{COMPOSED}.jpg", f"images/{DECOMPOSED}.jpg"),
    "case": (["Images/IMG_1.JPG"], "images/img_1.jpg", "Images/IMG_1.JPG"),
    "exact case first": (["Images/1.JPG", "images/1.JPG"], "images/1.jpg", None),
    "case, in one of two folders": (["Images/2.jpg", "images/1.JPG"], "images/1.jpg", "images/1.JPG"),
    "case, two files": (["images/A.jpg", "images/a.JPG"], "images/a.jpg", None),
    "case and backslashes": (["Images/1.JPG"], "images\\1.jpg", "Images/1.JPG"),
    "a folder": (["images/1.jpg/x"], "images/1.jpg", None),
    "nothing": (["images/1.jpg"], "images/2.jpg", None),
    "no name": (["images/1.jpg"], "", None),
    "too long a name": (["images/1.jpg"], "images/" + 5000 * "1", None),
    "no name that a file can have": (["images/1.jpg"], "images/\0\ud800.jpg", None),
    "not UTF-8": ([f"images/{LATIN_1}.jpg"], f"images/{LATIN_1}.jpg", f"images/{LATIN_1}.jpg"),
    "not UTF-8, case": ([f"images/{LATIN_1}.JPG"], f"images/{LATIN_1}.jpg", f"images/{LATIN_1}.JPG"),
}


@pytest.mark.parametrize("case", FINDS)
def test_finds(case: str, tmp_path: Path) -> None:
    there, written, expected = FINDS[case]
    touch(tmp_path / "capture", *there)
    assert FileFinder(tmp_path / "capture").find(written) == expected


def test_paths_may_be_absolute_or_lead_out(tmp_path: Path) -> None:
    touch(tmp_path, f"photos/{DECOMPOSED}.jpg", "capture/transforms.json")
    finder = FileFinder(tmp_path / "capture")
    assert finder.find(f"../photos/{COMPOSED}.jpg") == f"../photos/{DECOMPOSED}.jpg"
    assert finder.find(f"{tmp_path}/photos/{COMPOSED}.jpg") == f"{tmp_path}/photos/{DECOMPOSED}.jpg"
    assert finder.remarks == []


def test_what_is_read_otherwise_is_said_once(tmp_path: Path) -> None:
    finder = FileFinder(touch(tmp_path, "images/1.jpg", "images/2.jpg"))
    assert finder.find_all(["images\\1.jpg", "images\\2.jpg"], "photos") == ["images/1.jpg", "images/2.jpg"]
    finder.find_all(["IMAGES\\1.JPG"], "photos")
    assert finder.remarks == [
        "3 paths in transforms.json have backslashes, as on Windows: images\\1.jpg is read as images/1.jpg.",
        "1 paths in transforms.json differ from the files' names in upper and lower case: IMAGES\\1.JPG is read as "
        "images/1.jpg.",
    ]


def test_missing_files_and_those_with_similar_names(tmp_path: Path) -> None:
    touch(tmp_path, "images/frame_00001.jpg", "images/._frame_00002.jpg", "images/x.jpg", f"other/{LATIN_1}.png")
    finder = FileFinder(tmp_path)
    with pytest.raises(CaptureError) as refused:
        finder.find_all(["images/frame_00002.jpg", "images/x.jpg", "images/frame_0003.jpg"], "photos (file_path)")
    assert str(refused.value).startswith(
        f"2 of 3 photos (file_path) do not exist in {tmp_path}: images/frame_00002.jpg, images/frame_0003.jpg. "
        "There is images/frame_00001.jpg. "
    )
    assert finder.similar("C:\\Users\\me\\frame_00001.jpg") == ["images/frame_00001.jpg"]
    with pytest.raises(CaptureError, match=r"There is other/caf\\udce9.png") as refused:
        finder.find_all(["nowhere/cafe.png"], "masks")
    str(refused.value).encode()  # can be printed


@pytest.mark.parametrize("second", ["images/A.JPG", "images/../images/a.jpg", "images\\a.jpg", "{folder}/images/a.jpg"])
def test_two_frames_cannot_have_one_photo(second: str, tmp_path: Path) -> None:
    finder = FileFinder(touch(tmp_path, "images/a.jpg", "images/b.jpg"))
    written = ["images/a.jpg", "images/b.jpg", second.format(folder=tmp_path)]
    assert len(finder.find_all(written, "masks")) == 3
    with pytest.raises(CaptureError, match=r"images/a.jpg and .* among the photos are one file"):
        finder.find_all(written, "photos", distinct=True)


def test_folders_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"images/{DECOMPOSED}{index}.jpg" for index in range(50)]
    finder = FileFinder(touch(tmp_path, *names))
    read: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: (read.append(str(folder)), listdir(folder))[1])
    assert finder.find_all([f"images/{COMPOSED}{index}.jpg" for index in range(50)], "photos") == names
    assert sorted(read) == [str(tmp_path), str(tmp_path / "images")]


def test_only_the_users_own_files_are_listed(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *("b/1.png", "2.JPG", "about.json", f"{LATIN_1}.png"),
        *("._2.JPG", ".DS_Store", "b/Thumbs.db", "@eaDir/2.JPG", "__MACOSX/b/1.png", ".part/3.png"),
    )
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    assert visible_files(tmp_path) == ["2.JPG", "about.json", "b/1.png", f"{LATIN_1}.png"]
    assert image_files(tmp_path) == ["2.JPG", "b/1.png", f"{LATIN_1}.png"]
    assert image_files(tmp_path / "nowhere") == image_files(tmp_path / "about.json") == []


def test_linked_folders_are_listed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.png", "masks/left/2.png")
    (tmp_path / "masks" / "right").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "masks" / "left" / "back").symlink_to(tmp_path / "masks")
    assert image_files(tmp_path / "masks") == ["left/2.png", "right/1.png"]


def test_folders_that_cannot_be_read_are_named() -> None:
    with open_folder() as folder:
        touch(folder, "masks/left/1.png", "masks/right/1.png")
        (folder / "masks" / "left").chmod(0)
        try:
            with ordinary_user(), pytest.raises(CaptureError, match="masks/left cannot be read"):
                image_files(folder / "masks")
        finally:
            (folder / "masks" / "left").chmod(0o700)


def test_files_of_a_folder(tmp_path: Path) -> None:
    photos = [f"images/{side}/1.jpg" for side in "abc"]
    folder = touch(tmp_path, "masks/a/1.png", "masks/._a/1.png", "masks/1.png", "hand/b.png") / "masks"
    given = [None, tmp_path / "hand" / "b.png", None]
    assert files_by_name(folder, photos, given) == [folder / "a/1.png", given[1], folder / "1.png"]
    with pytest.raises(CaptureError, match="masks/1.png has the name of 2 photos: images/b/1.jpg, images/c/1.jpg"):
        files_by_name(folder, photos)
    # What transforms.json gives to one photo is not found for another.
    assert files_by_name(folder, photos, [None, folder / "1.png", None]) == [folder / "a/1.png", folder / "1.png", None]
    assert files_by_name(tmp_path / "nowhere", photos) == [None] * 3
    with pytest.raises(CaptureError, match=r"No file in .*hand belongs to a photo: .* such as 1.png, found b.png"):
        files_by_name(tmp_path / "hand", photos)


def test_smaller_copies(tmp_path: Path) -> None:
    touch(tmp_path, "masks_4/left/1.png", "masks/right_4/1.png", "masks/left/1.png", "masks/right/1.png", "m_2/1.png")
    for name, factor, copy in (
        ("masks/left/1.png", 4, "masks_4/left/1.png"),
        ("masks/right/1.png", 4, "masks/right_4/1.png"),
        ("masks/left/1.png", 2, "masks/left/1.png"),
        ("m/1.png", 2, "m_2/1.png"),
    ):
        assert downscaled_copy(tmp_path / name, tmp_path, factor) == tmp_path / copy
        assert downscaled_copy(tmp_path / "m" / "1.png", tmp_path / "elsewhere", 2) == tmp_path / "m_2/1.png"


# -------------------------------------------------------------------------------------------------- accents, copies


@pytest.mark.parametrize("decomposed", ["photos", "masks"])
def test_decomposed_names(tmp_path: Path, decomposed: str) -> None:
    """Either is decomposed on the disk, as older Macs do, and composed in transforms.json."""
    forms = {"photos": "NFC", "masks": "NFC"} | {decomposed: "NFD"}
    photos = [f"images/caf\u00e9 {number}.jpg" for number in (1, 10, 18)]
    touch(tmp_path, *(unicodedata.normalize(forms["photos"], photo) for photo in photos))
    touch(tmp_path, *(unicodedata.normalize(forms["masks"], f"masks/{Path(photo).stem}.png") for photo in photos))
    found = FileFinder(tmp_path).find_all(photos, "photos")
    assert (found != photos) == (decomposed == "photos") and all((tmp_path / path).is_file() for path in found)
    masks = image_files(tmp_path / "masks")
    for paths in (photos, found):
        numbers = [masks[index].split()[1] for (index,) in match_files(paths, masks)]
        assert numbers == ["1.png", "10.png", "18.png"]


def test_one_mask_for_two_photos(tmp_path: Path) -> None:
    photos = [f"images/{clip}/00000{number}.jpg" for clip in ("clip_a", "clip_b") for number in range(3)]
    folder = touch(tmp_path, *(f"masks/00000{number}.png" for number in range(3))) / "masks"
    masks = image_files(folder)
    said = match_problem(match_files(photos, masks), photos, masks, folder)
    assert said is not None and said.startswith(
        f"{folder}/000000.png has the name of 2 photos: images/clip_a/000000.jpg, images/clip_b/000000.jpg."
    )
