"""The data manager on a tiny capture of a ball: batches, the outline's band, rays, the object prior and its cache."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader
from nerfstudio.model_components.ray_generators import RayGenerator
from PIL import Image

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.hull_projection import outline_band
from surface_sos_ns.plugin.datamanager import (
    SurfaceSOSDataManager,
    SurfaceSOSDataManagerConfig,
)
from surface_sos_ns.plugin.dataset import PixelCache
from surface_sos_ns.plugin.tabulated_rays import TabulatedRays
from tests.helpers.capture_files import CENTRE, RADIUS, ball_capture, manager


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def file_pixels(datamanager: SurfaceSOSDataManager, folder: str, batch: dict) -> np.ndarray:
    """What the files hold at the batch's indices."""
    names = [path.name for path in datamanager.train_dataset.image_filenames]
    root = datamanager.get_datapath() / folder
    files = [np.array(Image.open(root / name)) for name in names]
    return np.stack([files[view][row, column] for view, row, column in batch["indices"].tolist()])


def test_batches_before_prepare_hold_the_files_pixels(tmp_path: Path) -> None:
    datamanager = manager(ball_capture(tmp_path).save())
    rays, batch = datamanager.next_train(0)
    assert set(batch) == {"image", "indices", "coarse_mask", "mask_weight"}
    assert batch["image"].shape == (512, 3) and batch["image"].dtype == torch.float32
    assert batch["coarse_mask"].shape == batch["mask_weight"].shape == (512, 1)
    np.testing.assert_allclose(batch["image"].numpy(), file_pixels(datamanager, "images", batch) / 255, atol=1e-6)
    np.testing.assert_allclose(
        batch["coarse_mask"][:, 0].numpy(), file_pixels(datamanager, "coarse_masks", batch) / 255, atol=1e-6
    )
    assert (batch["mask_weight"] == 1).all()
    assert rays.origins.shape == (512, 3) and rays.camera_indices[:, 0].equal(batch["indices"][:, 0])
    assert datamanager.object_prior is None


def test_uniform_rays_cover_all_views_and_pixels(tmp_path: Path) -> None:
    datamanager = manager(ball_capture(tmp_path).save(), train_num_rays_per_batch=60_000)
    indices = datamanager.next_train(0)[1]["indices"].numpy()
    counts = np.bincount(indices[:, 0], minlength=10)
    assert len(counts) == 10 and np.abs(counts - 6000).max() < 5 * np.sqrt(6000)
    assert indices[:, 1].min() == 0 and indices[:, 1].max() == 47
    assert indices[:, 2].min() == 0 and indices[:, 2].max() == 63
    assert len(np.unique(indices, axis=0)) > 0.8 * 10 * 64 * 48


def test_views_without_masks_have_no_weight(tmp_path: Path) -> None:
    capture = ball_capture(tmp_path)
    for frame in capture.frames[:3]:
        del frame["coarse_mask_path"]
        (tmp_path / "coarse_masks" / Path(frame["file_path"]).name).unlink()
    batch = manager(capture.save()).next_train(0)[1]
    unmasked = batch["indices"][:, 0] < 3
    assert unmasked.any()
    assert (batch["mask_weight"][unmasked] == 0).all() and (batch["coarse_mask"][unmasked] == 0).all()
    assert (batch["mask_weight"][~unmasked] == 1).all()


def test_no_masks_at_all(tmp_path: Path) -> None:
    batch = manager(ball_capture(tmp_path, masks=False).save()).next_train(0)[1]
    assert (batch["coarse_mask"] == 0).all() and (batch["mask_weight"] == 0).all()


def test_truth_is_never_in_training_batches(tmp_path: Path) -> None:
    folder = ball_capture(tmp_path).save()
    for options in ({}, {"test_mode": "test"}):
        datamanager = manager(folder, **options)
        assert not {"gt_mask", "clean_plate", "mask"} & set(datamanager.next_train(0)[1])
        assert not {"gt_mask", "clean_plate"} & set(datamanager.train_dataset[0])
        _, item = next(iter(datamanager.fixed_indices_eval_dataloader))
        assert item["gt_mask"].shape == (48, 64, 1)


def test_evaluation_loaders(tmp_path: Path) -> None:
    datamanager = manager(ball_capture(tmp_path).save(), eval_num_rays_per_batch=100)
    rays, batch = datamanager.next_eval(0)
    assert len(rays) == 100 and batch["indices"][:, 0].max() <= 1
    camera, item = datamanager.next_eval_image(0)
    assert camera.shape == (1,) and item["image"].shape == (48, 64, 3) and item["image"].dtype == torch.float32
    assert len(list(datamanager.fixed_indices_eval_dataloader)) == 2


