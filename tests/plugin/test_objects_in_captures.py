"""Captures of several objects: however their masks are given, the same identities reach datasets and batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig
from surface_sos_ns.plugin.dataset import PixelCache, SurfaceSOSDataset
from tests.helpers.capture_files import Capture
from tests.helpers.object_capture import (
    NAMES,
    add_identity_masks,
    add_masks_by_name,
    object_capture,
    save,
    true_identities,
)


def parse(folder: Path, split: str = "train", **options):
    return SurfaceSOSDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def dataset_of(capture: Capture, split: str = "train", **options) -> SurfaceSOSDataset:
    return SurfaceSOSDataset(parse(capture.save(), split, **options))


def number(path: Path) -> int:
    """Of the view, from its photo's name."""
    return int(path.stem.split("_")[1])


def with_images(capture: Capture) -> None:
    add_identity_masks(capture)


def with_named_images(capture: Capture) -> None:
    add_identity_masks(capture)
    capture.meta["object_names"] = list(NAMES)


def with_keyed_images(capture: Capture) -> None:
    add_identity_masks(capture, "elsewhere")
    capture.meta["object_names"] = list(NAMES)
    for index, frame in enumerate(capture.frames):
        frame["coarse_mask_path"] = f"elsewhere/{capture.stem(index)}.png"


def with_palettes(capture: Capture) -> None:
    for index in range(capture.count):
        image = Image.fromarray(true_identities(index), "P")
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
        path = capture.folder / "coarse_masks" / f"{capture.stem(index)}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path)


def with_folders(capture: Capture) -> None:
    add_masks_by_name(capture)
    capture.meta["object_names"] = list(NAMES)


def with_mappings(capture: Capture) -> None:
    add_masks_by_name(capture, "elsewhere")
    for index, frame in enumerate(capture.frames):
        shown = [name for identity, name in enumerate(NAMES, start=1) if (true_identities(index) == identity).any()]
        frame["coarse_mask_path"] = {name: f"elsewhere/{name}/{capture.stem(index)}.png" for name in shown}


WAYS = [with_images, with_named_images, with_keyed_images, with_palettes, with_folders, with_mappings]


@pytest.mark.parametrize("way", WAYS)
def test_identities_are_the_same_however_masks_are_given(tmp_path: Path, way: Callable[[Capture], None]) -> None:
    capture = object_capture(tmp_path)
    way(capture)
    dataset = dataset_of(capture)
    cache = PixelCache.load(dataset)
    unnamed = way in (with_images, with_palettes)
    assert dataset.object_names == (("object_1", "object_2", "object_3") if unnamed else NAMES)
    assert len(dataset) == 11
    for view, path in enumerate(dataset.image_filenames):
        truth = true_identities(number(path))
        for found in (dataset.get_coarse_identities(view), cache.identity(view)):
            assert found is not None and found.dtype == np.uint8 and np.array_equal(found, truth)
        for mask in (dataset.get_coarse_mask(view), cache.mask(view)):
            assert mask is not None and mask.dtype == np.float32 and np.array_equal(mask, truth > 0)
        item = dataset[view]
        assert torch.equal(item["coarse_mask"][..., 0], torch.from_numpy(truth > 0).float())
        assert "gt_objects" not in item and dataset.get_true_identities(view) is None


def test_true_identities_are_in_the_items_of_held_out_views(tmp_path: Path) -> None:
    capture = object_capture(tmp_path)
    with_folders(capture)
    dataset = dataset_of(capture, "test")
    (view,) = (number(path) for path in dataset.image_filenames)
    found = dataset[0]["gt_objects"]
    assert found.dtype == torch.int64 and np.array_equal(found[..., 0].numpy(), true_identities(view))


