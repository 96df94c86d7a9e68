"""`surface-sos masks --method click --load-config CONFIG`: clicks correct a run's masks; then the run is continued."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from surface_sos_ns.api import Run, load_run, read_config
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.masks.click import Click
from surface_sos_ns.masks.click_result import ResultSession, certainty
from surface_sos_ns.masks.contact_sheet import contact_sheet
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos
from surface_sos_ns.masks.summary import about
from surface_sos_ns.masks.write import capture_to_write, say_written, write_masks
from surface_sos_ns.plugin.cameras import views_from_cameras
from surface_sos_ns.plugin.checkpoints import read_total_steps
from surface_sos_ns.plugin.command_line import changed_options
from surface_sos_ns.plugin.photos_for_masks import Scene, read_scene
from surface_sos_ns.plugin.prior_file import PRIOR_FILE, read_prior
from surface_sos_ns.utils.image_io import resized
from surface_sos_ns.utils.progress import Stage

__all__ = ["correct_result", "next_command"]

LONGEST_SIDE = 320
"""Pixels of the rendered mattes and depths: corrections are carried over at this size."""
MORE_STEPS = 0.25
"""Additional steps of a corrected run, as a share of those that it has had."""
MOST_BEYOND = 0.2
"""Share of what was added that may lie outside the run's object sphere: outlines do, by their error."""
RUN_ONLY = (
    *("data", "output_dir", "experiment_name", "timestamp", "project_name", "prompt", "vis", "machine", "viewer"),
    *("load_dir", "load_step", "load_checkpoint", "load_config", "max_num_iterations", "optimizers"),
    *("pipeline.datamanager.data", "pipeline.datamanager.dataparser.data", "pipeline.model.total_steps"),
    "pipeline.datamanager.dataparser.coarse_masks",
)
"""Settings that are not taken over by a run that goes on from another one."""


def correct_result(
    config: Path, provider: Click, data: Path | None, overwrite: bool, say: Callable[[str], None]
) -> None:
    """Shows a run's mattes, takes clicks, and writes the corrected masks as the capture's coarse masks.

    Args:
        config: the run's config.yml.
        provider: serves the page.
        data: the capture, where it is no longer where training found it.
        overwrite: whether coarse masks that the capture has may be moved away.
        say: prints a line.

    Raises:
        UserError: the run or its capture cannot be used, there are masks already, or nothing was corrected.
    """
    provider.check()
    run = load_run(config, data)
    if run.objects:
        raise MaskError(
            f"{config} has several objects ({', '.join(run.objects)}); results with one object can be corrected so "
            "far. Make new masks: surface-sos masks --method click --names ..."
        )
    with capture_to_write(run.source, overwrite, say) as source:
        scene = read_scene(source)
        found, beyond = _clicked(run, scene, provider, say)
        for remark in found.remarks:
            say(remark)
        known = about(scene.file_paths, provider, {"load_config": run.config.resolve()}, found, None, False)
        sheet = contact_sheet(scene.photos, found.masks)
        written = write_masks(source, scene.file_paths, found.masks, scene.photos.sizes, known, sheet, overwrite)
    say_written(written, source, say)
    anew = beyond > MOST_BEYOND
    if anew:
        say(
            f"{beyond:.0%} of what was added lies outside the sphere in which this run looked for the object, so it "
            "cannot be gone on with: a new run finds a larger one."
        )
    say(f"Next: {next_command(run, run.capture if data is None else data, anew)}")


def next_command(run: Run, data: Path, anew: bool = False) -> str:
    """The command line that goes on from a run with other masks, for a quarter of its length; or starts one anew."""
    from nerfstudio.configs.method_configs import all_methods

    trainer = read_config(run.config)
    done = read_total_steps(run.checkpoint) or int(run.checkpoint.stem.rpartition("-")[2]) + 1
    total = done + 50 * math.ceil(MORE_STEPS * done / 50)
    options = changed_options(trainer, all_methods[str(trainer.method_name)], RUN_ONLY)
    command = ["ns-train", str(trainer.method_name), "--data", str(data)]
    if not anew:
        command += ["--load-dir", str(run.checkpoint.parent), "--max-num-iterations", str(total)]
    return shlex.join([*command, *options])


def _clicked(run: Run, scene: Scene, provider: Click, say: Callable[[str], None]) -> tuple[CoarseMasks, float]:
    """The corrected masks, in the order of the scene; and the share of what was added beyond the object sphere."""
    place = {view.path.resolve(): view.index for view in run.views}
    indices = [place[Path(file).resolve()] for file in scene.photos.files]
    views = views_from_cameras(run.cameras).subset(indices)
    views = views.scaled(min(1.0, LONGEST_SIDE / float(max(views.width.max(), views.height.max()))))
    mattes, depths = [], []
    with Stage(f"Rendering {len(indices)} photos", len(indices)) as stage:
        for index, (width, height) in zip(indices, views.sizes(), strict=True):
            camera = run.camera(index)
            camera.rescale_output_resolution(width / int(camera.width[0]), "round")
            images = run.model.images(camera, ["alpha", "depth"], smooth_edges=False)
            mattes.append(resized(images["alpha"][..., 0].cpu().numpy(), width, height))
            depths.append(resized(images["depth"][..., 0].cpu().numpy(), width, height))
            stage.advance(1)
    given = _given_masks(run)
    sure = [
        certainty(matte, None if given.get(index) is None else resized(given[index], *matte.shape[::-1]))
        for index, matte in zip(indices, mattes, strict=True)
    ]
    order = np.argsort(sure, kind="stable").tolist()
    photos = _in_order(scene.photos, order)
    shown = [resized(mattes[i], *image.shape[1::-1]) for i, image in zip(order, photos.images, strict=True)]
    session = ResultSession(photos, shown, views.subset(order), [depths[i] for i in order])
    found = provider.serve(session, "click what is wrong in a few photos, then press Done there", say)
    masks: list[np.ndarray | None] = [None] * len(order)
    for mask, index in zip(found.masks, order, strict=True):
        masks[index] = mask
    frame = run.model.scene.frame
    beyond = session.added_beyond(frame.centre.cpu().numpy(), float(frame.radius))
    return dataclasses.replace(found, masks=masks), beyond


def _given_masks(run: Run) -> dict[int, np.ndarray]:
    """The masks that training started from, by the index of their view, as far as the run keeps them."""
    try:
        prior = read_prior(run.config.parent / PRIOR_FILE)
    except CaptureError:  # a damaged file: the order of the photos is then by their mattes alone
        prior = None
    trained = [view.index for view in run.views if not view.held_out]
    if prior is None or len(prior.masks) != len(trained):
        return {}
    return {index: mask for index, mask in zip(trained, prior.masks, strict=True) if mask is not None}


def _in_order(photos: Photos, order: Sequence[int]) -> Photos:
    """The photos in another order."""
    return dataclasses.replace(
        photos,
        files=[photos.files[i] for i in order],
        images=[photos.images[i] for i in order],
        views=photos.views.subset(list(order)),
        sizes=[photos.sizes[i] for i in order],
    )
