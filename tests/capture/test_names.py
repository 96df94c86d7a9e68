"""File names: which mask, plate or COLMAP image is which photo's, whatever folders and systems they come from."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surface_sos_ns.capture.names import (
    distinct_stems,
    find_photos,
    hidden,
    is_image,
    listed,
    mask_names,
    match_files,
    match_problem,
    match_references,
    natural_order,
    photo_paths,
)

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"  # é as one character, and as e with an accent
LATIN_1 = "caf\udce9"  # the byte E9, as Python has names that are not UTF-8


def test_the_two_forms_are_not_equal() -> None:
    assert unicodedata.normalize("NFD", COMPOSED) == DECOMPOSED != COMPOSED


# Photos, files, and of each photo its file.
FILES: dict[str, tuple[list[str], list[str], list[str | None]]] = {
    "stems": (["images/1.jpg", "images/2.jpg"], ["2.png", "1.png"], ["1.png", "2.png"]),
    "other suffixes": (["images/1.jpg"], ["1.JPG"], ["1.JPG"]),
    "suffix and one more": (["images/1.jpg"], ["1.jpg.png"], ["1.jpg.png"]),
    "suffix of an earlier format": (["images/1.png"], ["1.jpg.png"], ["1.jpg.png"]),
    "no mask": (["images/1.jpg", "images/2.jpg"], ["1.png"], ["1.png", None]),
    "no photo": (["images/1.jpg"], ["1.png", "3.png"], ["1.png"]),
    "nothing": (["images/1.jpg"], ["3.png"], [None]),
    "no files": (["images/1.jpg"], [], [None]),
    "folder before flat": (["images/left/1.jpg", "images/2.jpg"], ["1.png", "left/1.png"], ["left/1.png", None]),
    "flat where it is clear": (["images/left/1.jpg", "images/right/2.jpg"], ["1.png", "2.png"], ["1.png", "2.png"]),
    "whole path": (["images/left/1.jpg"], ["images/left/1.png", "left/1.png"], ["images/left/1.png"]),
    "whole path first": (["images/1.jpg", "1.jpg"], ["1.png", "images/1.png"], ["images/1.png", "1.png"]),
    "same names in two folders": (
        ["images/left/1.jpg", "images/right/1.jpg"],
        ["right/1.png", "left/1.png"],
        ["left/1.png", "right/1.png"],
    ),
    "one clip flat, one in its folder": (["a/1.jpg", "b/1.jpg"], ["1.png", "b/1.png"], ["1.png", "b/1.png"]),
    "photos in a folder and below it": (["images/1.jpg", "images/left/1.jpg"], ["1.png"], ["1.png", None]),
    "other folders": (["images/left/1.jpg"], ["right/1.png"], [None]),
    "deeper folders": (["images/1.jpg"], ["overlays/1.png"], [None]),
    "equal stems": (["images/a.jpg", "images/a.png"], ["a.png.png", "a.jpg.png"], ["a.jpg.png", "a.png.png"]),
    "equal stems, one mask": (["images/a.jpg", "images/a.png"], ["a.jpg.png"], ["a.jpg.png", None]),
    "equal stems, same suffixes": (["a.jpg", "a.png"], ["a.png", "a.jpg"], ["a.jpg", "a.png"]),
    "belongs to the JPEG": (["IMG_1.jpg", "IMG_1.png"], ["IMG_1.jpg.png", "IMG_1.png"], ["IMG_1.jpg.png", "IMG_1.png"]),
    "dots in names": (["images/a.b.jpg", "images/a.c.jpg"], ["a.c.png", "a.b.png"], ["a.b.png", "a.c.png"]),
    "no suffix": (["images/scan.0001", "images/scan.0002"], ["scan.0002.png"], [None, "scan.0002.png"]),
    "composed and decomposed": ([f"images/{COMPOSED}.jpg"], [f"{DECOMPOSED}.png"], [f"{DECOMPOSED}.png"]),
    "the other way round": ([f"images/{DECOMPOSED}.jpg"], [f"{COMPOSED}.png"], [f"{COMPOSED}.png"]),
    "in folders": ([f"{COMPOSED}/1.jpg", "b/1.jpg"], [f"{DECOMPOSED}/1.png"], [f"{DECOMPOSED}/1.png", None]),
    "both forms": (
        [f"{COMPOSED}.jpg", f"{DECOMPOSED}.jpg"],
        [f"{DECOMPOSED}.png", f"{COMPOSED}.png"],
        [f"{COMPOSED}.png", f"{DECOMPOSED}.png"],
    ),
    "Windows": (["images\\left\\1.jpg", "images\\right\\1.jpg"], ["right/1.png"], [None, "right/1.png"]),
    "upper case": (["images/IMG_1.JPG"], ["img_1.png"], ["img_1.png"]),
    "exact case first": (["IMG_1.jpg"], ["img_1.png", "IMG_1.png"], ["IMG_1.png"]),
    "two cases": (["IMG_1.jpg", "img_1.jpg"], ["img_1.png", "IMG_1.png"], ["IMG_1.png", "img_1.png"]),
    "absolute photos": (["/x/images/l/1.jpg", "/x/images/r/1.jpg"], ["r/1.png", "l/1.png"], ["l/1.png", "r/1.png"]),
    "dots in paths": (["./images/1.jpg", "images//x/../2.jpg"], ["1.png", "2.png"], ["1.png", "2.png"]),
    "not UTF-8": ([f"images/{LATIN_1}.jpg"], [f"{LATIN_1}.png"], [f"{LATIN_1}.png"]),
}


@pytest.mark.parametrize("case", FILES)
def test_files_of_photos(case: str) -> None:
    photos, files, expected = FILES[case]
    found = match_files(photos, files)
    assert [[files[index] for index in indices] for indices in found] == [[] if e is None else [e] for e in expected]
    assert match_problem(found, photos, files, "coarse_masks") is None


# Photos, files, and what is said of them.
CLASHES: dict[str, tuple[list[str], list[str], str]] = {
    "one mask, two clips": (
        ["images/a/1.jpg", "images/b/1.jpg"],
        ["1.png"],
        "coarse_masks/1.png has the name of 2 photos: images/a/1.jpg, images/b/1.jpg. Put the files into folders",
    ),
    "one mask, two formats": (["a.jpg", "a.png"], ["a.png"], "coarse_masks/a.png has the name of 2 photos"),
    "two masks": (
        ["images/1.tif"],
        ["1.jpg", "1.png"],
        "1 photos have more than one file in coarse_masks: images/1.tif has 1.jpg, 1.png. Leave one of each.",
    ),
    "two masks, one with the photo's suffix": (["images/1.jpg"], ["1.jpg", "1.png"], "1.jpg has 1.jpg, 1.png"),
    "two cases": (["IMG_1.jpg"], ["img_1.png", "Img_1.png"], "IMG_1.jpg has img_1.png, Img_1.png"),
    "two photos, another case": (["IMG_1.jpg", "img_1.jpg"], ["Img_1.png"], "Img_1.png has the name of 2 photos"),
    "not UTF-8": ([f"a/{LATIN_1}.jpg", f"b/{LATIN_1}.jpg"], [f"{LATIN_1}.png"], "coarse_masks/caf\\udce9.png has the"),
}  # fmt: skip


@pytest.mark.parametrize("case", CLASHES)
def test_files_that_could_be_several_photos(case: str) -> None:
    photos, files, expected = CLASHES[case]
    said = match_problem(match_files(photos, files), photos, files, "coarse_masks")
    assert said is not None and expected in said
    said.encode()  # can be printed


def test_files_in_folders_that_the_photos_do_not_have() -> None:
    photos = ["images/left/1.jpg", "images/right/1.jpg"]
    assert match_files(photos, ["out/right/1.png", "out/left/1.png"], anywhere=True) == [[1], [0]]
    assert match_files(["images/1.jpg"], ["dog/1.png", "cat/1.png"], anywhere=True) == [[0, 1]]
    assert match_files(["images/1.jpg"], ["dog/1.png", "1.png"], anywhere=True) == [[1]]
    # Of left/1 and right/1 only right has a mask; that it lies in another folder does not make it left's.
    assert match_files(photos, ["out/right/1.png"], anywhere=True) == [[], [0]]


# Photos, names in COLMAP, and of each photo its name; None where nothing fits.
REFERENCES: dict[str, tuple[list[str], list[str], list[list[str]]]] = {
    "subfolders": (["images/a/0.jpg", "images/b/0.jpg"], ["b/0.jpg", "a/0.jpg"], [["a/0.jpg"], ["b/0.jpg"]]),
    "more than photos": (["images/a/0.jpg"], ["a/0.jpg", "a/1.jpg", "b/0.jpg"], [["a/0.jpg"]]),
    "fewer": (["images/a/0.jpg", "images/b/0.jpg"], ["a/0.jpg"], [["a/0.jpg"], []]),
    "longer paths": (["images/0.jpg", "images/1.jpg"], ["rig/1.jpg", "rig/0.jpg"], [["rig/0.jpg"], ["rig/1.jpg"]]),
    "only the suffix differs": (["a.png"], ["a.jpg", "a.png"], [["a.png"]]),
    "another format": (["images/a.png"], ["a.jpg"], [["a.jpg"]]),
    "no suffix is added": (["images/a.jpg"], ["a.jpg.png"], [[]]),
    "one name, two photos": (["images/a/0.jpg", "images/b/0.jpg"], ["0.jpg"], [["0.jpg"], ["0.jpg"]]),
    "one photo, two cases": (["images/img.jpg"], ["Img.jpg", "IMG.jpg"], [["Img.jpg", "IMG.jpg"]]),
    "another folder's": (["images/a/0.jpg", "images/a/1.jpg"], ["b/0.jpg", "a/1.jpg"], [[], ["a/1.jpg"]]),
    "in neither folder": (["images/0.jpg"], ["a/0.jpg", "b/0.jpg"], [[]]),
    "Windows": (["images/a/0.jpg", "images/b/0.jpg"], ["b\\0.jpg", "a\\0.jpg"], [["a\\0.jpg"], ["b\\0.jpg"]]),
}


@pytest.mark.parametrize("case", REFERENCES)
def test_names_that_another_program_has(case: str) -> None:
    photos, names, expected = REFERENCES[case]
    assert [[names[index] for index in indices] for indices in match_references(photos, names)] == expected


PHOTOS = ["images/left/0001.jpg", "images/right/0001.jpg", "images/a.jpg", "images/a.png", f"images/{DECOMPOSED}.jpg"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("images/left/0001.jpg", [0]),
        ("./images/left/0001.jpg", [0]),
        ("images\\left\\0001.jpg", [0]),
        ("left/0001.jpg", [0]),
        ("left/0001", [0]),
        ("LEFT/0001", [0]),
        ("ft/0001.jpg", []),
        ("0001.jpg", [0, 1]),
        ("0001", [0, 1]),
        ("a.png", [3]),
        ("a", [2, 3]),
        ("a.webp", []),
        (COMPOSED, [4]),
        ("left", []),
        ("", []),
        ("/", []),
    ],
)
def test_photos_that_a_name_means(name: str, expected: list[int]) -> None:
    assert find_photos([name], PHOTOS) == [expected]
    assert find_photos(["a.jpg", name], PHOTOS) == [[2], expected]


def test_a_whole_path_is_no_end_of_another() -> None:
    photos = ["x/1.jpg", "1.jpg", "y/x/1.jpg"]
    assert find_photos(["1.jpg", "x/1.jpg", "./y//x/1.jpg", "x/1"], photos) == [[1], [0], [2], [0]]
    for folder, above in (("/scene", "/scene/"), ("/scene", "../scene/"), ("/a/scene", "../scene/")):
        absolute = [above + photo for photo in photos]
        assert find_photos([*absolute, "1.jpg"], photos, folder) == [[0], [1], [2], [1]]
        assert find_photos(photos, absolute, folder) == [[0], [1], [2]]


# ------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    ("photos", "names"),
    [
        (["images/1.jpg", "./images/2.JPG"], ["1.png", "2.png"]),
        (["images/left/1.jpg", "images/right/1.jpg"], ["left/1.png", "right/1.png"]),
        (["left/1.jpg", "right/1.jpg"], ["left/1.png", "right/1.png"]),
        (["1.jpg", "2.jpg"], ["1.png", "2.png"]),
        (["images/a.jpg", "images/a.png", "images/b.c.jpg"], ["a.jpg.png", "a.png.png", "b.c.png"]),
        (["a.jpg", "a.png", "a.jpg.jpg"], ["a.jpg.png", "a.png.png", "a.jpg.jpg.png"]),
        (["A.jpg", "a.png"], ["A.jpg.png", "a.png.png"]),
        (["/far/away/x/1.jpg", "/far/away/y/1.jpg"], ["x/1.png", "y/1.png"]),
        (["../photos/1.jpg", "../photos/2.jpg"], ["1.png", "2.png"]),
        (["images\\left\\1.jpg", "images\\right\\1.jpg"], ["left/1.png", "right/1.png"]),
        (["images/1.jpg", "images/images/1.jpg"], ["images/1.png", "images/images/1.png"]),
        ([], []),
    ],
)
def test_names_of_masks(photos: list[str], names: list[str]) -> None:
    assert mask_names(photos) == names


def test_photos_outside_the_capture_keep_apart() -> None:
    paths = ["../photos/1.jpg", "photos/1.jpg", "/data/photos/1.jpg"]
    assert photo_paths(paths, "/data/scene") == ["/data/photos/1.jpg", "/data/scene/photos/1.jpg", "/data/photos/1.jpg"]
    assert mask_names(paths[:2], "/data/scene") == ["photos/1.png", "scene/photos/1.png"]
    assert photo_paths(["images/1.jpg"], "/data/scene") == ["images/1.jpg"]


letters = st.sampled_from(["a", "A", "b", "1", ".", " ", "\u00e9", "e", "\u0301", "ß", "\udce9", "日", "\\"])
part = st.text(letters, min_size=1, max_size=4)
folders = st.lists(st.one_of(st.sampled_from(["images", "a", "b"]), part), max_size=3)
suffix = st.sampled_from([".jpg", ".png", ".JPG", ".jpg.png", ".tif", ""])
path = st.builds(lambda above, stem, end: "/".join([*above, stem + end]), folders, part, suffix)
photo_sets = st.lists(path, min_size=1, max_size=6, unique_by=lambda path: PurePosixPath(path.replace("\\", "/")))


def usable(paths: list[str]) -> bool:
    """Photos that are each a visible file of its own, none in the place of another's folder."""
    slashed = [path.replace("\\", "/") for path in paths]
    parts = [part for path in slashed for part in path.split("/")]
    inside = [PurePosixPath(path) for path in slashed]
    return all(part.strip(".") and not hidden(part) for part in parts) and not any(
        one in other.parents for one in inside for other in inside
    )


