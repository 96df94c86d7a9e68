"""Names that are not UTF-8, and names with what rich, printf and HTML read as something else."""

from __future__ import annotations

import copy
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from surface_sos_ns.masks.contact_sheet import contact_sheet
from surface_sos_ns.masks.folder import Folder
from surface_sos_ns.masks.provider import Photos
from surface_sos_ns.masks.write import write_masks
from surface_sos_ns.report.page import _text
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.text import ascii_only, escape_in_output, printable
from tests.helpers.ball_views import ring

NAME = os.fsdecode(b"caf\xe9 [x] %d.jpg")
"""As Python has a file name in Latin-1."""


def test_text_for_people_and_for_opencv() -> None:
    assert printable(NAME) == "caf\\udce9 [x] %d.jpg"
    assert printable("café 照片 <b>") == "café 照片 <b>"
    assert ascii_only(NAME) == "caf? [x] %d.jpg" and ascii_only("é") == "?"
    assert _text(f"<b>{NAME}") == "&lt;b&gt;caf\\udce9 [x] %d.jpg"


def test_output_takes_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="utf-8", errors="strict"))
    with pytest.raises(UnicodeEncodeError):
        print(NAME)
    escape_in_output()
    print(NAME, "café")
    sys.stdout.flush()
    assert written.getvalue().decode() == "caf\\udce9 [x] %d.jpg café\n"


def test_masks_come_and_go_by_such_names(tmp_path: Path) -> None:
    """Read from a folder, drawn on the contact sheet, written, and named in the capture's file."""
    folder = tmp_path / os.fsdecode(b"capture \xff")
    names = [os.fsdecode(b"fr\xe9me_%d.jpg" % number) for number in range(4)]
    for name in names:
        path = folder / "found" / Path(name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.kron([[0, 255], [0, 0]], np.ones((24, 32))).astype(np.uint8)).save(path)
    file_paths = [f"images/{name}" for name in names]
    frames = [{"file_path": name, "transform_matrix": np.eye(4).tolist()} for name in file_paths]
    (folder / "transforms.json").write_text(json.dumps({"title": "café", "frames": frames}, indent=1))
    blank = [np.zeros((48, 64, 3), np.uint8)] * 4
    photos = Photos([folder / name for name in file_paths], blank, ring(4, size=(64, 48)), [(64, 48)] * 4)
    masks = Folder(folder / "found").masks(photos, lambda words: None).masks
    sheet = contact_sheet(photos, masks, None, None)
    written = write_masks(folder / "transforms.json", file_paths, masks, photos.sizes, {}, sheet)
    assert written.count == 4 and (folder / "coarse_masks.jpg").is_file()
    meta = json.loads((folder / "transforms.json").read_text(encoding="utf-8"))
    assert [frame["file_path"] for frame in meta["frames"]] == file_paths and meta["title"] == "café"
    for frame in meta["frames"]:
        with Image.open(folder / frame["coarse_mask_path"]) as mask:
            assert np.array(mask).mean() == 255 / 4


def test_tensorboard_is_refused_a_name_that_it_cannot_write(tmp_path: Path) -> None:
    from surface_sos_ns.plugin.methods import surface_sos_lite

    config = copy.deepcopy(surface_sos_lite.config)
    config.experiment_name, config.timestamp, config.output_dir = NAME, "t", tmp_path
    config.vis = "tensorboard"
    with pytest.raises(UserError, match=r"TensorBoard cannot write to .*--experiment-name"):
        config.save_config()
    assert not any(tmp_path.iterdir())
