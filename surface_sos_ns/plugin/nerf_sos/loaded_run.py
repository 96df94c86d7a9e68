"""A surface-sos run that nerf-sos takes over in place of its first stage: --pipeline.model.load-run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from torch import Tensor

from surface_sos_ns.models.surface_sos.adaptation import stored_adaptation
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.scene import stored_objects
from surface_sos_ns.plugin.checkpoints import SCENE, find_checkpoint
from surface_sos_ns.plugin.config_reader import method_of, read_config
from surface_sos_ns.plugin.console import say
from surface_sos_ns.plugin.model import SurfaceSOSModelConfig
from surface_sos_ns.utils.errors import UserError

OPTION = "--pipeline.model.load-run"
POSE_TOLERANCE = 1e-4
"""Largest difference of the transforms and scales of two runs whose world frames count as the same."""


def surfaces_of(config_file: Path) -> SceneConfig:
    """Sizes and choices of the scene of a surface-sos run.

    Args:
        config_file: its config.yml.

    Raises:
        UserError: the file is missing, is no config.yml, is that of another method, or of a run without a checkpoint.
    """
    if not config_file.is_file():
        raise UserError(f"{OPTION} {config_file} is no file; expected the config.yml of a finished surface-sos run.")
    method = method_of(config_file)
    if method is not None and not method.startswith("surface-sos"):
        raise UserError(f"{OPTION} {config_file} is of a {method} run; expected one of surface-sos.")
    model = read_config(config_file).pipeline.model
    assert isinstance(model, SurfaceSOSModelConfig)
    _, state = find_checkpoint(config_file.parent, None, say)  # its sizes may have been adapted to the capture
    return stored_adaptation(state["pipeline"], SCENE).applied(model.scene)


def scene_weights(config_file: Path, outputs: DataparserOutputs) -> dict[str, Tensor]:
    """Weights of a surface-sos run's scene, by their names in `SurfaceSOS`.

    Args:
        config_file: its config.yml.
        outputs: of the training photos that they are wanted for.

    Raises:
        UserError: the run has no checkpoint, lies in another world frame, or was trained on other photos.
    """
    path, state = find_checkpoint(config_file.parent, None, say)
    _check_frame(config_file.parent / "dataparser_transforms.json", outputs)
    weights = {name.removeprefix(SCENE): t for name, t in state["pipeline"].items() if name.startswith(SCENE)}
    weights.pop("adaptation_text", None)  # this run's own config has the sizes
    objects = stored_objects(weights)
    if objects:
        raise UserError(
            f"{path} has {len(objects)} objects ({', '.join(objects)}), and nerf-sos segments one. Load a run of one "
            "object."
        )
    photos = len(weights.get("appearance.exposure", ()))
    if photos != len(outputs.image_filenames):
        raise UserError(
            f"{path} was trained on {photos} photos, and this run has {len(outputs.image_filenames)}; expected the "
            f"same photos and the same split. Train both alike, or leave {OPTION} out."
        )
    done, total = state["step"] + 1, state.get("total_steps")
    if total is not None and done < total:
        say(f"{path} is of a run that was stopped after {done} of {total} steps; its surfaces are taken as they are.")
    return weights


def _check_frame(file: Path, outputs: DataparserOutputs) -> None:
    """Compare a run's world frame, as nerfstudio has written it down, with that of the photos.

    Raises:
        UserError: it is another one, or not known.
    """
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        found = np.append(np.asarray(written["transform"], dtype=np.float64).reshape(12), float(written["scale"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} of the run that {OPTION} names cannot be read: {error}") from error
    expected = np.append(outputs.dataparser_transform.double().numpy().reshape(12), outputs.dataparser_scale)
    if not np.allclose(found, expected, rtol=POSE_TOLERANCE, atol=POSE_TOLERANCE):
        raise UserError(
            f"{file}: the run that {OPTION} names lies in another world frame than this capture does here; expected "
            "the same capture, and the same --pipeline.datamanager.dataparser options."
        )
