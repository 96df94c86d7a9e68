"""The commands a user types, run as such: ns-train, ns-eval and ns-render on the demo's capture, with no network."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.capture_files import keep_half_of_the_training_photos
from tests.helpers.terminal import STARTED, Terminal

PICTURES = (
    *("mask", "alpha", "background", "background_confidence", "foreground", "overlay", "rgb", "depth", "normals"),
    *("object_depth", "accumulation", "rgba", "shadow"),
)
ONE_CHANNEL = ("alpha", "background_confidence", "shadow", "depth", "object_depth", "accumulation")
FIGURES = {
    *("mask_iou", "mask_iou_bg", "mask_miou", "mask_acc", "mask_sad", "mask_mse", "mask_ari"),
    *("mask_edge_sad", "mask_edge_mse", "clean_plate_psnr", "psnr", "ssim"),
    *("psnr_fitted", "ssim_fitted", "psnr_unfitted"),
}
TINY = (
    *("--pipeline.datamanager.train-num-rays-per-batch", "64"),
    *("--pipeline.model.initial-fit-steps", "10"),
    *("--pipeline.model.scene.foreground-grid.log2-entries", "12"),
    *("--pipeline.model.scene.background-grid.log2-entries", "12"),
    *("--pipeline.model.scene.cache-resolution", "24"),
    *("--pipeline.model.scene.probability-resolution", "24"),
    *("--logging.steps-per-log", "1"),
)
STEP = re.compile(r"^(\d+) \(\d+\.\d+%\)")


@pytest.fixture(scope="module")
def meta(demo_capture: Path) -> dict:
    return json.loads((demo_capture / "transforms.json").read_text())


@pytest.fixture(scope="module")
def evaluated(terminal: Terminal, trained: Path) -> tuple[dict, Path]:
    """What ns-eval found, and a folder with every photo's pictures by one ns-render. They run at the same time."""
    folder = terminal.folder / "renders"
    options = ("--split", "train+test", "--image-format", "png", "--rendered-output-names", *PICTURES, "raw-alpha")
    with ThreadPoolExecutor() as beside:
        evaluation = beside.submit(terminal.eval, trained)
        terminal.render("dataset", trained, folder, *options)
    result, output = evaluation.result()
    assert re.search(STARTED, output)
    return result["results"], folder


@pytest.fixture
def figures(evaluated: tuple[dict, Path]) -> dict:
    return evaluated[0]


@pytest.fixture
def renders(evaluated: tuple[dict, Path]) -> Path:
    return evaluated[1]


