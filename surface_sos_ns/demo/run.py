"""`make demo`: capture, training, evaluation, masks of every photo, a video and the run's report.

Training, evaluation and rendering are the user's own commands (ns-train, ns-eval, ns-render), started as such, so that
the demo tests the path that a user's own capture takes.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.demo.capture import capture_settings, is_complete, write_demo_capture
from surface_sos_ns.report.content import Figure
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.extras import require_package
from surface_sos_ns.utils.files import write_text
from surface_sos_ns.utils.image_io import read_image
from surface_sos_ns.utils.pictures import over_checkerboard
from surface_sos_ns.utils.progress import Stage
from surface_sos_ns.utils.user_commands import Finished, run_module, train

COUNT = re.compile(r"(\d+)/(\d+)\s*\(")

RENDERED = ("mask", "foreground", "background")
SHOWN = 12  # photos in the report, those held out among them


class DemoError(UserError):
    """The demo cannot go on; the message says why."""


def _capture_for(output: Path, settings: dict[str, Any]) -> Path:
    """Where the capture is or goes: "capture", or a name of its own where that holds another one."""
    folder = output / "capture"
    if is_complete(folder, settings) or not folder.exists():
        return folder
    digest = "-".join(str(settings[k]) for k in ("views", "width", "height", "seed", "source"))
    return output / f"capture-{digest}"


def _new_run(output: Path) -> Path:
    """A fresh folder run-001, run-002, ..."""
    for number in range(1, 1000):
        folder = output / f"run-{number:03d}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise DemoError(f"{output} already holds 999 runs; remove some or choose another folder.")


def measure_inputs(capture: Path, folder: Path) -> list[Figure]:
    """How good the coarse masks are by themselves, and voted in 3D without training: what training must beat.

    Args:
        capture: its folder.
        folder: for the scores; made where it is not there.
    """
    from surface_sos_ns.bench.quality.runner import score

    folder.mkdir(parents=True, exist_ok=True)
    scores = score("inputs", {"capture": str(capture), "options": [], "folder": str(folder)}, folder)

    def held_out(row: str) -> str:
        return f"{np.mean([view['mask_iou'] for view in scores[row]['views'] if view['held_out']]):.4f}"

    return [
        Figure("coarse masks: mask IoU", held_out("coarse masks"), "the input, on the same views"),
        Figure("coarse masks voted in 3D: mask IoU", held_out("voted hull"), "no training; what training has to beat"),
    ]


def write_mask_video(capture: Path, renders: Path, path: Path, scale: int = 2, frames_per_second: int = 8) -> Path:
    """An H.264 video over all photos in order: photo, mask, object over a checkerboard, clean plate, two by two."""
    from surface_sos_ns.export.video import MP4, write_video

    meta = json.loads((capture / "transforms.json").read_text())
    held = set(meta["test_filenames"])
    names = sorted(frame["file_path"] for frame in meta["frames"])
    pictures = (_four(capture / name, renders / ("test" if name in held else "train"), scale) for name in names)
    write_video(path, pictures, frames_per_second, MP4)
    return path


def _four(photo: Path, renders: Path, scale: int) -> np.ndarray:
    """(H, W, 3) uint8: a photo and what was rendered of it, two by two."""
    import cv2

    shown = {kind: read_image(renders / kind / f"{photo.stem}.png") for kind in RENDERED}
    alpha = shown["mask"][..., 0].astype(np.float32) / 255
    above = np.concatenate([read_image(photo), shown["mask"]], axis=1)
    below = np.concatenate([over_checkerboard(shown["foreground"], alpha), shown["background"]], axis=1)
    return cv2.resize(np.concatenate([above, below]), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def evaluate(config: Path, run: Path) -> tuple[Path, Finished]:
    """ns-eval; returns the file of its figures."""
    result = run / "metrics.json"
    arguments = ["nerfstudio.scripts.eval", "--load-config", str(config), "--output-path", str(result)]
    with Stage("Measuring on the held-out views", 1.0) as stage:

        def on_line(line: str) -> None:
            found = COUNT.search(line)
            if found and int(found.group(2)):
                stage.reach(int(found.group(1)) / int(found.group(2)))

        done = run_module(arguments, run / "eval.log", on_line)
    return result, done


def render(config: Path, run: Path, views: int) -> tuple[Path, Finished]:
    """ns-render dataset: masks, foregrounds, clean plates ... of every photo; returns the folder."""
    renders = run / "renders"
    arguments = ["nerfstudio.scripts.render", "dataset", "--load-config", str(config), "--output-path", str(renders)]
    arguments += ["--split", "train+test", "--image-format", "png", "--rendered-output-names", *RENDERED]
    with Stage("Rendering masks and clean plates of every photo", float(views)) as stage:

        def on_tick() -> None:
            # Progress is counted in files: nerfstudio's own bar is not drawn where the output is no terminal.
            stage.reach(sum(1 for _ in renders.glob("*/mask/*.png")))

        done = run_module(arguments, run / "render.log", on_tick=on_tick)
    return renders, done


def show_table(figures: Sequence[Figure], title: str) -> None:
    """Prints the measured figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("measured")
    table.add_column("value", justify="right", style="bold")
    table.add_column("how", style="dim")
    for figure in figures:
        table.add_row(figure.name, figure.value, figure.note)
    Console().print(table)


