"""The measures of salient object detection (SOD), as py_sod_metrics computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["BETA_SQUARED", "Measures", "measure", "summary"]

BETA_SQUARED = 0.3
"""Weight of recall in the F-measure, (1 + b) P R / (b P + R). SOD weighs precision higher."""

WHITE = 255
"""Predictions and truth are compared as 8-bit images."""


@dataclass(frozen=True)
class Measures:
    """Measures of one prediction.

    Attributes:
        f_curve: (256,) F-measure with `BETA_SQUARED` at each threshold of 8-bit values.
        e_curve: (256,) E-measure (enhanced alignment) at each threshold.
        s: S-measure (structure).
        weighted_f: weighted F-measure with beta = 1 (Margolin et al., 2014).
        mae: mean absolute error.
        iou: intersection over union at half of the prediction's range.
    """

    f_curve: np.ndarray
    e_curve: np.ndarray
    s: float
    weighted_f: float
    mae: float
    iou: float


def measure(prediction: np.ndarray, truth: np.ndarray) -> Measures:
    """Compares a prediction with the truth.

    As everywhere in SOD the prediction is stretched to [0, 1] first, unless it is constant, and the truth is cut at
    half. Where the truth has no object pixel, F, weighted F and IoU are 0.

    Args:
        prediction: (H, W) in [0, 1], saliency.
        truth: (H, W) in [0, 1].
    """
    from py_sod_metrics import MAE, Emeasure, FmeasureHandler, FmeasureV2, IOUHandler, Smeasure, WeightedFmeasure

    overlaps = FmeasureV2(
        {
            "f": FmeasureHandler(with_dynamic=True, with_adaptive=False, beta=BETA_SQUARED),
            "iou": IOUHandler(with_dynamic=False, with_adaptive=False, with_binary=True),
        }
    )
    alignment, structure, weighted, error = Emeasure(), Smeasure(), WeightedFmeasure(), MAE()
    images = [np.rint(np.clip(values, 0, 1) * WHITE).astype(np.uint8) for values in (prediction, truth)]
    for one in (overlaps, alignment, structure, weighted, error):
        one.step(*images)
    found = overlaps.get_results()
    return Measures(
        f_curve=found["f"]["dynamic"],
        e_curve=alignment.get_results()["em"]["curve"],
        s=float(structure.get_results()["sm"]),
        weighted_f=float(weighted.get_results()["wfm"]),
        mae=float(error.get_results()["mae"]),
        iou=float(found["iou"]["binary"]),
    )


def summary(measures: Sequence[Measures]) -> dict[str, float]:
    """Measures of N predictions together, as the tables of SOD have them.

    `f_max` and `e_max` are the largest values of the mean curve, so that one threshold holds for all predictions.
    """
    f_curve = np.mean([one.f_curve for one in measures], axis=0)
    e_curve = np.mean([one.e_curve for one in measures], axis=0)
    return {
        "f_max": float(f_curve.max()),
        "f_mean": float(f_curve.mean()),
        "s": float(np.mean([one.s for one in measures])),
        "e_max": float(e_curve.max()),
        "e_mean": float(e_curve.mean()),
        "weighted_f": float(np.mean([one.weighted_f for one in measures])),
        "mae": float(np.mean([one.mae for one in measures])),
        "iou": float(np.mean([one.iou for one in measures])),
    }
