"""The table of results: on the terminal, in Markdown, and as rows for JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from surface_sos_ns.bench.quality.objects import object_rows, pooled
from surface_sos_ns.bench.quality.recipe import Inputs, Run

COLUMNS = {
    "mask_iou": ("IoU", "{:.3f}"),
    "worst_mask_iou": ("worst", "{:.3f}"),
    "pooled_iou": ("pooled IoU", "{:.3f}"),
    "wrong_identity": ("wrong object", "{:.2%}"),
    "pixels": ("pixels", "{:.0f}"),
    "mask_iou_all": ("IoU all", "{:.3f}"),
    "mask_iou_bg": ("IoU bg", "{:.3f}"),
    "mask_miou": ("mIoU", "{:.3f}"),
    "mask_ari": ("NV-ARI", "{:.3f}"),
    "mask_acc": ("Acc", "{:.3f}"),
    "mask_sad": ("SAD", "{:.3f}"),
    "mask_mse": ("MSE", "{:.4f}"),
    "mask_edge_sad": ("edge SAD", "{:.3f}"),
    "mask_edge_mse": ("edge MSE", "{:.3f}"),
    "psnr": ("PSNR", "{:.1f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "psnr_fitted": ("fitted PSNR", "{:.1f}"),
    "ssim_fitted": ("fitted SSIM", "{:.3f}"),
    "psnr_unfitted": ("unfitted PSNR", "{:.1f}"),
    "clean_plate_psnr": ("plate PSNR", "{:.1f}"),
    "without_psnr": ("without PSNR", "{:.1f}"),
    "mesh_chamfer": ("Chamfer", "{:.4f}"),
    "mesh_chamfer_relative": ("/ size", "{:.4f}"),
    "seconds": ("s", "{:.0f}"),
    "peak_gb": ("GB", "{:.2f}"),
}
"""Heading and format of each metric, by name."""
OF_THE_RUN = ("mesh_chamfer", "mesh_chamfer_relative", "seconds", "peak_gb")
"""Metrics of the whole run, not of single views."""
SHOWN = (
    *("mask_iou", "worst_mask_iou", "pooled_iou", "wrong_identity", "pixels"),
    *("mask_iou_bg", "mask_miou", "mask_ari", "mask_edge_mse"),
    *("psnr", "ssim", "psnr_fitted", "clean_plate_psnr", "without_psnr", "mesh_chamfer", "seconds", "peak_gb"),
)
"""Metrics that are shown on the terminal; the others are in results.md."""
LEGEND = (
    "Masks: threshold 0.5, mean over views; IoU of the object, worst: its least of a view, bg: of the background, "
    "mIoU: the mean of both. NV-ARI: NeRF-SOS's name for the adjusted Rand index of held-out (novel) views. SAD in "
    "thousands of pixels. Edge: within 1 % of the longer image side (3 pixels at least) of the true outline. PSNR in "
    "dB, of the clean plate inside the true mask; all photos, trained on or not, are drawn with the mean appearance. "
    "Fitted: the right half of the picture, with the appearance fitted to the left half of the photo (NeRF-W); "
    "unfitted: the same half with the mean. "
    "Chamfer in the capture's units, and as a fraction of the diagonal of the true mesh. s, GB: ns-train from start to "
    "end, its peak main memory. Of several seeds the mean (least to most)."
)
LEGEND_OF_OBJECTS = (
    "Several objects: IoU is the mean over those that a view shows; IoU all, mIoU, NV-ARI and the other figures of "
    "masks take all of them for one. Pooled IoU: pixels of the views that show an object counted together, then the "
    "mean over objects. Wrong object: of the pixels that are some object's in mask and truth, those of different "
    "ones. Pixels: of an object in a view that shows it. Without PSNR: of the view without one object, inside its "
    "true mask."
)


@dataclass(frozen=True)
class Outcome:
    """The result of a task, or why it has none."""

    task: Run | Inputs
    result: dict[str, Any] | None
    problem: str = ""


@dataclass
class Row:
    """A row of the table: metrics by name, with a value for each seed."""

    capture: str
    masks: str
    features: str
    what: str
    object: str
    views: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, figures: dict[str, float]) -> None:
        """Adds the metrics of a seed."""
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)

    def cell(self, name: str, between: str) -> str:
        """A metric as text: its mean and, of several seeds, its range."""
        values, form = self.figures.get(name), COLUMNS[name][1]
        if not values:
            return "-"
        mean, least, most = (form.format(of(values)) for of in (statistics.mean, min, max))
        return mean if len(values) == 1 else f"{mean}{between}({least} to {most})"


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """All rows, grouped by capture, inputs before methods. Rows without metrics are left out."""
    found: dict[tuple[str, ...], Row] = {}
    for outcome in outcomes:
        for what, result in _parts(outcome):
            for held_out in (True, False):
                views = [view for view in result.get("views", []) if view["held_out"] == held_out]
                figures = _of_views(views)
                counts_for_run = held_out or not result.get("held_out")
                if counts_for_run:
                    figures |= _of_run(result)
                kind = "held out" if held_out else "trained on"
                if figures:
                    _row(found, outcome.task, what, "", f"{len(views)} {kind}").add(figures)
                meshes = result.get("meshes", {}) if counts_for_run else {}
                for name, (shown, own) in object_rows(views, meshes).items():
                    _row(found, outcome.task, what, name, f"{shown} {kind}").add(own)
        if outcome.problem:
            what = _what(outcome.task) if isinstance(outcome.task, Run) else "inputs"
            _row(found, outcome.task, what, "", "").problems.append(outcome.problem)
    captures = list(dict.fromkeys(row.capture for row in found.values()))
    return sorted(found.values(), key=lambda row: captures.index(row.capture))


def _row(found: dict[tuple[str, ...], Row], task: Run | Inputs, what: str, object_: str, views: str) -> Row:
    key = (task.capture.name, task.masks, task.features, what, object_, views)
    return found.setdefault(key, Row(*key))


def _parts(outcome: Outcome) -> Iterable[tuple[str, dict[str, Any]]]:
    """The measured parts of a task, by name: masks and hull of inputs, or the method."""
    if outcome.result is None:
        return []
    if isinstance(outcome.task, Run):
        return [(_what(outcome.task), outcome.result)]
    held_out = {"held_out": outcome.result["held_out"]}
    return [(name, outcome.result[name] | held_out) for name in ("coarse masks", "voted hull")]


def _what(run: Run) -> str:
    return f"{run.method}: {run.variant}" if run.variant else run.method


def _of_views(views: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over the views that have a metric, the smallest IoU, and what is pooled of several objects."""
    figures = {}
    for name in COLUMNS:
        values = [view[name] for view in views if name in view]
        if values:
            figures[name] = statistics.mean(values)
    overlaps = [view["mask_iou"] for view in views if "mask_iou" in view]
    return figures | ({"worst_mask_iou": min(overlaps)} if overlaps else {}) | pooled(views)


