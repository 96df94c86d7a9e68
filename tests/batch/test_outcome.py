"""What is known of a capture by its files, and its picture."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from surface_sos_ns.batch.job import Job
from surface_sos_ns.batch.outcome import PICTURE, collect, read_outcome, write_outcome


def _job(tmp_path: Path) -> Job:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30), (10, 200, 10)).save(tmp_path / "photos" / "a.png")
    return Job("cup", str(tmp_path / "photos"), "photos", tmp_path / "cup", "surface-sos-lite", options={"masks": None})


def test_photos_without_a_pose_are_counted(tmp_path: Path) -> None:
    job = _job(tmp_path)
    assert (collect(job).photos, collect(job).placed) == (None, None)
    (job.scene / "images").mkdir(parents=True)
    for name in "abc":
        Image.new("RGB", (40, 30)).save(job.scene / "images" / f"{name}.png")
    (job.scene / "transforms.json").write_text(json.dumps({"frames": [{}, {}]}))
    outcome = collect(job)
    assert (outcome.photos, outcome.placed, outcome.state) == (3, 2, "begun")
    write_outcome(job, outcome)
    assert read_outcome((job.folder / "result.json").read_bytes()) == outcome
    assert read_outcome(b'{"of": "another version"}') is None and read_outcome(None) is None


def test_the_picture_is_the_object_once_it_is_cut_out(tmp_path: Path) -> None:
    job = _job(tmp_path)
    write_outcome(job, collect(job))
    photo = np.asarray(Image.open(job.folder / PICTURE))
    assert np.abs(photo.astype(int) - (10, 200, 10)).max() < 12
    cutout = np.zeros((30, 40, 4), np.uint8)
    cutout[..., :3] = (200, 30, 30)  # colours go on beyond the outline, as in exported cut-outs
    cutout[10:20, 10:30, 3] = 255
    cutout[10:20, 20:30, 3] = 1
    (job.folder / "export" / "cutouts").mkdir(parents=True)
    Image.fromarray(cutout).save(job.folder / "export" / "cutouts" / "a.png")
    write_outcome(job, collect(job))
    picture = np.asarray(Image.open(io.BytesIO((job.folder / PICTURE).read_bytes())))
    assert picture.shape == (10, 20, 3)
    assert np.abs(picture[:, :8].astype(int) - (200, 30, 30)).max() < 25
    assert np.ptp(picture[:, 13:].astype(int), axis=2).max() < 25  # grey, where there is next to nothing


def test_a_worker_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "a.png")
    code = f"""
import sys
from pathlib import Path
from surface_sos_ns.batch.job import Job
from surface_sos_ns.batch.outcome import collect, write_outcome
import surface_sos_ns.batch.stage_run
job = Job("cup", {str(tmp_path / "photos")!r}, "photos", Path({str(tmp_path / "cup")!r}), "surface-sos-lite")
write_outcome(job, collect(job))
print("torch" in sys.modules, "nerfstudio" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False False\n" and (tmp_path / "cup" / PICTURE).is_file()
