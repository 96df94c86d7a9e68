"""Parts against the truth, and against what is simpler, all on the same points of the same surface.

Every row has as many parts and the same features. K-means clusters positions, features lifted from the photos, or all
features. Two rows are our own method with concentration alone, and with semantics (and orthonormality) alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from surface_sos_ns.bench.quality.score import TRUE_MESH
from surface_sos_ns.bench.settings import BenchError, Parts
from surface_sos_ns.capture.part_files import PartMesh, read_part_mesh
from surface_sos_ns.models.parts.fit import PartFeatures, fit_parts
from surface_sos_ns.models.parts.lifting import view_weights
from surface_sos_ns.models.surface_sos.heads.parts import PartHead
from surface_sos_ns.parts.find import check_run, describe_run, pieces_of
from surface_sos_ns.plugin.cameras import views_from_cameras
from surface_sos_ns.plugin.evaluation import scoring_views
from surface_sos_ns.training.parts import PartObjective
from surface_sos_ns.utils.part_metrics import labels_at, part_metrics

if TYPE_CHECKING:
    from surface_sos_ns.api import Run, View

MAX_DISTANCE = 0.03
"""Distance from the true surface, object radii, beyond which a point of ours has no true part."""
AGREEMENT_VIEWS = 8
"""Views, evenly chosen, whose pairs are compared."""
AT_ONCE = 4096
"""Rays that are rendered together."""
COLUMNS = {
    "surface_ari": ("ARI surface", "{:.3f}"),
    "surface_nmi": ("NMI surface", "{:.3f}"),
    "pixel_ari": ("ARI pixels", "{:.3f}"),
    "pixel_nmi": ("NMI pixels", "{:.3f}"),
    "agreement": ("views agree", "{:.1%}"),
    "found": ("parts", "{:d}"),
    "pieces": ("pieces", "{}"),
}
"""Heading and format of each figure."""


def run_parts(settings: Parts) -> dict[str, Any]:
    """Figures of all rows.

    Raises:
        BenchError: the capture has no true parts on a mesh.
        UserError: the run cannot be opened, or has no surface.
    """
    from surface_sos_ns.api import load_run
    from surface_sos_ns.masks.features import FeatureChoice

    run = load_run(settings.load_config, settings.data)
    check_run(run)
    truth = _true_mesh(run.capture / TRUE_MESH)
    features = FeatureChoice(settings.features, settings.model, settings.features_onnx)
    data = describe_run(run, features, _say)
    true_labels = _true_labels(run, data, truth)
    rows = {}
    for name, labels, head in _rows(run, data, settings.parts, settings.seed):
        _say(f"{name} ...")
        of_points = part_metrics(labels, true_labels)
        rows[name] = {
            "surface_ari": of_points["parts_ari"],
            "surface_nmi": of_points["parts_nmi"],
            "found": len(np.unique(labels)),
        }
        if head is not None:
            rows[name] |= _of_head(run, head, data)
    share = float((true_labels > 0).mean())
    return {"features": features.load().name, "points_with_truth": share, "rows": rows}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Parts, features: {result['features']} and shape", title_justify="left")
    table.add_column("", no_wrap=True)
    for heading, _ in COLUMNS.values():
        table.add_column(heading, justify="right")
    for name, row in result["rows"].items():
        table.add_row(name, *(form.format(row[key]) if key in row else "" for key, (_, form) in COLUMNS.items()))
    Console().print(table)
    print(
        f"ARI, NMI: 1 is the true division, 0 of ARI that of chance. {result['points_with_truth']:.0%} of the points "
        f"on our surface lie within {MAX_DISTANCE} object radii of the true one and count. Pixels: of held-out views. "
        "Pieces: of each part, by number."
    )


def _rows(run: Run, data: PartFeatures, parts: int, seed: int) -> Iterator[tuple[str, np.ndarray, PartHead | None]]:
    """Name, labels (P,) from 1, and the head where there is one."""
    from sklearn.cluster import KMeans

    ours = PartObjective()
    alone = dict.fromkeys(asdict(ours), 0.0)
    points = torch.as_tensor(data.surface.points)
    for name, objective in (
        ("ours", ours),
        ("concentration alone", PartObjective(**alone | {"concentration": 1.0})),
        ("semantics alone", PartObjective(**alone | {"semantics": 1.0, "orthonormality": ours.orthonormality})),
    ):
        head = fit_parts(run.model.scene, data, parts, objective, seed)
        yield name, head.identities(points).cpu().numpy(), head
    kinds = {"positions": data.surface.points, "lifted features": data.appearance, "all features": data.features}
    for name, values in kinds.items():
        yield f"K-means on {name}", KMeans(parts, n_init=4, random_state=seed).fit_predict(values) + 1, None


def _of_head(run: Run, head: PartHead, data: PartFeatures) -> dict[str, Any]:
    """Figures that need pictures: pixels of held-out views, agreement of views; and pieces."""
    run.model.scene.attach([head])
    found, true = [], []
    scored = scoring_views(run.data)
    names = {path: index for index, path in enumerate(scored.dataset.image_filenames)}
    for view in run.views:
        if view.held_out and view.path in names:
            item = scored.dataset[names[view.path]]
            if "gt_parts" in item:
                found.append(_identities(run, head, view).ravel())
                true.append(item["gt_parts"][..., 0].numpy().ravel())
    figures: dict[str, Any] = {}
    if found:
        of_pixels = part_metrics(np.concatenate(found), np.concatenate(true))
        figures |= {"pixel_ari": of_pixels["parts_ari"], "pixel_nmi": of_pixels["parts_nmi"]}
    pieces = pieces_of(run.model.scene, head, data)
    figures["pieces"] = " ".join(str(pieces.get(part, 0)) for part in range(1, head.parts + 1))
    return figures | {"agreement": agreement_of_views(run, head, data)}


@torch.no_grad()
def agreement_of_views(run: Run, head: PartHead, data: PartFeatures) -> float:
    """Share of comparisons of two views at a surface point that both show in which both have the same part there.

    A view's part at a point is what its ray to the point sees, rendered as any other ray.
    """
    scene = run.model.scene
    chosen = [run.views[index] for index in np.linspace(0, len(run.views) - 1, AGREEMENT_VIEWS).round().astype(int)]
    points, normals = (torch.as_tensor(array) for array in data.surface[:2])
    seen = np.zeros((len(chosen), len(points)), dtype=np.int64)
    for row, view in enumerate(chosen):
        camera = views_from_cameras(run.model.as_trained(run.camera(view)))
        weights, _ = view_weights(points, normals, data.solid, scene.frame, camera, 0)
        eye = scene.frame.points(torch.as_tensor(camera.centres(), dtype=torch.float32))[0]
        for index in torch.as_tensor(np.flatnonzero(weights)).split(AT_ONCE):
            directions = torch.nn.functional.normalize(points[index].to(eye) - eye, dim=-1)
            rendering = scene.render(eye.expand_as(directions), directions, plate=False)
            seen[row, index] = head.outputs(rendering)[f"part_ids_{head.parts}"][:, 0].long().cpu().numpy()
    equal = both = 0
    for first, second in itertools.combinations(seen, 2):
        shown = (first > 0) & (second > 0)
        both += int(shown.sum())
        equal += int((shown & (first == second)).sum())
    return equal / both if both else float("nan")


def _identities(run: Run, head: PartHead, view: View) -> np.ndarray:
    """(H, W) int64 of a view in training's size, rendered with the head that is attached."""
    name = f"part_ids_{head.parts}"
    return run.render(run.camera(view, "training"), [name])[name][..., 0].astype(np.int64)


def _true_mesh(file: Path) -> PartMesh:
    """
    Raises:
        BenchError: it is not there or knows no parts.
    """
    mesh = read_part_mesh(file) if file.is_file() else None
    if mesh is None:
        raise BenchError(
            f"{file}: expected the true mesh with a property part at its vertices or faces; "
            f"{'it has none' if file.is_file() else 'there is no such file'}. `surface-sos capture` makes a capture "
            "that has one."
        )
    return mesh


def _true_labels(run: Run, data: PartFeatures, truth: PartMesh) -> np.ndarray:
    """(P,) true parts of the surface points, 0 where the true surface is too far."""
    scene, from_world = run.model.scene, np.linalg.inv(run.capture_to_world)
    world = scene.frame.to_world(torch.as_tensor(data.surface.points)).double().cpu().numpy()
    scale = float(np.cbrt(np.linalg.det(from_world[:3, :3])))
    points = world @ from_world[:3, :3].T + from_world[:3, 3]
    radius = float(scene.frame.radius) * scale
    return labels_at(points, truth.vertices, truth.faces, truth.labels, MAX_DISTANCE * radius)


def _say(words: str) -> None:
    print(words, flush=True)
