"""Scores a run or its inputs, in a process of its own; of the quality benchmark, only this imports nerfstudio.

Called as `python -m surface_sos_ns.bench.quality.score TASK ARGUMENTS`, the arguments in JSON; see `TASKS`.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import trimesh

from surface_sos_ns.bench.quality.objects import object_counts
from surface_sos_ns.capture.transforms import capture_content, capture_folder, capture_source
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.mesh import MeshError, object_mesh, surface_mesh
from surface_sos_ns.utils.errors import UserError, explanation
from surface_sos_ns.utils.files import write_json
from surface_sos_ns.utils.identity_colours import identity_bytes
from surface_sos_ns.utils.image_io import read_image, resized, write_image
from surface_sos_ns.utils.metrics import THRESHOLD, mask_metrics, mesh_metrics, object_metrics, region_psnr
from surface_sos_ns.utils.pictures import (
    ViewPictures,
    contact_sheet,
    eight_bit,
    error_map,
    over_checkerboard,
    size_within,
)
from surface_sos_ns.utils.text import printable

if TYPE_CHECKING:
    from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig
    from surface_sos_ns.plugin.evaluation import ScoringViews

SCORES = "scores.json"
SHEET = "contact_sheet.jpg"
MESH = "object.ply"
TRUE_MESH = "gt_object.ply"
TRUE_MESHES = "gt_meshes"
"""Folder of the true meshes of several objects, NAME.ply each."""
SHEET_ROWS = 6
TILE = 320  # longer side of a picture of the contact sheet, at most


def check(runs: list[tuple[str, str, list[str]]], features_onnx: str | None = None) -> None:
    """Parses the options of runs (title, method, options) as ns-train does, and opens the network of features.

    Raises:
        UserError: an option is wrong, or the file is no network of patch features.
    """
    from surface_sos_ns.masks.features import FeatureChoice
    from surface_sos_ns.plugin.evaluation import training_config

    for title, method, options in runs:
        try:
            training_config(method, options)
        except UserError as error:
            raise UserError(f"{title}: {error}") from error
    if features_onnx is not None:
        FeatureChoice(onnx=Path(features_onnx)).load()


def score_inputs(capture: str, options: list[str], folder: str, baseline: dict[str, Any] | None = None) -> None:
    """Scores coarse masks and their visual hull against the ground truth.

    Args:
        capture: folder of the capture.
        options: of the data parser.
        folder: for the scores, and for the masks of a baseline.
        baseline: method of `surface-sos masks` that makes the masks, and its options; None: the capture brings some,
            or has none.
    """
    from surface_sos_ns.plugin.evaluation import scoring_views, training_config

    config: Any = training_config("surface-sos-lite", options).pipeline.datamanager
    config.data = config.dataparser.data = Path(capture)
    if baseline is not None:
        config.dataparser.coarse_masks = str(_baseline_masks(config.dataparser, Path(folder) / "masks", **baseline))
        config.check_poses = False  # masks that do not agree are measured as well
    views = scoring_views(config)
    coarse = [
        _place(views, index)
        | _finite(mask_metrics(item["coarse_mask"][..., 0], item["gt_mask"][..., 0]))
        | _coarse_objects(views, index, item)
        for index, item in _items(views)
        # Where a baseline found nothing its mask is empty. The capture's own masks may be of some photos only.
        if "gt_mask" in item and "coarse_mask" in item and (baseline is not None or bool(item["mask_weight"].any()))
    ]
    hull = _scored_hull(config, views, Path(capture), Path(folder))
    write_json(Path(folder) / SCORES, {"coarse masks": {"views": coarse}, "voted hull": hull} | _about(views))


def _coarse_objects(views: ScoringViews, index: int, item: Mapping[str, Any]) -> dict[str, Any]:
    """How well a coarse mask tells several objects apart; nothing where it does not, or there is no truth."""
    found = views.dataset.get_coarse_identities(index)
    if found is None or "gt_objects" not in item:
        return {}
    truth, names = item["gt_objects"][..., 0], views.dataset.object_names
    return _finite(object_metrics(torch.from_numpy(found), truth, names)) | object_counts(found, truth.numpy(), names)


def _baseline_masks(config: SurfaceSOSDataParserConfig, folder: Path, method: str, options: dict[str, Any]) -> Path:
    """Has a method of `surface-sos masks` make masks of all photos; returns the absolute path of their folder.

    Raises:
        UserError: the method cannot be used, or finds the object in no photo.
    """
    from surface_sos_ns.masks.methods import make_provider
    from surface_sos_ns.masks.provider import MaskError
    from surface_sos_ns.masks.write import write_mask_files
    from surface_sos_ns.plugin.photos_for_masks import read_scene

    if "features_onnx" in options:
        options = {"features_onnx": Path(options["features_onnx"])}
    provider = make_provider(method, options)
    provider.check()
    scene = read_scene(config.data, config.object_point, config.object_radius)
    masks = provider.masks(scene.photos, print).masks
    if all(mask is None for mask in masks):
        raise MaskError(f"{method} found the object in no photo.")
    write_mask_files(folder, scene.file_paths, masks, scene.photos.sizes, capture_folder(scene.source))
    return folder.resolve()


def _scored_hull(config: Any, views: ScoringViews, capture: Path, folder: Path) -> dict[str, Any]:
    """Metrics of the hull that training would start from, or why there is none.

    Args:
        config: of the data manager, with the capture in it.
        views: of the capture.
        capture: its folder.
        folder: keeps what takes long to find.
    """
    from surface_sos_ns.capture.hull_projection import project_hull
    from surface_sos_ns.plugin.cameras import views_from_cameras
    from surface_sos_ns.plugin.evaluation import start_of_training

    try:
        prior = start_of_training(config, folder)
    except UserError as error:
        return {"views": [], "no_hull": str(error)}
    cameras = views_from_cameras(views.dataset.cameras)
    found: dict[str, Any] = {"views": []}
    for index, item in _items(views):
        if "gt_mask" not in item:
            continue
        truth = item["gt_mask"][..., 0]
        shown = np.asarray(project_hull(prior.hull, prior.sphere, cameras.subset([index]))[0])
        # The silhouette of the hull (probability 0.5), not its soft projection, which is no matte.
        metrics = mask_metrics(torch.from_numpy(shown > 0.5).to(truth), truth)
        if views.dataset.object_names:
            metrics["mask_iou_all"] = metrics.pop("mask_iou")
        found["views"].append(_place(views, index) | _finite(metrics))
    try:
        mesh = surface_mesh(prior.hull.signed_distance(), ObjectFrame(prior.sphere.centre, prior.sphere.radius))
        found |= _against_true_mesh(mesh, views, capture / TRUE_MESH)
    except MeshError as error:
        found["no_mesh"] = str(error)
    return found


def score_run(config: str, capture: str, folder: str) -> None:
    """Scores a trained run against photos and ground truth; writes a contact sheet, and the mesh in capture frame.

    Args:
        config: config.yml of the run.
        capture: folder of the capture.
        folder: for scores, contact sheet and mesh.
    """
    from surface_sos_ns.api import load_run
    from surface_sos_ns.plugin.evaluation import scoring_views

    run = load_run(config)
    model, views = run.model, scoring_views(run.data)
    shown, plates = set(_chosen(views)), _plates_without(Path(capture))
    rows, pictures = [], []
    for index, item in _items(views):
        outputs = model.get_outputs_for_camera(views.dataset.cameras[index : index + 1].to(model.device))
        with model.fitting_appearance():
            metrics, _ = model.get_image_metrics_and_images(outputs, item)
        rows.append(_place(views, index) | _finite(metrics))
        if "gt_objects" in item and model.object_names:
            rows[-1] |= _scored_objects(model, views, index, outputs, item["gt_objects"][..., 0], plates)
        if index in shown:
            of_objects = ["object_ids"] if model.object_names else []
            coarse = views.dataset.get_coarse_identities(index)
            images = {name: outputs[name].cpu().numpy() for name in ("alpha", "foreground", "background", *of_objects)}
            pictures.append(_pictures(rows[-1]["name"], item, images, coarse))
    figures: dict[str, Any] = {"views": rows}
    write_image(Path(folder) / SHEET, contact_sheet(pictures), quality=92)
    try:
        mesh = object_mesh(model.scene)
        figures |= _against_true_mesh(mesh, views, Path(capture) / TRUE_MESH)
        mesh.export(Path(folder) / MESH)
        figures["meshes"] = _against_true_meshes(model, views, Path(capture))
    except MeshError as error:
        figures["no_mesh"] = str(error)
    write_json(Path(folder) / SCORES, figures | _about(views))


def _plates_without(capture: Path) -> dict[Path, dict[str, Path]]:
    """True pictures without single objects: of each photo, by the name of the removed one. Paths are absolute."""
    content = capture_content(capture_source(capture))
    folder = capture.resolve()
    return {
        folder / frame["file_path"]: {name: folder / path for name, path in frame["plates_without"].items()}
        for frame in content["frames"]
        if frame.get("plates_without")
    }


def _scored_objects(
    model: Any,
    views: ScoringViews,
    index: int,
    outputs: Mapping[str, torch.Tensor],
    truth: torch.Tensor,
    plates: Mapping[Path, Mapping[str, Path]],
) -> dict[str, Any]:
    """`object_counts` of a view, and of each object `without_psnr` in its region where there is a true plate.

    Args:
        truth: (H, W) true identities.
        plates: see `_plates_without`.
    """
    counts = object_counts(outputs["object_ids"][..., 0].cpu().numpy(), truth.cpu().numpy(), model.object_names)
    files = plates.get(views.dataset.image_filenames[index].resolve(), {})
    for identity, name in enumerate(model.object_names, start=1):
        if name in files and name in counts["objects"]:
            plate = torch.from_numpy(resized(read_image(files[name]), *views.dataset.size(index)) / 255).float()
            camera = views.dataset.cameras[index : index + 1].to(model.device)
            psnr = region_psnr(model.without(camera, [name]).cpu(), plate, truth.cpu() == identity)
            counts["objects"][name]["without_psnr"] = psnr
    return counts


def _items(views: ScoringViews) -> Iterable[tuple[int, dict[str, Any]]]:
    """Index and data of each photo, in the order of the dataset."""
    for index in range(len(views.dataset)):
        yield index, views.dataset.get_data(index)


def _place(views: ScoringViews, index: int) -> dict[str, Any]:
    return {"name": views.dataset.image_filenames[index].stem, "held_out": views.held_out[index]}


def _about(views: ScoringViews) -> dict[str, Any]:
    """Size of the first photo as used, and numbers of photos trained on and held out."""
    width, height = views.dataset.size(0)
    held = sum(views.held_out)
    return {"width": width, "height": height, "trained_on": len(views.held_out) - held, "held_out": held}


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that are finite: those of clean plates or outlines are nan if the photo does not show the object."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _chosen(views: ScoringViews) -> list[int]:
    """Indices of photos for the contact sheet: some of the held-out ones, or of all if none is held out."""
    candidates = [index for index, held in enumerate(views.held_out) if held] or list(range(len(views.held_out)))
    places = np.linspace(0, len(candidates) - 1, min(SHEET_ROWS, len(candidates)))
    return [candidates[int(place)] for place in places.round()]


def _pictures(
    name: str, item: dict[str, Any], images: dict[str, np.ndarray], coarse: np.ndarray | None
) -> ViewPictures:
    """A row of the contact sheet; several objects are in their colours.

    Args:
        name: of the view.
        item: its data.
        images: of it by name.
        coarse: (H, W) identities of its coarse mask, where it has some.
    """
    alpha = images["alpha"][..., 0]
    tiles = {
        "photo": eight_bit(item["image"]),
        "mask": eight_bit(alpha),
        "cutout": over_checkerboard(images["foreground"] * 255, alpha),
        "plate": eight_bit(images["background"]),
    }
    given = {"coarse": "coarse_mask", "truth": "gt_mask", "true_plate": "clean_plate"}
    tiles |= {tile: eight_bit(item[key]) for tile, key in given.items() if key in item}
    if "object_ids" in images:
        tiles["mask"] = _coloured(images["object_ids"][..., 0])
        if coarse is not None:
            tiles["coarse"] = _coloured(coarse)
        if "gt_objects" in item:
            tiles["truth"] = _coloured(item["gt_objects"][..., 0].numpy())
    if "gt_mask" in item:
        tiles["error"] = error_map(alpha > THRESHOLD, item["gt_mask"][..., 0].numpy() > THRESHOLD)
    height, width = alpha.shape
    size = size_within(width, height, TILE)
    small = {tile: cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for tile, picture in tiles.items()}
    return ViewPictures(name, small)


def _coloured(identities: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 colours of identities (H, W), black for none."""
    found = identities.astype(np.int64)
    return np.vstack([np.zeros((1, 3), np.uint8), identity_bytes(int(found.max(initial=0)))])[found]


