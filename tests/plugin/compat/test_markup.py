"""Paths with brackets in nerfstudio's messages. Canary: it reads them as markup and ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from nerfstudio.configs.experiment_config import ExperimentConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.errors import MarkupError

from surface_sos_ns.plugin.compat.markup import print_broken_markup_as_it_is


def test_nerfstudio_still_reads_paths_as_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(CONSOLE, "render_str", raising=False)
    config = TrainerConfig(method_name="m", experiment_name="e", timestamp="t", output_dir=tmp_path / "[" / "red]")
    with pytest.raises(MarkupError):
        ExperimentConfig.save_config(config)


def test_paths_that_look_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_broken_markup_as_it_is()
    CONSOLE.print("saved in /data/[/red]/x")
    CONSOLE.log("[bold]saved[/bold] in a [folder]")
    said = capsys.readouterr().out
    assert "saved in /data/[/red]/x" in said and "saved in a" in said and "[bold]" not in said
