"""Checkpoint files: complete or skipped, written whole, random numbers included."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from surface_sos_ns.plugin.checkpoints import (
    CheckpointError,
    checkpoint_path,
    find_checkpoint,
    list_checkpoints,
    random_state,
    read_checkpoint,
    read_total_steps,
    restore_random_state,
    save_checkpoint,
)
from surface_sos_ns.plugin.compat.torch_loading import allow_numpy_scalars
from surface_sos_ns.utils.files import PREFIX, SUFFIX, remove_leftovers


def state_of(step: int, total: int = 5000) -> dict:
    weights = {"_model.weight": torch.full((256,), float(step))}
    return {"step": step, "pipeline": weights, "optimizers": {}, "scalers": {}, "total_steps": total}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (999, 1999, 2999):
        save_checkpoint(tmp_path / "nerfstudio_models", step, state_of(step), only_latest=False)
    return tmp_path / "nerfstudio_models"


def steps_in(folder: Path) -> list[int]:
    return [read_checkpoint(path)["step"] for path in list_checkpoints(folder)]


@pytest.mark.parametrize(
    ("key", "value", "found"), [("step", "2999", "str"), ("pipeline", [1], "list"), ("optimizers", None, "NoneType")]
)
def test_values_of_another_type_are_named(folder: Path, key: str, value: object, found: str) -> None:
    path = checkpoint_path(folder, 2999)
    torch.save(state_of(2999) | {key: value}, path)
    with pytest.raises(CheckpointError, match=f"000002999.ckpt is not a checkpoint .*'{key}' is {found}, expected"):
        read_checkpoint(path)
    torch.save(state_of(2999) | {"total_steps": "many"}, path)
    assert read_total_steps(path) is None


def test_only_latest_removes_the_older_ones(folder: Path) -> None:
    assert steps_in(folder) == [2999, 1999, 999]
    save_checkpoint(folder, 3999, state_of(3999), only_latest=True)
    assert steps_in(folder) == [3999]
    assert os.listdir(folder) == ["step-000003999.ckpt"]


def test_steps_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (999_999_999, 1_000_000_000):
        save_checkpoint(tmp_path, step, state_of(step), only_latest=False)
    assert find_checkpoint(tmp_path, None, print)[1]["step"] == 1_000_000_000


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text", "other content"])
def test_a_broken_newest_checkpoint_is_skipped_with_a_word(folder: Path, damage: str) -> None:
    newest = checkpoint_path(folder, 2999)
    content = newest.read_bytes()
    if damage == "empty":
        newest.write_bytes(b"")
    elif damage == "truncated":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":  # inside the weights, which torch alone would load without noticing
        weights = torch.full((256,), 2999.0).numpy().tobytes()
        assert content.count(weights) == 1
        newest.write_bytes(content.replace(weights, weights[:-1] + bytes([weights[-1] ^ 1])))
    elif damage == "text":
        newest.write_text("not a checkpoint")
    else:
        torch.save({"weights": torch.zeros(3)}, newest)
    said: list[str] = []
    path, state = find_checkpoint(folder, None, said.append)
    assert path == checkpoint_path(folder, 1999)
    assert state["pipeline"]["_model.weight"].eq(1999.0).all()
    assert len(said) == 1 and newest.name in said[0]


def test_stray_files_are_not_checkpoints(folder: Path) -> None:
    for name in ("notes.txt", "step-000009999.ckpt.bak", ".DS_Store", "step-000009999.tmp"):
        (folder / name).write_text("stray")
    said: list[str] = []
    assert find_checkpoint(folder, None, said.append)[1]["step"] == 2999
    assert said == []


def test_a_step_that_is_asked_for_is_taken_or_refused(folder: Path) -> None:
    assert find_checkpoint(folder, 999, print)[1]["step"] == 999
    with pytest.raises(CheckpointError, match="step-000000005.ckpt does not exist"):
        find_checkpoint(folder, 5, print)


def test_the_folder_of_the_run_does_as_well(folder: Path) -> None:
    assert find_checkpoint(folder.parent, None, print)[0] == checkpoint_path(folder, 2999)
    assert read_total_steps(folder.parent) == 5000


def test_nothing_complete_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path / "missing")):
        find_checkpoint(tmp_path / "missing", None, print)


def test_the_total_is_read_past_a_truncated_file(folder: Path) -> None:
    checkpoint_path(folder, 2999).write_bytes(b"PK")
    assert read_total_steps(folder) == 5000
    assert read_total_steps(checkpoint_path(folder, 999)) == 5000


def test_a_full_disk_leaves_the_old_checkpoints(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(folder, 3999, state_of(3999), only_latest=True)
    assert len(os.listdir(folder)) == 3
    assert steps_in(folder) == [2999, 1999, 999]


def test_what_a_killed_process_left_harms_nothing(folder: Path) -> None:
    unfinished = folder / f"{PREFIX}0123{SUFFIX}"
    unfinished.write_bytes(b"PK")
    assert find_checkpoint(folder, None, print)[1]["step"] == 2999
    assert read_total_steps(folder) == 5000
    save_checkpoint(folder, 4999, state_of(4999), only_latest=True)
    assert steps_in(folder) == [4999]
    remove_leftovers(folder)
    assert os.listdir(folder) == ["step-000004999.ckpt"]


def test_random_numbers_continue_where_they_stopped(tmp_path: Path) -> None:
    def draw() -> list:
        return [random.random(), random.gauss(0, 1), float(np.random.normal()), torch.rand(3).tolist()]

    draw()  # leaves half of a pair of normal numbers behind, which is part of the state
    path = save_checkpoint(tmp_path, 0, {**state_of(0), "random": random_state()}, only_latest=True)
    expected = draw()
    assert draw() != expected
    restore_random_state(read_checkpoint(path)["random"])
    assert draw() == expected


def test_numpy_scalars_load_and_nothing_else_does(tmp_path: Path) -> None:
    allow_numpy_scalars()
    scalars = [np.float64(0.25), np.float32(3.5), np.int64(-7), np.uint8(200), np.bool_(True)]
    torch.save(scalars, tmp_path / "scalars.pt")
    loaded = torch.load(tmp_path / "scalars.pt", weights_only=True)
    assert loaded == scalars and [type(value) for value in loaded] == [type(value) for value in scalars]
    for refused in (np.zeros(3), Path("x"), random.Random):
        torch.save(refused, tmp_path / "refused.pt")
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "refused.pt", weights_only=True)