def _of_run(result: dict[str, Any]) -> dict[str, float]:
    values = result.get("mesh", {}) | {name: result.get(name) for name in ("seconds", "peak_gb")}
    return {name: value for name, value in values.items() if name in OF_THE_RUN and value is not None}


def sizes(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each capture: size and number of its photos."""
    lines = {}
    for outcome in outcomes:
        if outcome.result is not None:
            of = outcome.result
            name, size = outcome.task.capture.name, f"{of['width']} x {of['height']} pixels"
            lines[name] = f"{name}: {size}, {of['trained_on']} photos trained on, {of['held_out']} held out"
    return list(lines.values())


def plain(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All results as JSON values."""
    return {
        "rows": [vars(row) for row in rows(outcomes)],
        "results": [outcome.result for outcome in outcomes if outcome.result is not None],
        "remarks": remarks(outcomes),
        "problems": failures(outcomes),
    }


def _used(lines: Sequence[Row]) -> list[str]:
    """Metrics that at least one row has."""
    return [name for name in COLUMNS if any(name in row.figures for row in lines)]


def _places(lines: Sequence[Row]) -> list[str]:
    """What tells rows apart: headings of the columns before the metrics, which are attributes of rows."""
    features, objects = (any(getattr(row, place) for row in lines) for place in ("features", "object"))
    return ["capture", "masks", *["features"] * features, "what", *["object"] * objects, "views"]


def _legend(lines: Sequence[Row]) -> list[str]:
    return [LEGEND, *[LEGEND_OF_OBJECTS] * any(row.object for row in lines)]


def _place_cells(row: Row, places: Sequence[str]) -> list[str]:
    return [getattr(row, place) or "-" for place in places]


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table as a Markdown document."""
    lines = rows(outcomes)
    names, places = _used(lines), _places(lines)
    heads = [*places, *(COLUMNS[name][0] for name in names)]
    text = ["# Quality", "", *(f"- {line}" for line in sizes(outcomes)), ""]
    text += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in lines:
        if row.figures:
            cells = [*_place_cells(row, places), *(row.cell(name, " ") for name in names)]
            text.append(f"| {' | '.join(cells)} |")
    for legend in _legend(lines):
        text += ["", legend]
    text += [f"\n{line}" for line in _last_lines(outcomes)]
    return "\n".join(text) + "\n"


def remarks(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each reason why something could not be measured that is no failure: a mesh, or a hull of the masks."""
    found: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        for what, result in _parts(outcome):
            for key, thing in (("no_mesh", "No mesh"), ("no_hull", "No hull")):
                if key in result:
                    name = outcome.task.title if isinstance(outcome.task, Run) else f"{outcome.task.title}, {what}"
                    found.setdefault((thing, result[key]), []).append(name)
    return [f"{thing} of {'; '.join(names)}: {reason}" for (thing, reason), names in found.items()]


def _last_lines(outcomes: Sequence[Outcome]) -> list[str]:
    return [*remarks(outcomes), *(f"Failed: {line}" for line in failures(outcomes))]


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each task that failed."""
    return [f"{outcome.task.title}: {outcome.problem}" for outcome in outcomes if outcome.problem]


def show(outcomes: Sequence[Outcome]) -> None:
    """Prints the table."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    lines = [row for row in rows(outcomes) if row.figures]
    names = [name for name in _used(lines) if name in SHOWN]
    table = Table(title="Quality", title_justify="left")
    places = _places(lines)
    for head in places:
        table.add_column(head, no_wrap=True)
    for name in names:
        style = "bold" if name == "mask_iou" else None
        table.add_column(COLUMNS[name][0], justify="right", no_wrap=True, style=style)
    for row in lines:
        table.add_row(*_place_cells(row, places), *(row.cell(name, "\n") for name in names))
    console = Console(highlight=False, markup=False)
    for line in sizes(outcomes):
        console.print(line, soft_wrap=True)
    # In a narrow window, wrapped rows are better than truncated numbers.
    console.width = max(console.width, Measurement.get(console, console.options.update(max_width=1000), table).maximum)
    console.print(table)
    for line in [*_legend(lines), *_last_lines(outcomes)]:
        console.print(line, soft_wrap=True)
