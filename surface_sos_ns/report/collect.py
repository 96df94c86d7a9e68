"""What goes into a report, from a trained run."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import json
import math
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.configs.method_configs import all_methods

from surface_sos_ns.api import MeshError, Run, View, read_config
from surface_sos_ns.capture.identity_files import resized_identities
from surface_sos_ns.capture.object_prior import ObjectPrior
from surface_sos_ns.plugin.dataset import SurfaceSOSDataset
from surface_sos_ns.plugin.evaluation import scoring_views
from surface_sos_ns.plugin.loss_log import LOSS_FILE, LossRecord, read_losses
from surface_sos_ns.plugin.outputs import OBJECT_IDENTITIES
from surface_sos_ns.plugin.prior_file import PRIOR_FILE, read_prior
from surface_sos_ns.report.content import Compared, Content, Figure, Setting, ViewReport, repair_map, repairs
from surface_sos_ns.report.curves import curves_of
from surface_sos_ns.report.error import ReportError
from surface_sos_ns.report.objects import objects_report
from surface_sos_ns.report.parts import over_photo, parts_report
from surface_sos_ns.report.turntable import Turntable, turntable
from surface_sos_ns.report.views import chosen_views, small_camera
from surface_sos_ns.utils.cutouts import cutout_of_photo
from surface_sos_ns.utils.extras import missing_package
from surface_sos_ns.utils.image_io import resized
from surface_sos_ns.utils.metrics import THRESHOLD
from surface_sos_ns.utils.overlap import intersection_over_union
from surface_sos_ns.utils.pictures import eight_bit, error_map, tinted
from surface_sos_ns.utils.progress import Stage, duration

__all__ = ["METRICS", "collect", "settings_of"]

MAX_SIDE = 480  # pixels along the longer side of a picture
MAX_SIDE_MEASURED = 240  # the same of views that are measured and not shown
MESH_CELLS = 128  # per axis; the pictures of the turntable show no finer ones
MESH_CELLS_EACH = 80  # the same of the cube about each of several objects
FOUND, COARSE = (0, 190, 130), (170, 90, 230)  # colours of the masks, RGB

METRICS = (
    ("mask_iou", "mask IoU", "{:.4f}", "object pixels, threshold 0.5, mean over views"),
    ("mask_iou_bg", "mask IoU of the background", "{:.4f}", ""),
    ("mask_miou", "mean of the two", "{:.4f}", ""),
    ("mask_acc", "pixel accuracy", "{:.4f}", ""),
    ("mask_sad", "SAD", "{:.4f}", "sum of absolute matte differences / 1000"),
    ("mask_mse", "MSE of the matte", "{:.5f}", ""),
    ("mask_ari", "adjusted Rand index", "{:.4f}", ""),
    ("parts_nmi", "parts: NMI", "{:.4f}", "of the pixels that have a part in both, mean over views"),
    ("parts_ari", "parts: adjusted Rand index", "{:.4f}", ""),
    ("parts_share", "parts: share of the true ones' pixels with a found one", "{:.4f}", ""),
    ("clean_plate_psnr", "clean plate PSNR", "{:.2f} dB", "inside the object's region, against the true empty scene"),
    ("psnr", "photo PSNR", "{:.2f} dB", "at the training photos' mean exposure and light"),
    ("ssim", "photo SSIM", "{:.4f}", ""),
    ("psnr_fitted", "photo PSNR, fitted", "{:.2f} dB", "right half, appearance fitted to the photo's left half"),
    ("ssim_fitted", "photo SSIM, fitted", "{:.4f}", ""),
)


def collect(
    run: Run,
    views: int | Literal["all"] = 24,
    metrics: Path | None = None,
    *,
    title: str | None = None,
    figures: Sequence[Figure] = (),
    video: Path | None = None,
) -> Content:
    """Renders, measures and reads all that a report shows; a bar says how far it is.

    Args:
        run: the run.
        views: how many photos are shown; all are measured.
        metrics: what ns-eval wrote; None: metrics.json in the run's folder, where it is there.
        title: the heading; None: the capture's name.
        figures: that are known besides.
        video: an MP4 to show.

    Raises:
        ReportError: `metrics` is not what ns-eval wrote about this run.
        UserError: another file in the run's folder is damaged.
        ImageError: a photo or a mask cannot be read.
    """
    folder = run.config.parent
    trainer = read_config(run.config)
    beside = folder / "metrics.json"
    measured = _evaluated(metrics or beside, run) if metrics or beside.is_file() else []
    records = read_losses(folder / LOSS_FILE)
    prior = read_prior(folder / PRIOR_FILE)
    dataset = scoring_views(run.data).dataset
    reports, masks = _views(run, dataset, prior, views)
    losses = curves_of([(record.step, _with_sum(record.losses)) for record in records], log=True)
    steps = trainer.max_num_iterations
    why_none = f"No {LOSS_FILE} in {folder}: the file was moved."
    return Content(
        title=title or run.capture.resolve().name,
        method=str(trainer.method_name),
        date=datetime.date.today().isoformat(),
        sentences=_sentences(reports, masks, run.objects) + _remarks(prior),
        views=reports,
        masks=masks,
        confidence=None if prior is None else prior.confidence,
        losses=losses or why_none,
        measures=curves_of([(record.step, record.metrics) for record in records], log=False),
        last_step=max(steps - 1, 1),
        mesh=_mesh(run),
        figures=[*_summary(run, reports, masks, records, steps), *figures, *measured],
        settings=settings_of(trainer, all_methods.get(str(trainer.method_name))),
        versions=_versions(run),
        video=None if video is None else video.read_bytes(),
        parts=parts_report(run, dataset, MAX_SIDE),
        objects=objects_report(run, dataset, prior, reports, MAX_SIDE_MEASURED),
    )


# ------------------------------------------------------------------ views


def _views(
    run: Run, dataset: SurfaceSOSDataset, prior: ObjectPrior | None, wanted: int | Literal["all"]
) -> tuple[list[ViewReport], Compared]:
    """All views, and what their masks are compared with."""
    truths = dataset.metadata.get("gt_mask_filenames") or [None] * len(run.views)
    guesses = _guesses(run, prior)
    with_truth = [view.index for view in run.views if truths[view.index] is not None]
    held_out = [index for index in with_truth if run.views[index].held_out]
    shown = set(chosen_views(len(run.views), wanted, held_out or with_truth))
    reports = []
    # Time of rendering all outputs of a view, in units of that of its matte; for the progress bar alone.
    whole = 10.0
    total = sum(whole if view.index in shown else 1.0 for view in run.views)
    with Stage(f"Rendering {len(shown)} of {len(run.views)} views, and the mattes of the others", total) as stage:
        for view in run.views:
            coarse = guesses[view.index] if guesses is not None else dataset.get_coarse_mask(view.index)
            coarse = coarse if run.model.uses_masks else None
            truth = dataset.get_data(view.index) if view.index in shown and truths[view.index] is not None else {}
            reports.append(_view(run, view, coarse, truth, view.index in shown))
            stage.advance(whole if view.index in shown else 1.0)
    if not run.model.uses_masks:
        return reports, "nothing"
    return reports, "coarse mask" if guesses is None else "first guess"


def _guesses(run: Run, prior: ObjectPrior | None) -> list[np.ndarray | None] | None:
    """Per view the mask (H, W) that training started from where it had to find one itself; None where it had some."""
    if prior is None or prior.masks_given:
        return None
    masks = iter(prior.masks)
    return [None if view.held_out else next(masks, None) for view in run.views]


def _view(run: Run, view: View, coarse: np.ndarray | None, truth: dict[str, Any], shown: bool) -> ViewReport:
    camera = small_camera(run, view, MAX_SIDE if shown else MAX_SIDE_MEASURED)
    width, height = int(camera.width[0]), int(camera.height[0])
    names = ["alpha", *([OBJECT_IDENTITIES] if run.objects else [])]
    if shown:
        names += ["rgb", "foreground", "background", "overlay", "depth", "accumulation"]
        names += [name for name in ("normals", "shadow") if name in run.outputs]
    images = run.model.images(camera, names)
    alpha = images["alpha"][..., 0].cpu().numpy()
    found = alpha > THRESHOLD
    given = None if coarse is None else resized(coarse, width, height)
    usable = given is not None and bool((given >= THRESHOLD).any())
    at_edge = bool(found[[0, -1]].any() or found[:, [0, -1]].any())
    report = ViewReport(view.name, view.held_out, "missing", float(found.mean()), at_edge=at_edge)
    if run.objects:
        identities = images[OBJECT_IDENTITIES][..., 0].cpu().numpy().astype(np.uint8)
        report = dataclasses.replace(report, identities=identities)
    if given is not None:
        report = dataclasses.replace(report, given="given" if usable else "empty")
    rough = np.zeros_like(found) if given is None else given >= THRESHOLD
    if usable:
        added, removed = (float(pixels.mean()) for pixels in repairs(found, rough))
        agreement = intersection_over_union(found, rough)
        report = dataclasses.replace(report, agreement=agreement, added=added, removed=removed)
    if not shown:
        return report
    photo = resized(run.photo(view, size="training"), width, height)
    cutout = cutout_of_photo(photo / np.float32(255), alpha)
    pictures = {
        "photo": photo,
        "mask": tinted(photo, alpha, FOUND)
        if report.identities is None
        else over_photo(photo, report.identities, len(run.objects)),
        "cutout": np.rint(cutout.clip(0, 1) * 255).astype(np.uint8),
        "repair": repair_map(photo, found, rough),
    }
    if "shadow" in images:  # the background is completed behind the object
        pictures["plate"] = eight_bit(images["background"].cpu())
    if "normals" in images:
        pictures["normals"] = eight_bit(images["normals"].cpu())
    if usable and given is not None:
        pictures["coarse"] = tinted(photo, given, COARSE)
    metrics: dict[str, float] = {}
    if "gt_mask" in truth:
        batch: dict[str, torch.Tensor] = {
            name: torch.from_numpy(_fitted(truth[name], width, height))
            for name in ("image", "gt_mask", "clean_plate")
            if name in truth
        }
        if run.objects and "gt_objects" in truth:
            true = resized_identities(truth["gt_objects"][..., 0].numpy(), width, height)
            batch["gt_objects"] = torch.from_numpy(np.ascontiguousarray(true))[..., None]
        metrics, _ = run.model.get_image_metrics_and_images(images, batch)
        metrics = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        pictures["error"] = error_map(found, batch["gt_mask"][..., 0].numpy() > THRESHOLD)
    return dataclasses.replace(report, pictures=pictures, metrics=metrics)


def _fitted(image: torch.Tensor, width: int, height: int) -> np.ndarray:
    """An image (H, W, C) at another size, its channels kept."""
    small = resized(image.numpy(), width, height)
    return np.ascontiguousarray(small[..., None] if small.ndim == 2 else small)


# ------------------------------------------------------------------ words and figures


def _remarks(prior: ObjectPrior | None) -> list[str]:
    """What was decided before training about errors that many masks share, in sentences."""
    if prior is None:
        return []
    return [f"{remark[0].upper()}{remark[1:]}." for remark in prior.remarks]


def _sentences(views: Sequence[ViewReport], masks: str, objects: Sequence[str] = ()) -> list[str]:
    found = sum(view.found > 0 for view in views)
    everywhere = "all" if found == len(views) else str(found)
    whose = f"{len(objects)} objects ({', '.join(objects)}) were" if objects else "The object was"
    said = [f"{whose} found in {everywhere} of {len(views)} photos."]
    agreements = [view.agreement for view in views if view.agreement is not None]
    if agreements:
        rough = "coarse masks" if masks == "coarse mask" else "first guesses from the geometry of the capture"
        said.append(f"The masks agree with the {rough} at a mean IoU of {np.mean(agreements):.3f}.")
    filled = sum(view.agreement is None and not (masks == "first guess" and view.held_out) for view in views)
    if filled and agreements:
        said.append(f"{filled} photo{'s' if filled > 1 else ''} without a usable one got theirs from the others.")
    scores = [view.metrics["mask_iou"] for view in views if view.held_out and "mask_iou" in view.metrics]
    if scores:
        over = ", over photos and objects," if objects else ""
        said.append(
            f"On {len(scores)} photos that training never saw they reach a mean IoU of {np.mean(scores):.3f}{over} "
            "against the truth."
        )
    return said


def _summary(
    run: Run, views: Sequence[ViewReport], masks: str, records: Sequence[LossRecord], steps: int
) -> list[Figure]:
    """The capture and the training in figures."""
    held = sum(view.held_out for view in run.views)
    sizes = sorted({view.size for view in run.views})
    original = ", ".join(f"{width} x {height}" for width, height in sizes[:3]) + (" ..." if len(sizes) > 3 else "")
    used = "" if run.factor == 1 else f"training used them {run.factor} times smaller"
    done = int(run.checkpoint.stem.removeprefix("step-")) + 1
    figures = [
        Figure("photos", str(len(run.views)), f"{len(run.views) - held} trained on, {held} held out"),
        Figure("size of the photos", original, used),
        Figure("photos with a coarse mask", *_masks(views, masks)),
        Figure("training steps", f"{done}", "all" if done >= steps else f"of {steps}: not finished"),
    ]
    if records:
        last = records[-1]
        figures.append(Figure("training", duration(last.seconds), "its steps alone, without the set-up"))
        if last.memory_gb is not None:
            figures.append(
                Figure("peak memory of training", f"{last.memory_gb:.2f} GB", "of the GPU, where it had one")
            )
    return figures


def _masks(views: Sequence[ViewReport], masks: str) -> tuple[str, str]:
    if masks == "nothing":
        return "none", "the method looks at none"
    if masks == "first guess":
        return "none", "the object was looked for in the geometry of the capture"
    empty = sum(view.given == "empty" for view in views)
    return str(sum(view.given == "given" for view in views)), f"and {empty} with an empty one" if empty else ""


def _evaluated(path: Path, run: Run) -> list[Figure]:
    """The figures of a file that ns-eval wrote."""
    try:
        content = json.loads(path.read_bytes())
        results, checkpoint = content["results"], Path(content["checkpoint"])
        if not isinstance(results, dict):
            raise TypeError("its results are no object")
        about = checkpoint.parent.resolve()
        figures = [
            Figure(f"ns-eval: {name}", form.format(results[key]), note)
            for key, name, form, note in [*METRICS, *_object_metrics(run)]
            if key in results
        ]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ReportError(
            f"{path} is not what ns-eval writes ({type(error).__name__}: {error}). Run ns-eval again, or give another "
            "file with --metrics."
        ) from error
    if about != run.checkpoint.parent.resolve():
        raise ReportError(f"{path} is about another run, {checkpoint.parent.parent}; give this run's with --metrics.")
    return figures


def _object_metrics(run: Run) -> list[tuple[str, str, str, str]]:
    """As `METRICS`, those of several objects."""
    if not run.objects:
        return []
    each = [(f"mask_iou_{name}", f"mask IoU of {name}", "{:.4f}", "") for name in run.objects]
    all_of_them = ("mask_iou_all", "mask IoU of all objects together", "{:.4f}", "")
    wrong = ("mask_wrong_identity", "wrong identity", "{:.2%}", "of the pixels of an object in masks and truth")
    return [*each, all_of_them, wrong]


def _with_sum(losses: dict[str, float]) -> dict[str, float]:
    return {"all together": sum(losses.values()), **losses}


def _mesh(run: Run) -> Turntable | str:
    problem = missing_package("embreex", "A report with pictures of the mesh")
    if problem is not None:
        return problem
    try:
        with Stage("Taking the mesh, and turning it", 1.0):
            cells = MESH_CELLS_EACH if run.objects else MESH_CELLS
            return turntable(run.mesh(resolution=cells), np.linalg.inv(run.capture_to_world)[:3, 2])
    except MeshError as error:
        return f"No mesh: {error}."


def settings_of(config: Any, default: Any) -> list[Setting]:
    """Every option of a configuration beside the default of its method, those that differ first."""
    known = {} if default is None else dict(_options(default))
    settings = [Setting(name, value, known.get(name)) for name, value in _options(config)]
    return sorted(settings, key=lambda setting: setting.value == setting.default)


def _options(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and values as text of a configuration: dataclasses and dictionaries in one another."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        parts = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    else:
        parts = config
    for name, value in parts.items():
        if str(name).startswith("_"):
            continue
        here = f"{prefix}{str(name).replace('_', '-')}"
        nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
        if nested or (isinstance(value, dict) and value):
            yield from _options(value, f"{here}.")
        elif isinstance(value, type) or inspect.isroutine(value):  # as text they have addresses, others each time
            yield here, f"{value.__module__}.{value.__qualname__}"
        else:
            yield here, str(value)


def _versions(run: Run) -> list[Figure]:
    """Of what wrote the page."""
    return [
        Figure("surface_sos_ns", version("surface-sos-ns")),
        Figure("nerfstudio", version("nerfstudio")),
        Figure("PyTorch", torch.__version__),
        Figure("Python", platform.python_version()),
        Figure("system", platform.platform()),
        Figure("device and back-ends", f"{run.model.device} | {run.model.describe()}"),
        Figure("checkpoint", str(run.checkpoint)),
    ]
