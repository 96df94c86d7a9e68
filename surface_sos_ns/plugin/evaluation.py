"""What scoring needs beside a run (`surface_sos_ns.load_run`): every photo with the truth that training lacks."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import tyro
from nerfstudio.engine.trainer import TrainerConfig

from surface_sos_ns.plugin.capture_datamanager import CaptureDataManagerConfig
from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManager, SurfaceSOSDataManagerConfig
from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParser
from surface_sos_ns.plugin.dataset import SurfaceSOSDataset
from surface_sos_ns.plugin.methods import SPECIFICATIONS
from surface_sos_ns.utils.errors import UserError

if TYPE_CHECKING:  # capture/ brings scipy and more
    from surface_sos_ns.capture.object_prior import ObjectPrior

METHODS = {str(of.config.method_name): of.config for of in SPECIFICATIONS}


@dataclass(frozen=True)
class ScoringViews:
    """Every photo of a capture, trained on or held out, each with its truth where there is some."""

    dataset: SurfaceSOSDataset
    held_out: list[bool]
    """Per photo: whether it is kept from training."""


def training_config(method: str, options: Sequence[str]) -> TrainerConfig:
    """What `ns-train METHOD OPTIONS` would run.

    Raises:
        UserError: an option that the method does not have, or a value that does not fit; in tyro's words.
    """
    default = METHODS[method]
    said = io.StringIO()
    markers = (tyro.conf.SuppressFixed, tyro.conf.FlagConversionOff)  # nerfstudio's own
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return tyro.cli(type(default), args=list(options), default=default, config=markers)
    except SystemExit as error:
        raise UserError(f"ns-train {method} {' '.join(options)}\n{said.getvalue()}") from error


def scoring_views(config: CaptureDataManagerConfig) -> ScoringViews:
    """All photos with their truth, in the world frame of training: the split does not decide about the frame."""
    parser = cast("SurfaceSOSDataParser", config.dataparser.setup())
    trained_on = set(parser.get_dataparser_outputs("train").image_filenames)
    # The truth of photos that are trained on is left out of the split that training reads.
    everything = cast("SurfaceSOSDataParser", replace(config.dataparser, eval_mode="all").setup())
    dataset = SurfaceSOSDataset(everything.get_dataparser_outputs("test"))
    return ScoringViews(dataset, [name not in trained_on for name in dataset.image_filenames])


def start_of_training(config: SurfaceSOSDataManagerConfig, cache: Path) -> ObjectPrior:
    """The voted hull and all else that training would start from, world frame.

    Args:
        config: with the capture in it.
        cache: folder that keeps what takes long to find.
    """
    manager = cast("SurfaceSOSDataManager", config.setup(device="cpu", test_mode="val"))
    return manager.prepare(cache)
