"""Masks that are wrong in the same way, from a capture on disk into the training batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image

from tests.helpers.capture_files import CENTRE, Capture, manager
from tests.helpers.poses import orbit_pose

VIEWS, SIZE = 18, (96, 72)
BALLS = ((CENTRE, 0.5, (200, 60, 40)), (CENTRE + np.array([0.0, 1.15, 0.0]), 0.25, (40, 80, 200)))
"""Centre, radius and colour of the object, and of its neighbour."""


def scene(index: int, focal: float) -> np.ndarray:
    """(H, W) int: 0 nothing, 1 the object, 2 its neighbour, whichever is nearer."""
    pose = orbit_pose(2 * np.pi * index / VIEWS)
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    local = np.stack([(columns - SIZE[0] / 2) / focal, -(rows - SIZE[1] / 2) / focal, -np.ones_like(rows)], axis=-1)
    rays = local @ pose[:3, :3].T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    nearest, shown = np.full(rows.shape, np.inf), np.zeros(rows.shape, int)
    for number, (centre, radius, _) in enumerate(BALLS, start=1):
        along = rays @ (centre - pose[:3, 3])
        half = radius**2 - ((centre - pose[:3, 3]) ** 2).sum() + along**2
        depth = np.where(half > 0, along - np.sqrt(np.maximum(half, 0)), np.inf)
        shown[depth < nearest] = number
        nearest = np.minimum(depth, nearest)
    return shown


@pytest.fixture
def capture(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray], set[str]]:
    """A capture whose masks take the neighbour along in 10 of 18 photos; the scene by photo; those photos."""
    one = Capture(tmp_path / "capture", count=VIEWS, size=SIZE)
    taken = set(np.random.default_rng(3).permutation(VIEWS)[:10].tolist())
    noise, scenes = np.random.default_rng(0), {}
    for index in range(VIEWS):
        shown = scene(index, one.meta["fl_x"])
        photo = noise.integers(90, 160, (*shown.shape, 3), dtype=np.uint8)
        for number, (_, _, colour) in enumerate(BALLS, start=1):
            photo[shown == number] = colour
        Image.fromarray(photo).save(one.folder / "images" / f"{one.stem(index)}.png")
        mask = (shown > 0) if index in taken else shown == 1
        path = one.write("coarse_masks", index)
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
        one.frames[index]["coarse_mask_path"] = f"coarse_masks/{path.name}"
        scenes[path.name] = shown
    one.meta["train_filenames"] = [frame["file_path"] for frame in one.frames]
    one.meta["test_filenames"] = one.meta["train_filenames"][:1]
    return one.save(), scenes, {f"{one.stem(index)}.png" for index in taken}


def said_of_neighbour(datamanager, scenes: dict[str, np.ndarray], taken: set[str]) -> np.ndarray:
    """What the masks in the cache that took the neighbour along say where it is seen beside the object."""
    values = []
    for view, path in enumerate(datamanager.train_dataset.image_filenames):
        if path.name in taken:
            values.append(datamanager.train_cache.mask(view)[scenes[path.name] == 2])
    return np.concatenate(values)


def test_a_neighbour_in_most_masks_has_no_vote_in_the_batches(capture, tmp_path: Path) -> None:
    folder, scenes, taken = capture
    run = tmp_path / "run"
    run.mkdir()
    first = manager(folder, check_poses=False)
    with CONSOLE.capture() as shown:
        prior = first.prepare(run)
    assert "masks hold a piece" in " ".join(shown.get().split())
    assert prior.repaired and len(prior.remarks) == 1 and "kept out" in prior.remarks[0]
    assert (np.abs(said_of_neighbour(first, scenes, taken) - 0.5) < 0.01).mean() > 0.9
    resumed = manager(folder, check_poses=False)
    again = resumed.prepare(run)
    assert again.repaired == prior.repaired and again.remarks == prior.remarks
    assert torch.equal(resumed.train_cache.masks, first.train_cache.masks)


def test_masks_stay_as_they_are_where_that_is_asked_for(capture) -> None:
    folder, scenes, taken = capture
    datamanager = manager(folder, check_poses=False, repair_masks=False)
    prior = datamanager.prepare()
    assert prior.repaired == () and prior.remarks == ()
    assert (said_of_neighbour(datamanager, scenes, taken) == 1).all()