def read(path: Path, flag: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    picture = cv2.imread(str(path), flag)
    assert picture is not None, path
    return picture


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def masks(capture: Path, meta: dict, key: str, names: list[str]) -> list[np.ndarray]:
    paths = {frame["file_path"]: frame[key] for frame in meta["frames"]}
    return [read(capture / paths[name], cv2.IMREAD_GRAYSCALE) > 127 for name in names]


# ------------------------------------------------------------------ train, evaluate, render


@pytest.mark.seconds(90)
def test_ns_eval_gives_all_figures_and_the_masks_are_better_than_what_went_in(
    figures: dict, demo_capture: Path, meta: dict
) -> None:
    assert FIGURES | {f"{name}_std" for name in FIGURES} <= set(figures)
    assert not any("lpips" in name for name in figures)
    assert all(np.isfinite(figures[name]) for name in FIGURES)
    assert figures["mask_acc"] >= figures["mask_miou"] > figures["mask_iou"] > 0
    assert figures["mask_miou"] == pytest.approx((figures["mask_iou"] + figures["mask_iou_bg"]) / 2, abs=1e-6)
    held = meta["test_filenames"]
    coarse, truth = (masks(demo_capture, meta, key, held) for key in ("coarse_mask_path", "gt_mask_path"))
    given = np.mean([iou(a, b) for a, b in zip(coarse, truth, strict=True)])
    assert figures["mask_iou"] > max(0.67, given + 0.05), given
    assert figures["clean_plate_psnr"] > 19 and figures["psnr"] > 19


def test_every_photo_gets_every_picture_under_its_own_name(renders: Path, meta: dict) -> None:
    for split in ("train", "test"):
        expected = {f"{Path(name).stem}.png" for name in meta[f"{split}_filenames"]}
        for output in PICTURES:
            assert {path.name for path in (renders / split / output).iterdir()} == expected
            for name in expected:
                picture = read(renders / split / output / name)
                assert picture.shape == (meta["h"], meta["w"], 4 if output == "rgba" else 3)


def test_masks_are_black_and_white_and_agree_with_ns_eval(
    renders: Path, figures: dict, demo_capture: Path, meta: dict
) -> None:
    rendered = {}
    for split in ("train", "test"):
        for path in (renders / split / "mask").iterdir():
            picture = read(path)
            assert set(np.unique(picture)) <= {0, 255}, path
            assert (picture == picture[..., :1]).all()
            rendered[path.stem] = picture[..., 0] > 127
    held = meta["test_filenames"]
    truth = masks(demo_capture, meta, "gt_mask_path", held)
    measured = np.mean([iou(rendered[Path(name).stem], mask) for name, mask in zip(held, truth, strict=True)])
    assert measured == pytest.approx(figures["mask_iou"], abs=0.01)
    # The photos that were trained on: better than their masks, some of which are empty.
    seen = meta["train_filenames"]
    truth, coarse = (masks(demo_capture, meta, key, seen) for key in ("gt_mask_path", "coarse_mask_path"))
    ours = np.mean([iou(rendered[Path(name).stem], mask) for name, mask in zip(seen, truth, strict=True)])
    assert ours > np.mean([iou(a, b) for a, b in zip(coarse, truth, strict=True)]) + 0.05


def test_the_pictures_fit_together(renders: Path, meta: dict) -> None:
    """rgba, mask and foreground are of one matte; the tint of the overlay is where it is."""
    for name in meta["test_filenames"]:
        stem = Path(name).stem
        with gzip.open(renders / "test" / "raw-alpha" / f"{stem}.npy.gz") as file:
            alpha = np.load(file)[..., 0]
        of = {output: read(renders / "test" / output / f"{stem}.png").astype(float) for output in PICTURES}
        assert np.abs(of["rgba"][..., 3] - 255 * alpha).max() <= 1.0
        assert ((of["mask"][..., 0] > 0) == (alpha > 0.5)).all()
        assert alpha.max() > 0.9 and (alpha < 0.01).mean() > 0.5
        assert (of["foreground"][alpha < 1e-3] <= 2).all()
        cut_out = of["rgba"][..., :3] * alpha[..., None]
        assert np.abs(cut_out - of["foreground"])[alpha > 0.05].max() <= 2.0
        tinted = np.abs(of["overlay"] - of["rgb"]).max(-1)
        assert (tinted[alpha < 1e-3] <= 1).all() and tinted[alpha > 0.9].mean() > 10
        assert np.abs(of["background"] - of["rgb"]).max(-1)[alpha > 0.9].mean() > 10


@pytest.mark.seconds(12)
def test_a_video_of_the_mask_is_one_command(terminal: Terminal, trained: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ns-render makes videos with the ffmpeg program, which is not on the PATH")
    video = terminal.folder / "mask.mp4"
    options = ("--pose-source", "eval", "--interpolation-steps", "2", "--rendered-output-names", "mask")
    terminal.render("interpolate", trained, video, *options)
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(frames) >= 4
    first = frames[0]
    black, white = (first < 48).all(-1), (first > 207).all(-1)
    assert (black | white).mean() > 0.9, "black and white but for the codec's blur at the outline"
    assert 0.01 < white.mean() < 0.5


@pytest.mark.seconds(6)
def test_outputs_are_images_and_rendering_changes_nothing(trained: Path) -> None:
    from nerfstudio.utils.eval_utils import eval_setup

    _, pipeline, _, step = eval_setup(trained / "config.yml")
    assert step == 499
    before = {name: value.clone() for name, value in pipeline.state_dict().items()}
    cameras = pipeline.datamanager.eval_dataset.cameras.to(pipeline.device)
    with torch.no_grad():
        outputs = pipeline.model.get_outputs_for_camera(cameras[0:1])
        again = pipeline.model.get_outputs_for_camera(cameras[0:1])
    assert set(outputs) == set(PICTURES) - {"rgba"}
    for name, image in outputs.items():
        assert image.shape == (75, 100, 1 if name in ONE_CHANNEL else 3), name
        assert image.dtype == torch.float32 and image.isfinite().all(), name
        assert name in ("depth", "object_depth") or (image.min() >= 0 and image.max() <= 1 + 1e-5), name
        assert torch.equal(image, again[name]), name
    assert pipeline.model.get_rgba_image(outputs).shape == (75, 100, 4)
    after = pipeline.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


# ------------------------------------------------------------------ stop and resume


@pytest.mark.seconds(35)
def test_a_stopped_run_resumes_to_the_same_end(terminal: Terminal, demo_capture: Path, monkeypatch, capsys) -> None:
    """Against a run that was not stopped; on one thread, where sums have one order."""
    from nerfstudio.utils.eval_utils import eval_setup

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    total = 60
    options = (*TINY, "--max-num-iterations", str(total))

    sent: list[str] = []

    def stop(line: str, process: subprocess.Popen) -> None:
        found = STEP.match(line)
        # After the masks were replaced for the first time. Once: a second signal would end it at once.
        if found and int(found[1]) >= 0.4 * total and not sent:
            sent.append(line)
            process.send_signal(signal.SIGINT)

    with ThreadPoolExecutor() as beside:
        not_stopped = beside.submit(terminal.train, "surface-sos-lite", demo_capture, "whole", *options)
        stopped, output = terminal.train(
            "surface-sos-lite", demo_capture, "stopped", *options, status=130, on_line=stop
        )
    whole, _ = not_stopped.result()
    assert "Stopped by SIGINT, saved after" in output and "Resume with: ns-train surface-sos-lite" in output
    (saved,) = (stopped / "nerfstudio_models").iterdir()
    step = int(saved.stem.removeprefix("step-"))
    assert 0.4 * total <= step < total - 1, "stopped before the end"

    # Its total comes from the checkpoint, not from the preset.
    load = ("--load-dir", stopped / "nerfstudio_models")
    resumed, output = terminal.train("surface-sos-lite", demo_capture, "resumed", *TINY, *load)
    assert f"Continuing at step {step + 1} of {total}." in output
    assert "finding the object" not in output and "voting" not in output
    for name in ("object_prior.npz", "object_prior.fingerprint", "own_masks_1.npz"):
        assert (resumed / name).read_bytes() == (stopped / name).read_bytes()
    (last,) = (resumed / "nerfstudio_models").iterdir()
    assert last.name == f"step-{total - 1:09d}.ckpt"
    ends = [torch.load(run / "nerfstudio_models" / last.name, weights_only=True) for run in (whole, resumed)]
    assert [end["step"] for end in ends] == [total - 1] * 2
    for name, value in ends[0]["pipeline"].items():
        assert torch.equal(value, ends[1]["pipeline"][name]), name
    assert ends[0]["schedulers"] == ends[1]["schedulers"]

    # A crash of the machine may leave a newer file that is cut off.
    cut = last.with_name("step-000000999.ckpt")
    cut.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    capsys.readouterr()
    _, _, taken, step = eval_setup(resumed / "config.yml")
    said = " ".join(capsys.readouterr().out.split())
    assert "Skipping a checkpoint" in said and cut.name in said
    assert (taken.name, step) == (last.name, total - 1)


# ------------------------------------------------------------------ other captures, other presets


def last_state(run: Path, steps: int) -> dict[str, torch.Tensor]:
    return torch.load(run / "nerfstudio_models" / f"step-{steps - 1:09d}.ckpt", weights_only=True)["pipeline"]


@pytest.mark.seconds(30)
def test_without_masks_it_looks_for_the_object_itself(terminal: Terminal, demo_capture: Path, tmp_path: Path) -> None:
    capture = tmp_path / "capture"
    shutil.copytree(demo_capture, capture)
    keep_half_of_the_training_photos(capture)
    before = sorted(capture.rglob("*"))
    options = (*TINY, "--max-num-iterations", "20", "--pipeline.datamanager.dataparser.coarse-masks", "none")
    run, output = terminal.train("surface-sos-lite", capture, "unmasked", *options)
    for words in ("no coarse masks", "no masks: looking for the object", "training the head"):
        assert words in output
    assert all(value.isfinite().all() for value in last_state(run, 20).values())
    assert sorted(capture.rglob("*")) == before, "training writes nothing into the capture"


@pytest.mark.seconds(14)
def test_the_papers_preset_trains(terminal: Terminal, demo_capture: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = terminal.train("surface-sos-paper", demo_capture, "paper", *TINY, "--max-num-iterations", "12")
    assert all(value.isfinite().all() for value in last_state(run, 12).values())
    events = EventAccumulator(str(run))
    events.Reload()
    losses = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"] if "Loss" in tag}
    assert any("colour" in tag for tag in losses) and any("eikonal" in tag for tag in losses)
    assert all(np.isfinite(values).all() for values in losses.values()), losses
    assert len(losses["Train Loss"]) == 12 > len(losses["Train Loss Dict/mask"]) > 0, "masks at the start only"


# ------------------------------------------------------------------ truth for some photos only


class Scored(nn.Module):
    """Stands for the model: what each photo would score."""

    def __init__(self, scores: list[dict[str, float]]) -> None:
        super().__init__()
        self.scores = scores

    def get_outputs_for_camera(self, camera: Any) -> dict[str, torch.Tensor]:
        return {"rgb": torch.zeros(4, 6, 3)}

    def get_image_metrics_and_images(self, outputs: dict, batch: dict) -> tuple[dict[str, float], dict]:
        return dict(self.scores[batch["image_idx"]]), {}

    @staticmethod
    def fitting_appearance() -> nullcontext[None]:
        return nullcontext()


class Loader(list):
    """Three cameras with their batches."""

    def __init__(self, count: int) -> None:
        camera = SimpleNamespace(height=torch.tensor([[4]]), width=torch.tensor([[6]]))
        super().__init__((camera, {"image_idx": index}) for index in range(count))


@pytest.mark.parametrize("first_has_truth", [True, False])
def test_figures_are_averaged_over_the_photos_that_have_truth(first_has_truth: bool) -> None:
    from surface_sos_ns.plugin.pipeline import SurfaceSOSPipeline

    with_truth = [{"psnr": 20.0, "mask_iou": 0.5}, {"psnr": 22.0, "mask_iou": 0.7, "clean_plate_psnr": 30.0}]
    without = [{"psnr": 27.0}, {"psnr": 31.0, "mask_iou": 0.9, "clean_plate_psnr": float("nan")}]
    scores = with_truth + without if first_has_truth else without + with_truth
    pipeline = SurfaceSOSPipeline.__new__(SurfaceSOSPipeline)
    nn.Module.__init__(pipeline)
    pipeline._model = Scored(scores)
    found = pipeline.get_average_image_metrics(Loader(4), "eval_image", get_std=True)
    assert found["psnr"] == pytest.approx(25.0)
    assert found["mask_iou"] == pytest.approx(0.7) and found["mask_iou_std"] == pytest.approx(0.2)
    assert found["clean_plate_psnr"] == pytest.approx(30.0) and found["clean_plate_psnr_std"] == 0.0
    # The wrapper is gone: later calls get the whole of it again.
    assert pipeline.model.get_image_metrics_and_images({}, {"image_idx": 0})[0] == scores[0]


# ------------------------------------------------------------------ no network; last: it looks at all of the above


def test_none_of_the_commands_asked_for_the_network(terminal: Terminal, figures: dict, renders: Path) -> None:
    assert not terminal.network_log.exists(), terminal.network_log.read_text()
    assert not [path for path in (terminal.folder / "weights").rglob("*") if path.is_file()], "nothing was downloaded"
    # And it would have been noticed.
    probe = "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://example.org')"
    ended = subprocess.run(
        [sys.executable, "-c", probe], env=terminal.environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0 and "there is no network in this test" in ended.stderr
    assert "example.org" in terminal.network_log.read_text()