@pytest.mark.seconds(1.5)
@settings(max_examples=300, deadline=None)
@given(photo_sets.filter(usable), st.data())
def test_what_we_write_we_find_again(photos: list[str], data: st.DataObject) -> None:
    """Of any photos, and of any of them that got a mask."""
    names = mask_names(photos)
    assert len(set(names)) == len(names) and all(is_image(name) and not hidden(name) for name in names)
    written = data.draw(st.lists(st.sampled_from(range(len(photos))), unique=True))
    found = match_files(photo_paths(photos), [names[index] for index in written])
    assert found == [[written.index(index)] if index in written else [] for index in range(len(photos))]


REPEATED = ("images/1.jpg", "images/1.png", "1.jpg", "images/images/1.jpg", "a/images/1.jpg", "a/1.JPG", "images/1")


@pytest.mark.parametrize("above", ["", "../", "/images/"])
def test_masks_are_found_again_where_folders_have_one_name(above: str) -> None:
    """All sets of up to three photos, and of each set all choices of those that have a mask."""
    for photos in itertools.chain(*(itertools.combinations(REPEATED, count) for count in (1, 2, 3))):
        paths = photo_paths([above + photo for photo in photos], "/images/images")
        names = mask_names(paths)
        for written in itertools.product([False, True], repeat=len(photos)):
            files = list(itertools.compress(names, written))
            expected = [[files.index(name)] if there else [] for name, there in zip(names, written, strict=True)]
            assert match_files(paths, files) == expected, (paths, files)


