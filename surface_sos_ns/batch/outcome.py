"""What has come of a capture so far: figures, a picture, and what is to be looked at."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from surface_sos_ns.batch.job import Job, Kind
from surface_sos_ns.batch.stages import stages_of
from surface_sos_ns.batch.stamps import read_stamp, stamp_path
from surface_sos_ns.capture.lookup import image_files
from surface_sos_ns.utils.files import bytes_of, write_bytes, write_json

__all__ = ["PICTURE", "RESULT", "Outcome", "collect", "concerns", "failed", "read_outcome", "write_outcome"]

RESULT, PICTURE = "result.json", "picture.jpg"
"""Files in a capture's folder."""
PICTURE_SIDE = 240
"""Pixels of the picture's longer side."""
GREY = (224, 224, 224, 255)
"""Behind a cut-out."""
LOW_AGREEMENT = 0.75
"""IoU of found masks with what training started from, below which a capture is to be looked at."""
FEW_PLACED = 0.8
"""Share of the photos with a pose, below which it is."""
MANY_AT_EDGE = 0.3
"""Share of the photos whose mask reaches the picture's edge, above which it is."""


@dataclass(frozen=True)
class Outcome:
    """Of one capture; JSON values throughout. None is what is not known.

    Attributes:
        name, source, kind, method: of the capture.
        state: done: all stages are; begun: some are; failed.
        stage: that failed, or the last one that is done.
        problem: why it failed, as the command said it.
        log: of the stage that failed, in the capture's folder.
        photos, placed: how many there are, and how many of them have a pose.
        agreement: mean IoU of the found masks with those that training started from.
        confidence: how far these agree with their own vote in space.
        at_edge: share of the photos whose mask reaches the picture's edge.
        found: share of the photos in which there is an object.
        mask_iou, psnr: on photos held out, where there is truth.
        seconds, cpu_seconds: of each stage that is done.
        peak_gb: the most of all stages.
    """

    name: str
    source: str
    kind: Kind
    method: str
    state: Literal["done", "begun", "failed"]
    stage: str = ""
    problem: str = ""
    log: str = ""
    photos: int | None = None
    placed: int | None = None
    agreement: float | None = None
    confidence: float | None = None
    at_edge: float | None = None
    found: float | None = None
    mask_iou: float | None = None
    psnr: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_gb: float | None = None


def concerns(outcome: Outcome) -> list[str]:
    """Why a capture is to be looked at, in words; empty where there is no reason."""
    found = []
    if outcome.state == "failed":
        found.append("failed")
    if outcome.photos and outcome.placed is not None and outcome.placed < FEW_PLACED * outcome.photos:
        found.append("few photos placed")
    if outcome.agreement is not None and outcome.agreement < LOW_AGREEMENT:
        found.append("low agreement")
    if outcome.at_edge is not None and outcome.at_edge > MANY_AT_EDGE:
        found.append("mask at the picture's edge")
    if outcome.found is not None and outcome.found < 1:
        found.append("no object in some photos")
    return found


def failed(outcome: Outcome, stage: str, problem: str, log: str = "") -> Outcome:
    """The same with a stage that failed."""
    return replace(outcome, state="failed", stage=stage, problem=problem, log=log)


def collect(job: Job) -> Outcome:
    """What is known by the files in a capture's folder."""
    stages = stages_of(job)
    stamps = {stage.name: read_stamp(bytes_of(stamp_path(job, stage))) for stage in stages}
    done = {name: stamp for name, stamp in stamps.items() if stamp is not None and stamp.done}
    metrics = _json(job.folder / "metrics.json").get("results", {})
    report = _json(job.folder / "report" / "figures.json")
    peaks = [stamp.peak_gb for stamp in done.values() if stamp.peak_gb is not None]
    photos, placed = _photos(job)
    return Outcome(
        job.name,
        job.source,
        job.kind,
        job.method,
        "done" if len(done) == len(stages) else "begun",
        stage=[*done][-1] if done else "",
        photos=photos,
        placed=placed,
        agreement=report.get("agreement"),
        confidence=report.get("confidence"),
        at_edge=report.get("at_edge"),
        found=report.get("found"),
        mask_iou=metrics.get("mask_iou"),
        psnr=metrics.get("psnr"),
        seconds={name: stamp.seconds for name, stamp in done.items() if stamp.seconds is not None},
        cpu_seconds={name: stamp.cpu_seconds for name, stamp in done.items() if stamp.cpu_seconds is not None},
        peak_gb=max(peaks, default=None),
    )


def write_outcome(job: Job, outcome: Outcome) -> None:
    """Writes result.json, and picture.jpg where a picture can be made of what is there."""
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / RESULT, asdict(outcome))
    picture = _picture(job)
    if picture is not None:
        write_bytes(job.folder / PICTURE, picture)


def read_outcome(content: bytes | None) -> Outcome | None:
    """What `write_outcome` wrote; None where there is nothing of this form."""
    with suppress(ValueError, TypeError):
        return None if content is None else Outcome(**json.loads(content))
    return None


def _photos(job: Job) -> tuple[int | None, int | None]:
    """How many photos there are, and how many have a pose."""
    scene = _json(job.scene / "transforms.json")
    frames = scene.get("frames")
    placed = len(frames) if isinstance(frames, list) else None
    if job.kind == "scene":
        return placed, placed
    images = job.scene / "images"
    return (len(image_files(images)) if images.is_dir() else None), placed


def _picture(job: Job) -> bytes | None:
    """A JPEG file of the object, cut out; of a photo where there is no cut-out yet."""
    from PIL import Image

    cutouts = job.folder / "export" / "cutouts"
    places = [cutouts, job.scene / "images", *([job.place] if job.kind == "photos" else [])]
    for place in places:
        files = image_files(place) if place.is_dir() else []
        if not files:
            continue
        with suppress(OSError), Image.open(place / files[len(files) // 2]) as image:
            if place == cutouts and (box := image.getbbox()) is not None:
                image = image.crop(box)
            image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
            image = image.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", image.size, GREY), image).convert("RGB")
            out = io.BytesIO()
            picture.save(out, "JPEG", quality=85)
            return out.getvalue()
    return None


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        return content if isinstance(content, dict) else {}
    return {}