def _against_true_meshes(model: Any, views: ScoringViews, capture: Path) -> dict[str, dict[str, float]]:
    """Metrics of the mesh of each of several objects of which there is a true one, by name; found ones alone."""
    found = {}
    for identity, name in enumerate(model.object_names, start=1):
        path = capture / TRUE_MESHES / f"{name}.ply"
        if path.is_file():
            with contextlib.suppress(MeshError):  # it has no pixels in the other figures either
                mesh = object_mesh(model.scene, identity=identity)
                found[name] = _against_true_mesh(mesh, views, path)["mesh"]
    return found


def _against_true_mesh(mesh: trimesh.Trimesh, views: ScoringViews, path: Path) -> dict[str, Any]:
    """Moves a mesh from the world frame to that of transforms.json; its metrics, if there is a file of a true one."""
    mesh.apply_transform(np.linalg.inv(views.dataset.metadata["capture_to_world"]))
    if not path.is_file():
        return {}
    truth = trimesh.load(path, force="mesh")
    assert isinstance(truth, trimesh.Trimesh)
    return {"mesh": mesh_metrics(mesh, truth)}


TASKS = {"check": check, "inputs": score_inputs, "run": score_run}


def main(arguments: list[str]) -> int:
    """Runs a task. Errors that the user can mend are printed as text, with exit status 1."""
    task, given = arguments
    try:
        TASKS[task](**json.loads(given))  # type: ignore[operator]
    except Exception as error:
        words = explanation(error)
        if words is None:
            raise
        print(printable(words), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
