"""Masks that a run makes for itself: which coarse masks they replace, and that a resumed run learns from the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from surface_sos_ns.plugin.self_training import MATTE_SIDE, Mask, SelfTraining, choose_masks, load_masks, save_masks
from surface_sos_ns.training.mask_reliability import MaskReliability
from surface_sos_ns.utils.errors import UserError
from tests.helpers.capture_files import ball_capture, manager


def disc(radius: float, size: int = 40, across: float = 0.0) -> np.ndarray:
    """(size, size) float32: 1 within a radius of the middle, in pixels."""
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    return (np.hypot(x - across, y) < radius).astype(np.float32)


def test_masks_that_agree_with_their_matte_stay() -> None:
    matte = Mask(disc(12))
    masks = [disc(12.2), disc(9), None, np.zeros((40, 40), np.float32), disc(24.4, size=80)]
    chosen = choose_masks([None if mask is None else Mask(mask) for mask in masks], [matte] * 5)
    # (9 / 12)^2 is an IoU of 0.56; the last one is the same disc at twice the size.
    assert [mask is None for mask in chosen] == [True, False, False, False, True]
    assert all(mask is matte for mask in chosen if mask is not None)


def test_where_the_object_is_lost_the_first_masks_stay() -> None:
    nothing, something = Mask(np.full((8, 8), 0.2, np.float32)), Mask(disc(3, 8))
    assert choose_masks([something, None], [nothing, nothing]) == [None, None]
    # In one view it may well be out of sight.
    chosen = choose_masks([something, None], [nothing, something])
    assert chosen[0] is nothing and chosen[1] is not None


def test_a_mask_stays_where_every_object_agrees() -> None:
    """Two discs side by side, all of them alike; what differs is which is which, or whether the small one is there."""
    large, small = disc(12, across=-7), disc(3, across=13)
    together = np.maximum(large, small)

    def mask(of_large: int, of_small: int) -> Mask:
        return Mask(together, (of_large * large + of_small * small).astype(np.uint8))

    matte = mask(1, 2)
    missed = Mask(large, large.astype(np.uint8))  # 0.94 of all pixels agree, and an object is missing
    cases = {"same": (mask(1, 2), True), "swapped": (mask(2, 1), False), "missed": (missed, False)}
    for name, (given, stays) in cases.items():
        assert (choose_masks([given], [matte])[0] is None) == stays, name


def test_files_keep_identities(tmp_path: Path) -> None:
    mask = Mask(disc(3, 8), disc(3, 8).astype(np.uint8) * 4)
    save_masks(tmp_path / "own_masks_1.npz", [mask, None])
    found, nothing = load_masks(tmp_path / "own_masks_1.npz", 2)
    assert nothing is None and found is not None and found.identity is not None and mask.identity is not None
    assert found.identity.tolist() == mask.identity.tolist()


def test_files_bring_back_what_was_saved(tmp_path: Path) -> None:
    soft = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    save_masks(tmp_path / "run" / "own_masks_1.npz", [None, Mask(soft)])
    first, second = load_masks(tmp_path / "run" / "own_masks_1.npz", 2)
    assert first is None and second is not None
    np.testing.assert_allclose(second.alpha, soft, atol=0.5 / 255)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["own_masks_1.npz"]


@pytest.mark.parametrize("content", [None, b"PK not really"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "own_masks_2.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"own_masks_2\.npz.*cannot be read.*Put the file back"):
        load_masks(path, 2)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"views": 10**12}, "it is of 1000000000000 photos, expected 2"),
        ({"0": np.zeros((3, 4), np.uint8)}, "views"),
        ({"views": 2, "1": np.zeros(5, np.uint8)}, r"a mask has the shape \(5,\)"),
        ({"views": 2, "1": np.full((3, 4), np.nan)}, "the type float64"),
        ({"views": np.array("two")}, "two"),
    ],
)
def test_a_file_that_holds_no_masks_is_named(tmp_path: Path, arrays: dict[str, Any], problem: str) -> None:
    path = tmp_path / "own_masks_2.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=rf"own_masks_2\.npz.*cannot be read \(.*{problem}"):
        load_masks(path, 2)


class Knowing:
    """Stands for a model that draws what it is told to, by the camera's place."""

    object_names = ()

    def __init__(self, mattes: dict[tuple[float, ...], np.ndarray], views: int):
        self.mattes = mattes
        self.scene = SimpleNamespace(reliability=MaskReliability(views))
        self.sizes: set[tuple[int, int]] = set()

    def images(self, camera: Any, names: list[str], smooth_edges: bool) -> dict[str, torch.Tensor]:
        assert names == ["alpha"] and not smooth_edges
        self.sizes.add((int(camera.width[0]), int(camera.height[0])))
        return {"alpha": torch.from_numpy(self.mattes[tuple(camera.camera_to_worlds[0, :, 3].tolist())])[..., None]}