@pytest.mark.seconds(1.5)
@settings(max_examples=200, deadline=None)
@given(photo_sets.filter(usable))
def test_photos_are_found_by_their_own_names(photos: list[str]) -> None:
    own = [[index] for index in range(len(photos))]
    assert match_references(photos, photos) == own
    assert find_photos(photos, photos) == own
    stems = distinct_stems(photos)
    assert len(set(stems)) == len(stems)


# ------------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("1.jpg", False),
        ("left/1.jpg", False),
        ("my.folder/a b.jpg", False),
        ("@home.jpg", False),
        ("._1.jpg", True),
        (".DS_Store", True),
        ("left/.thumbs/1.jpg", True),
        ("Thumbs.db", True),
        ("@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", True),
        ("__MACOSX/images/1.jpg", True),
        ("./1.jpg", False),
        ("../1.jpg", False),
    ],
)
def test_hidden_files(path: str, expected: bool) -> None:
    assert hidden(path) == expected


def test_numbers_count_as_numbers() -> None:
    names = ["10", "9", "a10", "a9b2", "a9b10", "²", "1²3"]
    assert [names[index] for index in natural_order(names)] == ["1²3", "9", "10", "a9b2", "a9b10", "a10", "²"]


def test_lists_can_be_printed() -> None:
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert listed([f"{LATIN_1}.jpg", "b"]) == "caf\\udce9.jpg, b"