def run_demo(
    output: Path,
    method: str,
    iterations: int | None,
    views: int,
    width: int,
    height: int,
    seed: int,
) -> Path:
    """The whole demo; returns the path of its report, which is also the last line printed.

    The capture is rendered once; every run gets a new folder run-001, run-002, ... beside it.

    Args:
        output: folder for everything the demo makes.
        method: the method to train.
        iterations: training steps; fewer than the method's default suffice for pictures as small as these. None: that
            default.
        views, width, height, seed: the demo capture, see `write_demo_capture`.

    Raises:
        CommandFailed: a step failed; the message names its log.
        DemoError: there is no room for another run in the folder.
        MissingPackageError: embreex or pymatting is not installed.
    """
    require_package("pymatting", "surface-sos demo")
    output = Path(output)
    started = time.monotonic()
    settings = capture_settings(views, width, height, seed, 1.0)
    capture = _capture_for(output, settings)
    if is_complete(capture, settings):
        _say(f"1/5 Capture: {capture} is already there.")
    else:
        _say(f"1/5 Capture: {views} photos with truth, rendered into {capture}")
    write_demo_capture(capture, views, width, height, seed)
    run = _new_run(output)
    _say(f"2/5 Training: ns-train {method}, results in {run}")
    steps = () if iterations is None else ("--max-num-iterations", str(iterations))
    config, trained = train(method, capture, run, "demo", seed, steps)
    _say("3/5 Evaluation: ns-eval")
    metrics, evaluated = evaluate(config, run)
    _say("4/5 Export: ns-render dataset")
    renders, rendered = render(config, run, views)
    _say("5/5 Figures, video and report")
    held = json.loads((capture / "transforms.json").read_text())["test_filenames"]
    figures = measure_inputs(capture, run / "inputs")
    figures.append(Figure("training time", f"{trained.seconds:.0f} s", "ns-train from start to end, set-up included"))
    if trained.peak_gb is not None:
        figures.append(Figure("peak memory of ns-train", f"{trained.peak_gb:.2f} GB", "of the process"))
    figures.append(Figure("evaluation and rendering", f"{evaluated.seconds:.0f} s + {rendered.seconds:.0f} s", ""))
    # Imported here: they bring torch, which nothing before needs in this process.
    from surface_sos_ns.api import load_run
    from surface_sos_ns.report.collect import collect
    from surface_sos_ns.report.page import page

    video = write_mask_video(capture, renders, run / "masks.mp4")
    content = collect(
        load_run(config),
        SHOWN,
        metrics,
        title="Surface-SOS: an object out of photos, and photos without it",
        figures=figures,
        video=video,
    )
    whole = Figure("the whole demo", f"{time.monotonic() - started:.0f} s", "this report included")
    content = replace(content, figures=[*content.figures, whole])
    report = run / "report.html"
    write_text(report, page(content))
    show_table(content.figures, f"Surface-SOS demo ({width} x {height}, {len(held)} held-out views)")
    print(f"Masks of every photo: {renders}/{{train,test}}/mask")
    print(report.resolve())
    return report