def test_photos_are_read_only_when_batches_are_asked_for(tmp_path: Path) -> None:
    folder = ball_capture(tmp_path).save()
    datamanager = manager(folder, test_mode="test")
    assert datamanager._train_cache is None and datamanager._eval_cache is None
    manager(folder, test_mode="inference")


def test_all_photos_in_both_splits_are_read_once(tmp_path: Path) -> None:
    capture = ball_capture(tmp_path)
    del capture.meta["test_filenames"]
    datamanager = manager(capture.save())
    datamanager.dataparser_config.eval_mode = "all"
    datamanager = datamanager.config.setup(device="cpu")
    datamanager.next_eval(0)
    assert datamanager.eval_cache is datamanager.train_cache


def test_ns_render_dataset_gets_every_photo(tmp_path: Path) -> None:
    """The steps of ``ns-render dataset --split train+test``."""
    from nerfstudio.scripts.render import _disable_datamanager_setup

    capture = ball_capture(tmp_path)
    del capture.meta["test_filenames"]
    for frame in capture.frames:
        del frame["gt_mask_path"]
    for path in (tmp_path / "gt_masks").iterdir():
        path.unlink()
    config = SurfaceSOSDataManagerConfig(data=capture.save())
    for split in ("train", "test"):
        with _disable_datamanager_setup(config._target):
            datamanager = config.setup(test_mode="test", device="cpu")
        dataset = datamanager.train_dataset if split == "train" else datamanager.eval_dataset
        loader = FixedIndicesEvalDataloader(input_dataset=dataset, device="cpu", num_workers=4)
        items = list(loader)
        assert len(items) == 12
        assert set(items[0][1]) == {"image_idx", "image", "coarse_mask", "mask_weight"}
        assert dataset._dataparser_outputs.image_filenames[3].name == "frame_003.png"


def test_valid_pixel_masks_keep_black_pixels_out(tmp_path: Path) -> None:
    capture = ball_capture(tmp_path)
    for index in range(capture.count):
        path = capture.write("masks", index)
        valid = np.full((48, 64), 255, np.uint8)
        valid[:, :20] = 0
        Image.fromarray(valid).save(path)
        capture.frames[index]["mask_path"] = f"masks/{path.name}"
    datamanager = manager(capture.save(), train_num_rays_per_batch=5000)
    columns = datamanager.next_train(0)[1]["indices"][:, 2]
    assert columns.min() == 20 and columns.max() == 63
    assert datamanager.train_dataset[0]["mask"].shape == (48, 64, 1)


def test_mixed_resolutions(tmp_path: Path) -> None:
    capture = ball_capture(tmp_path)
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        value = capture.meta.pop(key)
        for index, frame in enumerate(capture.frames):
            frame[key] = value // 2 if key in ("w", "h") and index % 2 else value / (1 + index % 2)
            frame[key] = int(frame[key]) if key in ("w", "h") else frame[key]
    for index in range(1, capture.count, 2):
        for folder in ("images", "coarse_masks", "gt_masks"):
            path = tmp_path / folder / f"{capture.stem(index)}.png"
            with Image.open(path) as image:
                small = image.resize((32, 24))
            small.save(path)
    datamanager = manager(capture.save(), train_num_rays_per_batch=4000)
    rays, batch = datamanager.next_train(0)
    np.testing.assert_allclose(batch["image"].numpy(), file_pixels(datamanager, "images", batch) / 255, atol=1e-6)
    expected = RayGenerator(datamanager.train_dataset.cameras)(batch["indices"])
    assert torch.allclose(rays.directions, expected.directions, atol=1e-5)


@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE"])
def test_tabulated_rays_are_nerfstudios(tmp_path: Path, model: str) -> None:
    capture = ball_capture(tmp_path)
    capture.meta |= {"camera_model": model, "k1": 0.1, "k2": -0.03, "cx": 31.2, "cy": 24.9}
    capture.meta |= {"p1": 0.004, "p2": -0.003} if model == "OPENCV" else {}
    datamanager = manager(capture.save())
    assert datamanager.train_ray_generator.table is not None
    rays, batch = datamanager.next_train(0)
    expected = RayGenerator(datamanager.train_dataset.cameras)(batch["indices"])
    assert rays.origins.equal(expected.origins)
    assert rays.camera_indices.equal(expected.camera_indices)
    assert torch.allclose(rays.directions, expected.directions, atol=1e-5)
    assert torch.allclose(rays.pixel_area, expected.pixel_area, rtol=1e-2)
    assert torch.allclose(rays.metadata["directions_norm"], expected.metadata["directions_norm"], atol=1e-5)
    untabulated = TabulatedRays(datamanager.train_dataset.cameras, most_pixels=10)
    assert untabulated.table is None and untabulated(batch["indices"]).directions.equal(expected.directions)


