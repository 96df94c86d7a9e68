"""Canaries of how nerfstudio's commands choose a run's checkpoint: by its name alone, at the path in config.yml.

What `plugin/compat/eval_checkpoints.py` and `moved_runs.py` make of that is tested with the trainer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline, VanillaPipelineConfig
from nerfstudio.utils import eval_utils

from surface_sos_ns.plugin.compat.patching import unpatched


@dataclass
class NoPipelineConfig(VanillaPipelineConfig):
    """Of a pipeline that keeps what it is loaded with."""

    datamanager: Any = field(default_factory=lambda: SimpleNamespace(_target=None))
    model: Any = None

    def setup(self, **kwargs: Any) -> Pipeline:
        return NoPipeline()


class NoPipeline(Pipeline):
    """See above."""

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        self.loaded = loaded_state


def a_run(folder: Path) -> TrainerConfig:
    """A run of plain nerfstudio with one checkpoint."""
    config = TrainerConfig(method_name="no", experiment_name="e", timestamp="t", output_dir=folder)
    config.pipeline = NoPipelineConfig()
    config.load_dir = config.get_checkpoint_dir()
    config.load_dir.mkdir(parents=True)
    torch.save({"step": 7, "pipeline": {}}, config.load_dir / "step-000000007.ckpt")
    return config


def test_nerfstudio_still_takes_a_truncated_checkpoint_and_stumbles_over_a_stray_file(tmp_path: Path) -> None:
    load: Any = unpatched(eval_utils.eval_load_checkpoint)
    config = a_run(tmp_path)
    assert config.load_dir is not None
    assert load(config, NoPipeline())[1] == 7
    truncated = config.load_dir / "step-000000900.ckpt"
    truncated.write_bytes(b"PK")
    with pytest.raises(Exception, match=r"invalid magic|central directory|corrupted|EOF|Weights only"):
        load(config, NoPipeline())
    truncated.unlink()
    (config.load_dir / "notes.txt").write_text("stray")
    with pytest.raises(ValueError, match="invalid literal"):
        load(config, NoPipeline())


def test_nerfstudio_still_looks_for_checkpoints_where_the_run_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = a_run(tmp_path / "there")
    monkeypatch.setitem(all_methods, "no", config)
    monkeypatch.setattr(eval_utils, "eval_load_checkpoint", unpatched(eval_utils.eval_load_checkpoint))
    copied = tmp_path / "copy" / "config.yml"
    copied.parent.mkdir()
    copied.write_text(yaml.dump(config))
    _, _, checkpoint, _ = eval_utils.eval_setup(copied)
    assert checkpoint.parent == config.get_checkpoint_dir()