def test_a_batch_has_the_identities_of_its_pixels(tmp_path: Path) -> None:
    capture = object_capture(tmp_path)
    with_images(capture)
    cache = PixelCache.load(dataset_of(capture))
    positions = torch.randint(cache.pixel_count, (500,), generator=torch.Generator().manual_seed(0))
    batch = cache.gather(positions)
    view, row, column = batch["indices"].unbind(-1)
    expected = [cache.identity(v)[r, c] for v, r, c in zip(view, row, column, strict=True)]  # type: ignore[index]
    assert batch["coarse_identity"].dtype == torch.int64 and batch["coarse_identity"].shape == (500, 1)
    assert batch["coarse_identity"][:, 0].tolist() == expected and len(set(expected)) == 4
    assert torch.equal(batch["coarse_identity"] > 0, batch["coarse_mask"] == 1)


def test_one_object_has_no_identities(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    capture.meta["object_names"] = ["cup"]
    for index in range(capture.count):
        save(tmp_path / "coarse_masks" / f"{capture.stem(index)}.png", (true_identities(index) == 1) * np.uint8(255))
    dataset = dataset_of(capture)
    cache = PixelCache.load(dataset)
    assert dataset.object_names == () and dataset.get_coarse_identities(0) is None
    assert cache.identities is None and cache.identity(0) is None
    assert "coarse_identity" not in cache.gather(torch.arange(5))
    assert np.array_equal(cache.mask(0), true_identities(number(dataset.image_filenames[0])) == 1)


def test_photos_without_a_mask(tmp_path: Path) -> None:
    capture = object_capture(tmp_path)
    with_images(capture)
    (tmp_path / "coarse_masks" / "frame_003.png").unlink()
    cache = PixelCache.load(dataset := dataset_of(capture))
    names = [number(path) for path in dataset.image_filenames]
    assert [names[view] for view in range(len(cache)) if cache.identity(view) is None] == [3]
    assert dataset.get_coarse_identities(names.index(3)) is None


def test_objects_to_be_looked_for_have_identities_from_the_start(tmp_path: Path) -> None:
    """All 0, until masks are found; the names of the capture are those of masks that are not used."""
    capture = object_capture(tmp_path)
    with_named_images(capture)
    cache = PixelCache.load(dataset := dataset_of(capture, coarse_masks="none", objects=2))
    assert dataset.object_names == ("object_1", "object_2") and dataset.metadata["coarse_mask_filenames"] is None
    assert torch.equal(cache.gather(torch.arange(9))["coarse_identity"], torch.zeros(9, 1, dtype=torch.int64))
    dataset = dataset_of(capture, coarse_masks="none")
    assert dataset.object_names == () and PixelCache.load(dataset).identities is None


def test_masks_of_the_cache_are_replaced_with_identities_of_any_size(tmp_path: Path) -> None:
    capture = object_capture(tmp_path)
    cache = PixelCache.load(dataset_of(capture))
    assert cache.identities is None
    small = np.arange(1, 5, dtype=np.uint8).reshape(2, 2)
    masks = [np.ones((2, 2), np.float32) if view != 3 else None for view in range(len(cache))]
    cache.set_masks(masks, np.full(len(cache), 0.5), [small if mask is not None else None for mask in masks])
    found = cache.identity(0)
    assert found is not None and np.array_equal(found, np.kron(small, np.ones((12, 16), np.uint8)))
    assert cache.identity(3) is None
    truth = true_identities(1)
    cache.set_mask(3, truth > 0, truth)
    assert np.array_equal(cache.identity(3), truth) and np.array_equal(cache.identity(0), found)
    assert torch.equal(cache.to("cpu").identities, cache.identities)
    with pytest.raises(ValueError, match="view 3 comes without identities"):
        cache.set_mask(3, truth > 0)


@pytest.mark.parametrize("way", [with_images, with_palettes, with_folders])
def test_downscaling_never_mixes_identities(tmp_path: Path, way: Callable[[Capture], None]) -> None:
    """Of 1 and 3 the mean is 2. Downscaled copies of identity images, if there are any, may hold such numbers."""
    capture = object_capture(tmp_path)
    way(capture)
    if way is with_images:
        for index in range(capture.count):
            save(tmp_path / "coarse_masks_2" / f"{capture.stem(index)}.png", np.full((12, 16), 2, np.uint8))
            save(tmp_path / "gt_objects_2" / f"{capture.stem(index)}.png", np.full((12, 16), 2, np.uint8))
    dataset = dataset_of(capture, downscale_factor=2)
    for view, path in enumerate(dataset.image_filenames):
        found, truth = dataset.get_coarse_identities(view), true_identities(number(path))
        assert found is not None and found.shape == (12, 16)
        corners = [truth[row::2, column::2] for row in (0, 1) for column in (0, 1)]
        assert np.any([corner == found for corner in corners], axis=0).all()
        mask = dataset.get_coarse_mask(view)
        assert mask is not None and np.array_equal(mask > 0, found > 0)
    held_out = dataset_of(capture, "test", downscale_factor=2)
    truth = true_identities(number(held_out.image_filenames[0]))
    assert np.array_equal(held_out.get_true_identities(0), truth[1::2, 1::2])


def test_where_masks_overlap_the_larger_value_wins_then_the_smaller_object(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    cup, lemon = np.zeros((24, 32), np.uint8), np.zeros((24, 32), np.uint8)
    cup[4:20, 4:20], lemon[8:12, 8:30] = 255, 255
    lemon[8:10, 8:12] = 100  # less sure than the cup there
    for index in range(capture.count):
        save(tmp_path / "coarse_masks" / "cup" / f"{capture.stem(index)}.png", cup)
        save(tmp_path / "coarse_masks" / "lemon" / f"{capture.stem(index)}.png", lemon)
    dataset = dataset_of(capture)
    expected = (cup > 0).astype(np.uint8)
    expected[lemon == 255] = 2
    assert dataset.object_names == ("cup", "lemon")
    assert np.array_equal(dataset.get_coarse_identities(0), expected)
    np.testing.assert_allclose(dataset.get_coarse_mask(0), np.maximum(cup, lemon) / 255, atol=1e-6)


def test_a_soft_mask_of_each_object_keeps_its_shades(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    noise = np.random.default_rng(0)
    soft = {name: noise.integers(0, 256, (24, 32), dtype=np.uint8) for name in ("cup", "lemon")}
    for frame in capture.frames:
        stem = Path(frame["file_path"]).stem
        for name, mask in soft.items():
            save(tmp_path / name / f"{stem}.png", mask)
        frame["coarse_mask_path"] = {name: f"{name}/{stem}.png" for name in soft}
    dataset = dataset_of(capture)
    values = np.stack(list(soft.values()))
    np.testing.assert_allclose(dataset.get_coarse_mask(0), values.max(axis=0) / 255, atol=1e-6)
    different = values[0] != values[1]
    found = dataset.get_coarse_identities(0)
    assert found is not None and np.array_equal(found[different], values.argmax(axis=0)[different] + 1)


def test_folders_of_photos_are_not_objects(tmp_path: Path) -> None:
    """Photos in left/ and right/: masks in left/ are theirs, and those in cup/left/ the cup's."""
    for by_object in (False, True):
        capture = Capture(tmp_path / str(by_object))
        for index, frame in enumerate(capture.frames):
            side = ("left", "right")[index % 2]
            path = f"images/{side}/{capture.stem(index // 2)}.png"
            save(capture.folder / path, np.zeros((24, 32, 3), np.uint8))
            frame["file_path"] = path
            for identity, name in enumerate(NAMES, start=1):
                place = capture.folder / "coarse_masks" / (name if by_object else "") / side
                mask = true_identities(index) == identity
                save(place / f"{capture.stem(index // 2)}.png", mask * np.uint8(255))
        dataset = dataset_of(capture)
        assert dataset.object_names == (("book", "cup", "lemon") if by_object else ())
        order = {frame["file_path"]: index for index, frame in enumerate(capture.frames)}
        for view, path in enumerate(dataset.image_filenames):
            truth = true_identities(order[path.relative_to(capture.folder).as_posix()])
            expected = np.array([0, 2, 3, 1])[truth] > 0 if by_object else truth == 3
            assert np.array_equal(dataset.get_coarse_mask(view), expected)


def test_another_folder_may_hold_either_kind(tmp_path: Path) -> None:
    capture = object_capture(tmp_path)
    add_identity_masks(capture, "numbers")
    add_masks_by_name(capture, "folders")
    for index in range(capture.count):
        save(tmp_path / "coarse_masks" / f"{capture.stem(index)}.png", true_identities(index) * np.uint8(50))
    numbers, folders = (dataset_of(capture, coarse_masks=folder) for folder in ("numbers", str(tmp_path / "folders")))
    truth = true_identities(number(numbers.image_filenames[0]))
    assert numbers.object_names == ("object_1", "object_2", "object_3")
    assert folders.object_names == ("book", "cup", "lemon")
    assert np.array_equal(numbers.get_coarse_identities(0), truth)
    assert np.array_equal(folders.get_coarse_identities(0), np.array([0, 2, 3, 1])[truth])
    assert dataset_of(capture).object_names == ()  # shades of grey, since they go beyond 32


@pytest.mark.parametrize(
    "values",
    [
        [0, 255],
        [0, 1],
        [0, 2],  # one value besides 0 is one object, whatever the value
        [0, 40, 80, 255],
        [1, 2],  # no background
    ],
)
def test_grey_masks_of_one_object_stay_what_they_were(tmp_path: Path, values: list[int]) -> None:
    capture = Capture(tmp_path)
    noise = np.random.default_rng(0)
    for index in range(capture.count):
        save(tmp_path / "coarse_masks" / f"{capture.stem(index)}.png", noise.choice(np.uint8(values), (24, 32)))
    assert dataset_of(capture).object_names == ()


def test_a_palette_of_one_object_stays_one(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    for index in range(capture.count):
        image = Image.fromarray(np.uint8(7) * (true_identities(index) == 1), "P")
        image.putpalette([0, 0, 0] + [200, 30, 30] * 7)
        path = tmp_path / "coarse_masks" / f"{capture.stem(index)}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    dataset = dataset_of(capture)
    assert dataset.object_names == ()
    assert np.array_equal(dataset.get_coarse_mask(0), true_identities(number(dataset.image_filenames[0])) == 1)


def test_a_palette_of_dark_greys_counts_by_the_greys(tmp_path: Path) -> None:
    """As programs write grey pictures that make files smaller: the index of a grey is any number."""
    capture = object_capture(tmp_path)
    for index in range(capture.count):
        image = Image.fromarray(np.uint8([3, 0, 2, 1])[true_identities(index)], "P")
        image.putpalette([1, 1, 1, 3, 3, 3, 2, 2, 2, 0, 0, 0])
        path = tmp_path / "coarse_masks" / f"{capture.stem(index)}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    dataset = dataset_of(capture)
    assert np.array_equal(dataset.get_coarse_identities(0), true_identities(number(dataset.image_filenames[0])))


def test_identities_are_turned_as_the_photo_is(tmp_path: Path) -> None:
    """EXIF orientation 6: stored on its side."""
    capture = object_capture(tmp_path)
    tags = Image.Exif()
    tags[0x0112] = 6
    for index in range(capture.count):
        stored = np.rot90(true_identities(index))
        save(tmp_path / "coarse_masks" / f"{capture.stem(index)}.png", np.ascontiguousarray(stored), exif=tags)
    dataset = dataset_of(capture)
    assert np.array_equal(dataset.get_coarse_identities(0), true_identities(number(dataset.image_filenames[0])))


def test_the_line_about_the_capture_names_its_objects(tmp_path: Path, capsys) -> None:
    capture = object_capture(tmp_path)
    with_folders(capture)
    parse(capture.save())
    said = " ".join(capsys.readouterr().out.split())
    assert "coarse masks for 12, 0 without; 3 objects: cup, lemon, book; truth for 12; true objects for 12" in said
