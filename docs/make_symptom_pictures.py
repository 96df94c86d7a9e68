"""Makes the pictures of the troubleshooting page: `python docs/make_symptom_pictures.py FOLDER`.

It renders the demo's scene, spoils masks or poses in a different way for each symptom, trains on each for a short time
(15 minutes on two cores in all), and shows what came out of the same photo. What is in FOLDER already is used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from surface_sos_ns import load_run
from surface_sos_ns.demo.coarse_masks import coarse_masks
from surface_sos_ns.utils.files import write_json
from surface_sos_ns.utils.image_io import read_image, write_image
from surface_sos_ns.utils.pictures import eight_bit

IMAGES = Path(__file__).with_name("images")
VIEWS, WIDTH, HEIGHT, STEPS = 40, 320, 240, 1500
SHOWN = "frame_00013.jpg"
"""A held-out photo in which the watering can, its spout and the mug beside it are seen from the side."""
OPTIONS = {
    "--max-num-iterations": str(STEPS),
    "--vis": "tensorboard",
    "--timestamp": "t",
    "--pipeline.datamanager.repair-masks": "False",  # what is spoilt here alike in all masks would be mended
    "--pipeline.datamanager.check-poses": "False",
    "--logging.local-writer.max-log-size": "0",
}


@dataclass(frozen=True)
class Symptom:
    """What is wrong with the input: which things or parts the masks show, and how far the poses are turned."""

    name: str
    several: bool
    """Whether `shown` are numbers of things (can 1, mug 2, pot 3, books 4, lemon 5), else of the can's parts (spout 2,
    rose 3)."""
    shown: tuple[int, ...]
    degrees: float = 0.0


SYMPTOMS = (
    Symptom("right", True, (1,)),
    Symptom("neighbour", True, (1, 4)),
    Symptom("something_else", True, (3,)),
    Symptom("missing", False, (1, 4, 5, 6)),
    Symptom("poses", False, (1, 2, 3, 4, 5, 6), degrees=0.6),
)


def command(module: str, *arguments: str | Path) -> None:
    """Runs `python -m module arguments`."""
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


def rendered(folder: Path, several: bool) -> Path:
    """The demo's capture, with several things or with the can's parts."""
    capture = folder / ("things" if several else "parts")
    if not (capture / "transforms.json").is_file():
        size = ("--views", str(VIEWS), "--width", str(WIDTH), "--height", str(HEIGHT), "--quality", "0.6")
        command("surface_sos_ns.cli", "capture", "--output", capture, *size, *(["--objects"] if several else []))
    return capture


def spoilt(folder: Path, symptom: Symptom) -> Path:
    """A capture with the symptom's masks and poses, beside the one that it is made of, whose photos it names."""
    capture = rendered(folder, symptom.several)
    content = json.loads((capture / "transforms.json").read_text())
    truth = "gt_objects_path" if symptom.several else "gt_parts_path"
    right = [np.isin(read_image(capture / frame[truth])[..., 0], symptom.shown) for frame in content["frames"]]
    training = [i for i, frame in enumerate(content["frames"]) if frame["file_path"] in content["train_filenames"]]
    random = np.random.default_rng(0)
    scene = folder / symptom.name
    (scene / "masks").mkdir(parents=True, exist_ok=True)
    for frame, mask in zip(content["frames"], coarse_masks(right, 0, training), strict=True):
        path = f"masks/{Path(frame['file_path']).stem}.png"
        write_image(scene / path, mask * np.uint8(255))
        pose = np.array(frame["transform_matrix"])
        pose[:3, :3] = Rotation.from_rotvec(random.normal(0, np.deg2rad(symptom.degrees), 3)).as_matrix() @ pose[:3, :3]
        keys = {"file_path": str((capture / frame["file_path"]).resolve()), "coarse_mask_path": path}
        frame.clear()
        frame.update(keys, transform_matrix=pose.tolist())
    for key in ("train_filenames", "val_filenames", "test_filenames"):
        content[key] = [str((capture / name).resolve()) for name in content[key]]
    for key in ("object_names", "part_names"):
        content.pop(key, None)
    content["ply_file_path"] = str((capture / content["ply_file_path"]).resolve())
    write_json(scene / "transforms.json", content)
    return scene


def picture(folder: Path, symptom: Symptom) -> np.ndarray:
    """(H, W, 3) uint8: the shown photo with what was found in it."""
    config = folder / "runs" / symptom.name / "surface-sos-lite" / "t" / "config.yml"
    if not config.is_file():
        options = {**OPTIONS, "--output-dir": str(folder / "runs"), "--experiment-name": symptom.name}
        given = [word for option in options.items() for word in option]
        command("nerfstudio.scripts.train", "surface-sos-lite", "--data", spoilt(folder, symptom), *given)
    run = load_run(config)
    (view,) = [view for view in run.views if Path(view.name).name == SHOWN]
    return eight_bit(run.render(view, ["overlay"])["overlay"])


def main() -> None:
    """Writes the pictures and says where."""
    parser = argparse.ArgumentParser(description="Makes the pictures of the troubleshooting page.")
    parser.add_argument("folder", type=Path, help="for captures and runs; 600 MB")
    parser.add_argument("--images", type=Path, default=IMAGES, help="where the pictures go")
    given = parser.parse_args()
    for symptom in SYMPTOMS:
        path = given.images / f"symptom_{symptom.name}.jpg"
        write_image(path, picture(given.folder, symptom), quality=80)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