def test_axis_of_a_fisheye_lens_is_finite(tmp_path: Path) -> None:
    capture = ball_capture(tmp_path)
    capture.meta |= {"camera_model": "OPENCV_FISHEYE", "cx": 31.5, "cy": 23.5}
    generator = manager(capture.save()).train_ray_generator
    rays = generator(torch.tensor([[0, 23, 31]]))
    forward = -generator.cameras.camera_to_worlds[0, :, 2]
    assert torch.allclose(rays.directions[0], forward, atol=1e-5) and bool(rays.pixel_area.isfinite())


def test_what_no_lens_shows_is_not_drawn(tmp_path: Path) -> None:
    """A fisheye's circle, and corners that a distortion never gets to; the other photos are drawn from as a whole."""
    capture = ball_capture(tmp_path)
    capture.meta |= {"fisheye_crop_radius": 20}
    capture.frames[0] |= {"camera_model": "OPENCV_FISHEYE"}
    capture.frames[1] |= {"k1": -1.0}
    cache = manager(capture.save()).train_cache
    drawn = np.zeros(cache.pixel_count, dtype=bool)
    assert cache.valid is not None
    drawn[cache.valid.numpy()] = True
    rows, columns = np.mgrid[:48, :64]
    np.testing.assert_array_equal(drawn[:3072].reshape(48, 64), np.hypot(columns - 32, rows - 24) <= 20)
    # r (1 - r^2) turns back at r = 1 / sqrt(3).
    distance = np.hypot(columns + 0.5 - 32, rows + 0.5 - 24) / capture.meta["fl_x"]
    expected = distance < 2 / 3 / np.sqrt(3)
    wrong = drawn[3072:6144].reshape(48, 64) != expected
    assert not wrong[np.abs(distance - 2 / 3 / np.sqrt(3)) > 0.01].any() and 0.6 < expected.mean() < 0.8
    assert drawn[6144:].all()


def test_masks_that_leave_no_pixel_are_refused(tmp_path: Path) -> None:
    capture = ball_capture(tmp_path)
    capture.add_masks("mask_path", "masks")
    for path in (tmp_path / "masks").iterdir():
        Image.new("L", (64, 48)).save(path)
    with pytest.raises(
        CaptureError, match="No pixel of the 10 photos may be used: the masks under mask_path are black"
    ):
        _ = manager(capture.save()).train_cache


def test_outline_band() -> None:
    square = np.zeros((40, 40), bool)
    square[10:30, 10:30] = True
    band = outline_band(square, 2)
    assert band[10:30, 10:30].all(), "the silhouette itself"
    assert band[20, 8:12].all() and band[20, 28:32].all()
    assert not band[20, 7] and not band[20, 32] and not band[7, 20]
    assert not outline_band(np.zeros((5, 5), bool), 2).any() and not outline_band(np.ones((5, 5), bool), 2).any()


def test_masks_can_be_installed_at_another_size(tmp_path: Path) -> None:
    datamanager = manager(ball_capture(tmp_path).save())
    cache: PixelCache = datamanager.train_cache
    masks: list[np.ndarray | None] = [np.full((24, 32), 0.6, np.float32) for _ in range(10)]
    masks[4] = None
    weights = np.linspace(0.1, 1, 10)
    cache.set_masks(masks, weights)
    batch = datamanager.next_train(0)[1]
    view = batch["indices"][:, 0]
    expected = torch.from_numpy(weights).float()
    expected[4] = 0
    assert torch.allclose(batch["mask_weight"][:, 0], expected[view])
    assert torch.allclose(batch["coarse_mask"][view != 4], torch.tensor(0.6), atol=1 / 255)
    assert cache.mask(4) is None


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    folder = ball_capture(tmp_path_factory.mktemp("ball"), count=14).save()
    cache_dir = tmp_path_factory.mktemp("run")
    datamanager = manager(folder, train_num_rays_per_batch=4000)
    return datamanager, datamanager.prepare(cache_dir), cache_dir


def to_world(datamanager: SurfaceSOSDataManager, point: np.ndarray) -> np.ndarray:
    outputs = datamanager.train_dataparser_outputs
    transform = outputs.dataparser_transform.numpy()
    return outputs.dataparser_scale * (transform[:, :3] @ point + transform[:, 3])