def test_batches_bring_the_new_masks_and_so_do_those_of_a_resumed_run(tmp_path: Path) -> None:
    capture = ball_capture(tmp_path / "capture", count=8)
    folder = capture.save()
    data = manager(folder)
    cache, cameras = data.train_cache, data.train_dataset.cameras
    count = len(cache)
    given = [cache.mask(view) for view in range(count)]
    moved = [np.roll(np.asarray(mask) >= 0.5, 30, axis=1).astype(np.float32) for mask in given]
    mattes = [np.asarray(given[0]) >= 0.5, *moved[1:]]  # all but the first show the object elsewhere
    where = [tuple(place) for place in cameras.camera_to_worlds[:, :, 3].tolist()]
    model: Any = Knowing({place: np.float32(matte) for place, matte in zip(where, mattes, strict=True)}, count)
    model.scene.reliability.counts.fill_(5.0)
    run = tmp_path / "run"
    own = SelfTraining(cache, cameras, run)
    said: list[str] = []
    own.refresh(model, 1, said.append)
    assert said[0].startswith(f"masks: {count - 1} of {count} replaced by the object's own mattes")
    np.testing.assert_array_equal(cache.mask(0), given[0])
    for view in range(1, count):
        np.testing.assert_array_equal(cache.mask(view), moved[view])
    assert model.scene.reliability.counts.flatten(1).sum(1).tolist() == [20.0] + [0.0] * (count - 1)

    # What hardly differs from an own mask takes its place all the same.
    model.mattes[where[1]] = np.maximum(moved[1], np.roll(moved[1], 1, axis=1))
    assert (model.mattes[where[1]] > 0.5).sum() < 1.1 * (moved[1] > 0.5).sum()
    own.refresh(model, 2, said.append)
    np.testing.assert_array_equal(cache.mask(1), model.mattes[where[1]])
    np.testing.assert_array_equal(cache.mask(0), given[0])

    again = manager(folder)
    resumed = SelfTraining(again.train_cache, cameras, run)
    resumed.restore(model, 2)
    assert again.train_cache.masks.equal(cache.masks) and again.train_cache.mask_weights.equal(cache.mask_weights)
    model.mattes[where[1]] = moved[1]
    resumed.refresh(model, 3, said.append)
    np.testing.assert_array_equal(again.train_cache.mask(1), moved[1])


def test_masks_that_all_agree_are_not_asked_about_again(tmp_path: Path) -> None:
    data = manager(ball_capture(tmp_path / "capture", count=6).save())
    cache, cameras = data.train_cache, data.train_dataset.cameras
    given = [np.asarray(cache.mask(view)) for view in range(len(cache))]
    places = [tuple(place) for place in cameras.camera_to_worlds[:, :, 3].tolist()]
    model: Any = Knowing(
        {place: np.float32(mask >= 0.5) for place, mask in zip(places, given, strict=True)}, len(cache)
    )
    said: list[str] = []
    own = SelfTraining(cache, cameras, tmp_path / "run")
    own.refresh(model, 1, said.append)
    assert said[0].startswith(f"masks: none of {len(cache)} replaced")
    model.mattes.clear()  # it can draw nothing more
    own.refresh(model, 2, said.append)
    resumed = SelfTraining(cache, cameras, tmp_path / "run")
    resumed.restore(model, 1)
    resumed.refresh(model, 2, said.append)
    assert len(said) == 1
    assert all(np.array_equal(cache.mask(view), mask) for view, mask in enumerate(given))


def test_large_photos_are_not_rendered_at_full_size(tmp_path: Path) -> None:
    size = (4 * MATTE_SIDE, 2 * MATTE_SIDE)
    folder = ball_capture(tmp_path, count=4, size=size, masks=False).save()
    data = manager(folder)
    cameras = data.train_dataset.cameras
    noise = np.random.default_rng(0).random((MATTE_SIDE // 2, MATTE_SIDE), np.float32)
    matte = disc(60, MATTE_SIDE)[: MATTE_SIDE // 2] * (0.9 + 0.1 * noise)
    model: Any = Knowing({tuple(place): matte for place in cameras.camera_to_worlds[:, :, 3].tolist()}, len(cameras))
    SelfTraining(data.train_cache, cameras, tmp_path / "run").refresh(model, 1, print)
    assert model.sizes == {(MATTE_SIDE, MATTE_SIDE // 2)}
    assert int(cameras.width[0]) == size[0], "the training cameras are as they were"
    mask = data.train_cache.mask(0)
    assert mask is not None and mask.shape == size[::-1]
    assert (mask > 0.5).mean() == pytest.approx((matte > 0.5).mean(), rel=0.01)
    again = manager(folder)
    SelfTraining(again.train_cache, cameras, tmp_path / "run").restore(model, 1)
    assert again.train_cache.masks.equal(data.train_cache.masks), "to the last bit, enlarged as they are"
