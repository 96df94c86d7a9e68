"""The demo's watering can on a turntable: camera, room and lights stand still, the can turns.

    python tools/render_turntable.py --output turntable
    surface-sos process --images turntable/images --output scene --masks turntable/detector_masks --use object
    ns-train surface-sos-lite --data turntable

Writes a capture whose poses are the camera's in the can's frame, with very rough coarse masks, masks as a detector
gives them (detector_masks/), true masks and clean plates. The light is gathered anew for each frame: 20 s of a core at
640 x 480. Frames that are there already are kept: the same command goes on with what was interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from surface_sos_ns.capture.transforms import transforms_content
from surface_sos_ns.capture.views import Views
from surface_sos_ns.demo import detector_masks
from surface_sos_ns.demo.capture import DISTORTION, held_out
from surface_sos_ns.demo.coarse_masks import coarse_masks
from surface_sos_ns.demo.path_tracer import Camera, Tracer
from surface_sos_ns.demo.rendering import light_and_render
from surface_sos_ns.demo.scene import DemoScene, build_scene
from surface_sos_ns.demo.shapes import rotation
from surface_sos_ns.demo.watering_can import CENTRE

ELEVATION, AZIMUTH, DISTANCE = 27.0, -60.0, 1.08
"""Of the camera, from the can: degrees, and metres."""

AXIS = np.array([CENTRE[0], CENTRE[1], 0.0])
"""A point on the turntable's axis, which is vertical."""


def turned(scene: DemoScene, degrees: float) -> DemoScene:
    """The scene with the can turned about the axis. Its patterns turn with it: they depend on places."""
    turn = rotation("z", degrees)
    objects = {
        name: [surface.moved(AXIS - turn @ AXIS, turn) for surface in surfaces]
        for name, surfaces in scene.objects.items()
    }
    materials = dict(scene.materials)
    for name in {surface.material for surfaces in scene.objects.values() for surface in surfaces}:
        still = scene.materials[name].colour

        def colour(points: np.ndarray, uv: np.ndarray, still=still) -> np.ndarray:
            return still((points - AXIS) @ turn + AXIS, uv)

        materials[name] = dataclasses.replace(materials[name], colour=colour)
    return dataclasses.replace(scene, objects=objects, materials=materials)


def make_tracer(seed: int, quality: float, degrees: float) -> Tracer:
    """The tracer of one frame."""
    return Tracer(turned(build_scene(seed, min(1.0, quality)), degrees), seed, max(16, int(64 * quality)))


def standing_camera(width: int, height: int) -> Camera:
    """The camera, frame of the room."""
    up, around = np.radians([ELEVATION, AZIMUTH])
    away = np.array([np.cos(around) * np.cos(up), np.sin(around) * np.cos(up), np.sin(up)])
    right = np.cross(-away, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.concatenate([np.stack([right, np.cross(right, -away), away], 1), (CENTRE + DISTANCE * away)[:, None]], 1)
    return Camera(pose, 1.06 * width, 0.506 * width, 0.5 * height - 0.004 * width, width, height, *DISTORTION)


def main() -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=44)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--quality", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    output, count = arguments.output, arguments.frames
    camera = standing_camera(arguments.width, arguments.height)
    stems = [f"frame_{index + 1:05d}" for index in range(count)]
    for kind in ("images", "coarse_masks", "detector_masks", "gt_masks", "clean_plates"):
        (output / kind).mkdir(parents=True, exist_ok=True)
    for index, stem in enumerate(stems):
        if (output / "gt_masks" / f"{stem}.png").exists():  # the last of a frame's files
            continue
        tracer = partial(make_tracer, arguments.seed, arguments.quality, 360 * index / count)
        title = f"Frame {index + 1} of {count}"
        _, (view,) = light_and_render(tracer, {index: camera}, 4, arguments.workers, title, True)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 94]
        cv2.imwrite(str(output / "images" / f"{stem}.jpg"), view.image[..., ::-1], quality)
        cv2.imwrite(str(output / "clean_plates" / f"{stem}.jpg"), view.clean_plate[..., ::-1], quality)
        cv2.imwrite(str(output / "gt_masks" / f"{stem}.png"), view.matte)
    write_capture(output, stems, camera, arguments.seed)


def write_capture(folder: Path, stems: list[str], camera: Camera, seed: int) -> None:
    """Writes masks and transforms.json of the frames that are there."""
    count = len(stems)
    truths = [cv2.imread(str(folder / "gt_masks" / f"{stem}.png"), cv2.IMREAD_GRAYSCALE) > 127 for stem in stems]
    tested = held_out(count)
    trained = [index for index in range(count) if index not in tested]
    detector_masks.OUTLINE_PIXELS, detector_masks.WAVE_PIXELS = 2.5, 30.0
    rough = coarse_masks(truths, seed, trained)
    for index, (stem, truth) in enumerate(zip(stems, truths, strict=True)):
        found = detector_masks.noisy_outline(truth, np.random.default_rng([seed, 112, index]))
        cv2.imwrite(str(folder / "detector_masks" / f"{stem}.png"), found)
        cv2.imwrite(str(folder / "coarse_masks" / f"{stem}.png"), rough[index] * np.uint8(255))
    poses = []
    for index in range(count):
        back = rotation("z", -360 * index / count)  # what the can's frame sees of the camera
        centre = back @ (camera.camera_to_world[:, 3] - AXIS) + AXIS
        poses.append(np.concatenate([back @ camera.camera_to_world[:, :3], centre[:, None]], axis=1))
    views = Views(
        np.stack(poses),
        np.full(count, camera.focal),
        np.full(count, camera.focal),
        np.full(count, camera.cx),
        np.full(count, camera.cy),
        np.full(count, camera.width),
        np.full(count, camera.height),
        np.tile([camera.k1, camera.k2, 0, 0, 0, 0], (count, 1)),
    )
    kinds = {"file_path": "images/{}.jpg", "coarse_mask_path": "coarse_masks/{}.png"}
    kinds |= {"gt_mask_path": "gt_masks/{}.png", "clean_plate_path": "clean_plates/{}.jpg"}
    content = transforms_content(views, [{key: path.format(stem) for key, path in kinds.items()} for stem in stems])
    names = [f"images/{stem}.jpg" for stem in stems]
    split = {"train_filenames": [names[i] for i in trained]}
    split |= {key: [names[i] for i in tested] for key in ("val_filenames", "test_filenames")}
    (folder / "transforms.json").write_text(json.dumps(content | split, indent=1))


if __name__ == "__main__":
    main()
