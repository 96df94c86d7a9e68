"""Masks written into a capture: complete or not at all, and nothing that was there is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.masks import write
from surface_sos_ns.masks.provider import MaskError
from surface_sos_ns.masks.write import check_free, source_to_write, write_masks
from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig
from surface_sos_ns.utils.files import PREFIX, SUFFIX
from tests.helpers.ball_views import ring
from tests.helpers.colmap_model import colmap_model

SIZES = [(32, 24), (32, 24), (40, 24)]


def capture(folder: Path, named: bool = False) -> Path:
    """Three photos, keys that nobody knows, and for `named` masks under another name."""
    frames = []
    for index, (width, height) in enumerate(SIZES):
        path = folder / f"images/{'left/' if index else ''}{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))
        pose = np.eye(4)
        pose[:3, 3] = index, 0.1 * index, 3
        lens = {"w": width, "h": height, "fl_x": 30.5, "fl_y": 30.5, "cx": width / 2, "cy": height / 2}
        frame = {"file_path": path.relative_to(folder).as_posix(), "colmap_im_id": 7 - index}
        frames.append(frame | ({"coarse_mask_path": f"hand/{index}.png"} if named else {}) | lens)
        frames[-1]["transform_matrix"] = pose.tolist()
    source = folder / "transforms.json"
    source.write_text(json.dumps({"camera_model": "OPENCV", "note": "Grüße", "frames": frames[::-1]}, indent=3) + "\n")
    return source


def put(source: Path, value: float = 1.0, **options) -> write.Written:
    """Masks that are `value` all over, none for the second of the three frames."""
    paths = [frame["file_path"] for frame in json.loads(source.read_bytes())["frames"]]
    masks = [np.full((12, 20), value), None, np.full((24, 32), value)]
    return write_masks(source, paths, masks, SIZES[::-1], {"method": "test"}, np.zeros((9, 9, 3), np.uint8), **options)


def test_a_mark_before_the_json_is_no_hindrance_and_damage_is_named(tmp_path: Path) -> None:
    source = capture(tmp_path)
    plain = source.read_bytes()
    source.write_bytes(b"\xef\xbb\xbf" + plain)
    before = json.loads(plain)
    assert put(source).count == 2
    after = json.loads(source.read_text(encoding="utf-8"))
    assert [frame.pop("coarse_mask_path", None) is not None for frame in after["frames"]] == [True, False, True]
    assert after == before
    other = capture(tmp_path / "other")
    for content in (b"{", b"[]", b'{"frames": 3}', b'{"frames": [7]}', b"\xff\xfe"):
        other.write_bytes(content)
        with pytest.raises(CaptureError, match=r"transforms\.json"):
            check_free(other, False)


def test_last_steps_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    source = capture(tmp_path)
    part = tmp_path / f"{PREFIX}masks{SUFFIX}"
    part.mkdir()
    for content in ("{", "[]", "{}", '{"moves": 3}', '{"moves": [["a"]]}'):
        (part / "steps.json").write_text(content)
        with pytest.raises(MaskError, match=r"steps\.json, the last steps of masks .* cannot be read"):
            write.finish_interrupted(source.parent)


def state(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_masks_and_their_names(tmp_path: Path) -> None:
    source = capture(tmp_path)
    before = json.loads(source.read_text())
    there = state(tmp_path)
    written = put(source, 0.6)
    assert written.count == 2 and written.kept is None
    after = json.loads(source.read_text())
    names = [frame.pop("coarse_mask_path", None) for frame in after["frames"]]
    assert names == ["coarse_masks/left/2.png", None, "coarse_masks/0.png"]
    assert after == before
    assert [list(frame) for frame in after["frames"]] == [list(frame) for frame in before["frames"]]
    assert '\n   "note": "Grüße"' in source.read_text() and source.read_text().endswith("}\n")
    for name, (width, height) in zip((names[0], names[2]), (SIZES[2], SIZES[0]), strict=True):
        mask = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8 and mask.shape == (height, width)
        assert (mask == 153).all()
    new = set(state(tmp_path)) - set(there)
    assert new == {"coarse_masks/left/2.png", "coarse_masks/0.png", "coarse_masks/about.json", "coarse_masks.jpg"}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_the_parser_finds_them(tmp_path: Path) -> None:
    """Each photo its own, by the names in the json file and by the folder alone; about.json is none."""
    source = capture(tmp_path)
    put(source)
    for by_folder in (False, True):
        if by_folder:
            meta = json.loads(source.read_text())
            for frame in meta["frames"]:
                frame.pop("coarse_mask_path", None)
            source.write_text(json.dumps(meta))
        outputs = SurfaceSOSDataParserConfig(data=tmp_path, eval_mode="all").setup().get_dataparser_outputs("train")
        names = [None if path is None else path.relative_to(tmp_path).as_posix() for path in masks_of(outputs)]
        assert names == ["coarse_masks/0.png", None, "coarse_masks/left/2.png"]


def masks_of(outputs) -> list[Path | None]:
    return outputs.metadata["coarse_mask_filenames"]


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    source = capture(tmp_path, named=True)
    with pytest.raises(MaskError, match="names a coarse_mask_path for 3 photos already. --overwrite"):
        check_free(source, overwrite=False)
    before = state(tmp_path)
    with pytest.raises(MaskError, match="--overwrite"):
        put(source)
    assert state(tmp_path) == before
    assert put(source, overwrite=True).kept == tmp_path / "coarse_masks_old"
    assert (tmp_path / "coarse_masks_old" / "transforms.json").read_bytes() == before["transforms.json"]

    (tmp_path / "coarse_masks_2").mkdir()  # smaller copies, which would be taken before the new masks
    (tmp_path / "coarse_masks_2" / "0.png").write_bytes(b"small")
    second = state(tmp_path)
    with pytest.raises(MaskError, match="coarse_masks exists. --overwrite"):
        put(source)
    assert put(source, 0.0, overwrite=True).kept == tmp_path / "coarse_masks_old_2"
    third = state(tmp_path)
    for name in ("coarse_masks/0.png", "coarse_masks/about.json", "coarse_masks_2/0.png", "coarse_masks.jpg"):
        assert third[f"coarse_masks_old_2/{name}"] == second[name]
    assert third["coarse_masks_old_2/transforms.json"] == second["transforms.json"]
    assert third["coarse_masks_old/transforms.json"] == before["transforms.json"]
    assert third["coarse_masks/0.png"] != second["coarse_masks/0.png"]
    assert not (tmp_path / "coarse_masks_2").exists()


@pytest.mark.parametrize("failing", ["mask", "sheet", "rename 1", "rename 2", "rename 3", "rename 4", "json"])
def test_a_failure_midway_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    source = capture(tmp_path)
    put(source)
    before = state(tmp_path)
    real_picture, real_text, real_rename = write.write_image, write.write_text, os.rename
    renames: list[str] = []

    def picture(path: Path, content: np.ndarray) -> None:
        if (failing == "mask" and path.name == "0.png") or (failing == "sheet" and path.suffix == ".jpg"):
            raise OSError("disk full")
        real_picture(path, content)

    def text(path: Path, content: str) -> None:
        if failing == "json" and path.name == "transforms.json":
            raise OSError("disk full")
        real_text(path, content)

    def rename(old: Path, new: Path) -> None:
        renames.append(str(old))
        if failing == f"rename {len(renames)}":
            raise KeyboardInterrupt
        real_rename(old, new)

    monkeypatch.setattr(write, "write_image", picture)
    monkeypatch.setattr(write, "write_text", text)
    monkeypatch.setattr(write.os, "rename", rename)
    with pytest.raises((OSError, KeyboardInterrupt)):
        put(source, 0.3, overwrite=True)
    assert state(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    monkeypatch.undo()
    put(source, 0.3, overwrite=True)  # and it works the next time
    assert state(tmp_path) != before


def test_a_capture_that_changed_meanwhile(tmp_path: Path) -> None:
    source = capture(tmp_path)
    with pytest.raises(MaskError, match="has changed since"):
        write_masks(source, ["images/0.jpg"], [None], [(32, 24)], {})
    assert not (tmp_path / "coarse_masks").exists()


def test_masks_of_a_folder_of_colmaps_are_named_in_a_json_file_that_goes_again_where_they_fail(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    views = ring(3)
    names = [f"{index}.png" for index in range(3)]
    for name in names:
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((int(views.height[0]), int(views.width[0]), 3), np.uint8))
    model = colmap_model(tmp_path / "sparse" / "0", views, names, np.random.default_rng(0).normal(size=(9, 3)))
    lines: list[str] = []
    with pytest.raises(MaskError, match="nothing found"), source_to_write(model, lines.append):
        raise MaskError("nothing found")
    assert not (tmp_path / "transforms.json").exists() and not lines
    with source_to_write(model, lines.append) as source:
        write_masks(source, [f"images/{name}" for name in names], [np.ones((8, 8))] * 3, views.sizes(), {})
    assert source == tmp_path / "transforms.json" and str(model) in lines[0]
    outputs = SurfaceSOSDataParserConfig(data=tmp_path).setup().get_dataparser_outputs("train")
    assert outputs.metadata["coarse_mask_filenames"] == [tmp_path / "coarse_masks" / name for name in names]
    assert outputs.metadata["points_files"][0].is_colmap, "the model's points are still used, with their tracks"
    with source_to_write(source, lines.append) as again:
        assert again == source
    assert len(lines) == 1
