"""Files of parts beside a run: what is written comes back, and what does not fit is left out, with a reason."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from surface_sos_ns.models.surface_sos.heads.parts import PartHead
from surface_sos_ns.ops.torch_ops import TORCH
from surface_sos_ns.plugin.part_results import (
    PartFacts,
    PartResultError,
    heads_of,
    parts_file,
    read_parts,
    save_parts,
    usable_parts,
)

FACTS = PartFacts("step-000000099.ckpt", "colour and texture", 3, (0.7, 0.2, 0.1), (1, 2, 1), 1)


def facts(parts: int, order: int, checkpoint: str = FACTS.checkpoint) -> PartFacts:
    return PartFacts(checkpoint, FACTS.features, 0, (1 / parts,) * parts, (1,) * parts, order)


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    head = PartHead(3, TORCH)
    file = save_parts(tmp_path, head, FACTS)
    assert file == tmp_path / "parts" / "parts_3.npz"
    found = read_parts(file, TORCH)
    assert found.facts == FACTS and found.parts == 3
    points = torch.rand(50, 3) * 2 - 1
    assert torch.equal(found.head(points), head(points))
    assert not any(parameter.requires_grad for parameter in found.head.parameters())


def test_shares_sum_to_one_and_identities_are_those_of_the_largest() -> None:
    head, points = PartHead(4, TORCH), torch.rand(20, 3)
    shares = head(points)
    assert torch.allclose(shares.sum(-1), torch.ones(20))
    assert torch.equal(head.identities(points), shares.argmax(-1) + 1)


def test_the_latest_comes_first_and_is_marked(tmp_path: Path) -> None:
    for parts, order in ((3, 2), (4, 3), (2, 1)):
        save_parts(tmp_path, PartHead(parts, TORCH), facts(parts, order))
    results = usable_parts(tmp_path, FACTS.checkpoint, TORCH)
    assert [result.parts for result in results] == [4, 3, 2]
    heads = heads_of(results)
    assert [head.latest for head in heads] == [True, False, False]
    assert heads[0].output_names == ("parts", "part_ids", "parts_4", "part_ids_4")
    assert heads[1].output_names == ("parts_3", "part_ids_3")


def test_parts_of_another_checkpoint_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_parts(tmp_path, PartHead(3, TORCH), facts(3, 1, "step-000000049.ckpt"))
    assert usable_parts(tmp_path, FACTS.checkpoint, TORCH) == []
    said = capsys.readouterr().out
    assert "parts_3.npz is of step-000000049.ckpt, and step-000000099.ckpt is loaded" in said
    assert "surface-sos parts --overwrite" in said


def rewritten(file: Path, **changes: object) -> None:
    """The file with other facts, or other arrays."""
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    about = json.loads(str(arrays["about"]))
    for name, value in changes.items():
        if isinstance(value, np.ndarray):
            arrays[name.replace("__", ".")] = value
        else:
            about[name] = value
    np.savez(file, **(arrays | {"about": np.array(json.dumps(about))}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 99}, "is of version 99"),
        ({"parts": 10**9}, "1000000000 parts"),
        ({"parts": 4}, "damaged"),
        ({"field__out__bias": np.full(3, np.nan, np.float32)}, "not finite"),
        ({"field__out__bias": np.zeros(7, np.float32)}, "damaged"),
        ({"areas": "none"}, "damaged"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, changes: dict, words: str) -> None:
    file = save_parts(tmp_path, PartHead(3, TORCH), FACTS)
    rewritten(file, **changes)
    with pytest.raises(PartResultError, match=words) as error:
        read_parts(file, TORCH)
    assert str(file) in str(error.value) and "surface-sos parts --overwrite" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no zip at all"])
def test_a_damaged_file_is_left_out_with_a_line(tmp_path: Path, content: bytes, capsys) -> None:
    save_parts(tmp_path, PartHead(2, TORCH), facts(2, 1))
    parts_file(tmp_path, 3).write_bytes(content)
    assert [result.parts for result in usable_parts(tmp_path, FACTS.checkpoint, TORCH)] == [2]
    assert "parts_3.npz is damaged or no file of parts" in capsys.readouterr().out


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_reading_a_file_runs_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    file = save_parts(tmp_path, PartHead(3, TORCH), FACTS)
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(file, **(arrays | {"about": np.array([Canary(canary)], dtype=object)}))
    with pytest.raises(PartResultError):
        read_parts(file, TORCH)
    file.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(PartResultError):
        read_parts(file, TORCH)
    assert not canary.exists()