def test_prepare_finds_the_ball(prepared) -> None:
    datamanager, prior, cache_dir = prepared
    assert datamanager.object_prior is prior and datamanager.prepare(None) is prior
    scale = datamanager.train_dataparser_outputs.dataparser_scale
    distance = np.linalg.norm(np.asarray(prior.sphere.centre) - to_world(datamanager, CENTRE))
    assert distance < 0.5 * RADIUS * scale
    assert 0.9 * RADIUS * scale < distance + prior.sphere.radius < 4 * RADIUS * scale
    assert (cache_dir / "object_prior.npz").is_file()


def test_half_of_the_rays_come_from_the_band(prepared) -> None:
    datamanager, _, _ = prepared
    indices = datamanager.next_train(0)[1]["indices"].numpy()
    truth = [
        np.array(Image.open(datamanager.get_datapath() / "gt_masks" / path.name)) > 127
        for path in datamanager.train_dataset.image_filenames
    ]
    width = datamanager.config.band_width * 64 + 2.5  # the hull is a little larger than the ball
    near = np.stack([outline_band(mask, width) for mask in truth])
    share = near[tuple(indices.T)].mean()
    everywhere = near.mean()
    assert everywhere < 0.35
    assert share == pytest.approx(0.5 + 0.5 * everywhere, abs=0.08)
    views = np.bincount(indices[:, 0], minlength=12)
    assert views.min() > 0.5 * views.mean()


def test_weights_and_masks_are_installed(prepared) -> None:
    datamanager, prior, _ = prepared
    batch = datamanager.next_train(0)[1]
    expected = np.asarray(prior.hull.view_weights)[batch["indices"][:, 0].numpy()]
    np.testing.assert_allclose(batch["mask_weight"][:, 0].numpy(), expected, atol=1e-6)
    assert batch["mask_weight"].mean() > 0.5
    truth = file_pixels(datamanager, "gt_masks", batch) > 127
    assert batch["coarse_mask"][torch.from_numpy(truth)].mean() > 0.7
    assert batch["coarse_mask"][torch.from_numpy(~truth)].mean() < 0.2


@pytest.mark.seconds(2)
def test_prior_is_kept_and_reused_only_for_the_same_inputs(prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    first, prior, cache_dir = prepared
    calls: list[int] = []

    def count(self, *args):
        calls.append(1)
        return prior

    monkeypatch.setattr(SurfaceSOSDataManager, "_find_object", count)
    folder = first.get_datapath()
    again = manager(folder)
    reused = again.prepare(cache_dir)
    assert not calls
    np.testing.assert_allclose(reused.sphere.centre, prior.sphere.centre)
    np.testing.assert_allclose(reused.hull.probability, prior.hull.probability, atol=1e-3)
    np.testing.assert_allclose(again.train_cache.mask_weights, first.train_cache.mask_weights)

    different = SurfaceSOSDataManagerConfig(data=folder)
    different.dataparser.object_point = (0.5, -0.2, 0.1)
    different.setup(device="cpu").prepare(cache_dir)
    assert len(calls) == 1


@pytest.mark.seconds(2)
def test_damaged_prior_is_made_again(prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    first, prior, _ = prepared
    monkeypatch.setattr(SurfaceSOSDataManager, "_find_object", lambda self, *args: prior)
    datamanager = manager(first.get_datapath())
    datamanager.prepare(tmp_path)
    whole = (tmp_path / "object_prior.npz").read_bytes()
    (tmp_path / "object_prior.npz").write_bytes(whole[: len(whole) // 2])
    manager(first.get_datapath()).prepare(tmp_path)
    assert "cannot be read" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "object_prior.npz").read_bytes()[:100] == whole[:100]
    assert len((tmp_path / "object_prior.npz").read_bytes()) >= len(whole) // 2 + 1


def test_a_batch_is_quick(tmp_path: Path) -> None:
    capture = ball_capture(tmp_path, size=(320, 240))
    capture.meta |= {"k1": 0.05}
    datamanager = manager(capture.save(), train_num_rays_per_batch=1500)
    datamanager.next_train(0)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        datamanager.next_train(0)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.01, "about a millisecond on an idle core; undistorting each batch anew takes longer"


def test_config_survives_yaml(tmp_path: Path) -> None:
    import yaml

    config = SurfaceSOSDataManagerConfig(data=tmp_path)
    config.dataparser.coarse_masks = "my_masks"
    again = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    assert again.dataparser.coarse_masks == "my_masks" and again.band_fraction == config.band_fraction


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    folder = ball_capture(tmp_path).save()
    with pytest.raises(ValueError, match="patch_size"):
        manager(folder, patch_size=8)
    with pytest.raises(ValueError, match="band_fraction is 1.5"):
        manager(folder, band_fraction=1.5)
