"""Predictions and true masks of two folders: which belong together, their measures, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surface_sos_ns.bench.saliency.measures import BETA_SQUARED, measure, summary
from surface_sos_ns.bench.settings import BenchError, Saliency, require
from surface_sos_ns.capture.lookup import image_files
from surface_sos_ns.capture.mask_files import read_mask
from surface_sos_ns.capture.names import IMAGE_SUFFIXES, listed, match_files, match_problem
from surface_sos_ns.utils.image_io import read_header, resized
from surface_sos_ns.utils.progress import Stage

__all__ = ["Pair", "find_pairs", "run_saliency", "show"]

COLUMNS = {
    "f_max": "F max",
    "f_mean": "F mean",
    "s": "S",
    "e_max": "E max",
    "e_mean": "E mean",
    "weighted_f": "wF",
    "mae": "MAE",
    "iou": "IoU",
}
"""Heading of each measure, by name."""
LEGEND = (
    f"F with beta^2 = {BETA_SQUARED}, and E: largest and mean value of the mean curve over 256 thresholds. S: "
    "structure. wF: weighted F, beta = 1. MAE: less is better. IoU at threshold 0.5. As usual in salient object "
    "detection each prediction is first stretched to the full range."
)
PROPORTIONS = 0.02
"""Largest relative difference of width over height at which a prediction counts as its photo's, of another size."""


@dataclass(frozen=True)
class Pair:
    """A true mask and the prediction for the same photo."""

    truth: Path
    prediction: Path


def find_pairs(predictions: Path, truth: Path) -> tuple[list[Pair], list[str]]:
    """The prediction of each true mask, by name, whatever its suffix.

    Args:
        predictions, truth: folders, searched with their subfolders.

    Returns:
        Pairs in the order of the true masks' names, and names of predictions that have no true mask.

    Raises:
        BenchError: a folder has no images, a true mask has no prediction or several, or sizes do not go together; the
            message names the files.
        ImageError: a file cannot be read as an image.
    """
    names, files = image_files(truth), image_files(predictions)
    for folder, found in ((truth, names), (predictions, files)):
        require(bool(found), f"{folder} has no image file in it ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    matches = match_files(names, files, anywhere=True)
    missing = [name for name, found in zip(names, matches, strict=True) if not found]
    require(
        not missing,
        f"{len(missing)} of {len(names)} true masks in {truth} have no prediction in {predictions}: "
        f"{listed(missing)}. Each needs one of the same name; where nothing was found, a black one.",
    )
    unclear = match_problem(matches, names, files, predictions)
    if unclear is not None:
        raise BenchError(unclear)
    pairs = [Pair(truth / name, predictions / files[found[0]]) for name, found in zip(names, matches, strict=True)]
    for pair in pairs:
        _check_proportions(pair)
    used = {found[0] for found in matches}
    return pairs, [file for index, file in enumerate(files) if index not in used]


def _check_proportions(pair: Pair) -> None:
    (width, height), (true_width, true_height) = (read_header(path).upright for path in (pair.prediction, pair.truth))
    off_by_rounding = max(true_width, true_height)  # one pixel of a prediction
    if abs(width * true_height - height * true_width) > PROPORTIONS * height * true_width + off_by_rounding:
        raise BenchError(
            f"{pair.prediction} has {width} x {height} pixels and {pair.truth} {true_width} x {true_height}; expected "
            "the same proportions. Predictions of another size are resized, but not stretched."
        )


def run_saliency(settings: Saliency) -> dict[str, Any]:
    """Measures all predictions.

    Returns:
        JSON values: `mean` of all, and `images`, the measures of each.

    Raises:
        BenchError: see `find_pairs`.
        ImageError: a file cannot be read as a mask.
    """
    pairs, unused = find_pairs(settings.predictions, settings.truth)
    measures = []
    with Stage("comparing masks", len(pairs)) as stage:
        for pair in pairs:
            truth, prediction = read_mask(pair.truth), read_mask(pair.prediction)
            measures.append(measure(resized(prediction, truth.shape[1], truth.shape[0]), truth))
            stage.advance(1)
    images = [
        {"truth": pair.truth.relative_to(settings.truth).as_posix(), **summary([one])}
        for pair, one in zip(pairs, measures, strict=True)
    ]
    return {"count": len(pairs), "mean": summary(measures), "images": images, "without_truth": unused}


def show(result: dict[str, Any]) -> None:
    """Prints the table, and which predictions were left out."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Saliency", title_justify="left")
    table.add_column("images", justify="right")
    for name, heading in COLUMNS.items():
        table.add_column(heading, justify="right", style="bold" if name == "f_max" else None)
    table.add_row(str(result["count"]), *(f"{result['mean'][name]:.3f}" for name in COLUMNS))
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(LEGEND, soft_wrap=True)
    console.print(_worst(result["images"]), soft_wrap=True)
    if result["without_truth"]:
        console.print(f"Not measured, without a true mask: {listed(result['without_truth'])}.", soft_wrap=True)


def _worst(images: Sequence[dict[str, Any]], most: int = 3) -> str:
    """The images with the least IoU, in words."""
    worst = sorted(images, key=lambda image: image["iou"])[:most]
    words = [f"{image['truth']} ({image['iou']:.3f})" for image in worst]
    return f"Least IoU: {listed(words)}."
