"""Writes the demo capture: photos, poses, coarse masks, and the truth to score against, in nerfstudio's layout."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from surface_sos_ns.capture.ply import write_ply_points
from surface_sos_ns.capture.transforms import transforms_content
from surface_sos_ns.capture.views import Views
from surface_sos_ns.demo.coarse_masks import coarse_masks
from surface_sos_ns.demo.path_tracer import Camera, Lighting, Rendered, Tracer
from surface_sos_ns.demo.scene import build_scene
from surface_sos_ns.demo.shapes import rotation
from surface_sos_ns.demo.watering_can import CENTRE
from surface_sos_ns.utils.cores import usable_cores
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.extras import require_package
from surface_sos_ns.utils.files import atomic_folder, remove_leftovers, write_json
from surface_sos_ns.utils.image_io import write_image
from surface_sos_ns.utils.progress import Stage

SETTINGS_FILE = "demo_capture.json"
JPEG_QUALITY = 94
# The modules that decide what a capture looks like.
SOURCES = (
    *("shapes", "textures", "workbench", "room", "still_life", "watering_can", "scene"),
    *("path_tracer", "coarse_masks", "capture"),
)
DISTORTION = (-0.10, 0.03)  # k1, k2: a mild phone lens


def orbit_cameras(views: int, width: int, height: int, centre: np.ndarray, seed: int) -> list[Camera]:
    """Cameras once around the object at varied heights and distances, hand-held: aim and horizon waver."""
    rng = np.random.default_rng([seed, 104])
    cameras = []
    for i in range(views):
        turn = i / views
        azimuth = 2 * np.pi * turn + np.radians(rng.uniform(-2, 2))
        elevation = np.radians(28 + 17 * np.sin(2 * np.pi * (3 * turn + 0.1)) + rng.uniform(-2.5, 2.5))
        distance = 1.10 + 0.15 * np.sin(2 * np.pi * (2 * turn + 0.35)) + rng.uniform(-0.03, 0.03)
        direction = np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        )
        target = centre + rng.normal(0, 0.022, 3)
        eye = centre + distance * direction
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(right, forward), -forward], axis=1) @ rotation("z", rng.normal(0, 1.5))
        cameras.append(
            Camera(
                np.concatenate([axes, eye[:, None]], axis=1),
                1.06 * width,
                0.5 * width + 0.006 * width,
                0.5 * height - 0.004 * width,
                width,
                height,
                *DISTORTION,
            )
        )
    return cameras


def held_out(views: int) -> list[int]:
    """Indices of the views kept for evaluation: every 8th from the 5th on."""
    return list(range(4, views, 8))


# --- rendering in several processes ------------------------------------------------------------------------------
_tracer: Tracer | None = None  # one per worker process


def _make_tracer(seed: int, detail: float, painted: bool, rays: int) -> Tracer:
    return Tracer(build_scene(seed, detail, painted), seed, rays)


def _start_worker(make_tracer: Callable[[], Tracer]) -> None:
    global _tracer
    cv2.setNumThreads(1)
    _tracer = make_tracer()


def _direct(chunk: tuple[str, int]) -> Any:
    assert _tracer is not None
    return _tracer.direct(chunk)


def _bounce(chunk: tuple[str, int], radiosity_file: str) -> Any:
    assert _tracer is not None
    with np.load(radiosity_file) as data:
        return _tracer.bounce(chunk, dict(data))


def _render(job: tuple[int, Camera], lighting_file: str, samples: int) -> Rendered:
    assert _tracer is not None
    if _tracer.lighting is None:
        with np.load(lighting_file) as data:
            _tracer.lighting = Lighting(data["surroundings"], data["surroundings_alone"], data["object"])
    return _tracer.render(job[1], job[0], samples)


@contextmanager
def _pool(workers: int, make_tracer: Callable[[], Tracer]) -> Iterator[Any]:
    """A `map` over worker processes with a tracer each, or over this process where one worker is asked for."""
    global _tracer
    if workers == 1:
        _start_worker(make_tracer)
        try:
            yield map
        finally:
            _tracer = None
        return
    # Fresh processes, not forks: the caller may hold threads (torch, OpenCV) that a fork would leave in a bad state.
    # One thread each, or the numeric libraries' own threads fight over the cores.
    before = {k: os.environ.get(k) for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _start_worker, (make_tracer,)) as executor:
            yield executor.map
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _light_and_render(
    make_tracer: Callable[[], Tracer], cameras: list[Camera], samples: int, workers: int, show: bool
) -> tuple[Tracer, list[Rendered]]:
    tracer = make_tracer()
    chunks = tracer.vertex_chunks()
    costs = {
        "direct": 0.0047 * tracer.side**2,
        "bounce": 0.007 * tracer.side**2,
        "view": 1.9e-6 * cameras[0].width * cameras[0].height * samples**2,
    }
    total = len(chunks) * (costs["direct"] + costs["bounce"]) + len(cameras) * costs["view"]

    def collect(results: Iterable[Any]) -> dict[str, list]:
        found: dict[str, list] = {"back": [], "front": []}
        for (name, _), result in zip(chunks, results, strict=True):
            found[name].append(result)
        return found

    def counted(results: Iterable[Any], cost: float) -> Iterator[Any]:
        for result in results:
            stage.advance(cost)
            yield result

    with (
        tempfile.TemporaryDirectory() as scratch,
        Stage(f"Rendering {len(cameras)} views of the demo scene", total, show) as stage,
        _pool(workers, make_tracer) as run,
    ):
        direct = collect(counted(run(_direct, chunks), costs["direct"]))
        radiosity_file, lighting_file = f"{scratch}/radiosity.npz", f"{scratch}/lighting.npz"
        np.savez(radiosity_file, **tracer.radiosity(direct))
        bounced = collect(counted(run(partial(_bounce, radiosity_file=radiosity_file), chunks), costs["bounce"]))
        tracer.lighting = tracer.assemble(direct, bounced)
        light = tracer.lighting
        np.savez(
            lighting_file,
            surroundings=light.surroundings,
            surroundings_alone=light.surroundings_alone,
            object=light.object,
        )
        render = partial(_render, lighting_file=lighting_file, samples=samples)
        views = list(counted(run(render, list(enumerate(cameras))), costs["view"]))
    return tracer, views


# --- sparse points -----------------------------------------------------------------------------------------------
def sparse_points(
    tracer: Tracer, cameras: list[Camera], views: list[Rendered], seed: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points as structure from motion would find: on textured surfaces, seen by three views or more, slightly off.

    Returns (P, 3) positions in the capture frame and (P, 3) uint8 colours, P <= count.
    """
    rng = np.random.default_rng([seed, 107])
    positions, colours = [], []
    for camera, view in zip(cameras, views, strict=True):
        grey = cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        strength = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)).ravel() + 2.0
        per_view = 2 * count // len(cameras)
        pixels = rng.choice(len(strength), per_view, replace=False, p=strength / strength.sum())
        y, x = np.divmod(pixels, camera.width)
        directions = camera.rays(x + 0.5, y + 0.5)
        origins = np.broadcast_to(camera.camera_to_world[:, 3], directions.shape)
        back, front = tracer.back.hit(origins, directions), tracer.front.hit(origins, directions)
        distance = np.minimum(back["tfar"], front["tfar"])
        at_light = tracer.emission[tracer.back.face_material[np.maximum(back["primID"], 0)]] > 0
        keep = (distance < 100) & ~(at_light & (back["tfar"] <= front["tfar"]))
        positions.append((origins + distance[:, None] * directions)[keep])
        colours.append(view.image.reshape(-1, 3)[pixels[keep]])
    xyz, rgb = np.concatenate(positions), np.concatenate(colours)
    seen = np.sum([tracer.visible(camera, xyz) for camera in cameras], axis=0)
    kept = np.flatnonzero(seen >= 3)
    kept = np.sort(rng.permutation(kept)[:count])
    xyz, rgb = xyz[kept], rgb[kept]
    nearest = np.min([np.linalg.norm(xyz - c.camera_to_world[:, 3], axis=1) for c in cameras], axis=0)
    # Half a pixel at the distance of the nearest camera.
    return xyz + rng.normal(0, 0.5, xyz.shape) * (nearest / cameras[0].focal)[:, None], rgb


# --- the capture -------------------------------------------------------------------------------------------------
def capture_settings(
    views: int, width: int, height: int, seed: int, quality: float, painted: bool = True
) -> dict[str, Any]:
    """What a capture depends on: its parameters and the sources that draw it."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((folder / f"{name}.py").read_bytes())
    return {
        "views": views,
        "width": width,
        "height": height,
        "seed": seed,
        "quality": quality,
        "painted": painted,
        "source": digest.hexdigest()[:16],
    }


def is_complete(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder holds a finished capture with exactly these settings."""
    try:
        return json.loads((folder / SETTINGS_FILE).read_text()) == settings
    except (OSError, ValueError):
        return False


def write_demo_capture(
    folder: Path,
    views: int = 48,
    width: int = 200,
    height: int = 150,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    quality: float = 1.0,
    painted: bool = True,
) -> Path:
    """Renders the demo scene and writes it as a capture; returns the folder.

    The folder appears only when complete. One that holds this very capture already is left as it is. Several workers
    are fresh processes, so that a script calling this needs the usual `if __name__ == "__main__":`.

    Args:
        folder: where the capture goes; transforms.json lies directly in it.
        views: number of photos, 8 at least; every 8th from the 5th on is held out.
        width, height: picture size in pixels.
        seed: decides patterns, poses and mask errors; equal seeds give equal files, whatever the number of workers.
        workers: processes to render with; None: the usable CPUs, or OMP_NUM_THREADS where that is set.
        progress: show a bar with the time left.
        quality: mesh density, light rays and anti-aliasing, 1 for the demo; 0.4 is enough for tests.
        painted: False gives the whole object one colour, so that its parts cannot be told by their colours.

    Raises:
        UserError: a parameter is out of range, the folder exists and holds something else, or embreex is not installed.
    """
    folder = Path(folder)
    if views < 8 or width < 32 or height < 24 or not 0.2 <= quality <= 2:
        raise UserError(
            f"A demo capture needs at least 8 views of 32 x 24 pixels and a quality of 0.2 to 2, "
            f"not {views} views of {width} x {height} at quality {quality}."
        )
    settings = capture_settings(views, width, height, seed, quality, painted)
    if is_complete(folder, settings):
        return folder
    require_package("embreex", "Rendering the demo capture")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and does not hold this demo capture; name another folder or remove that one.")
    remove_leftovers(folder.parent)
    with atomic_folder(folder) as unfinished:
        _write(unfinished, settings, workers or usable_cores(), progress)
    return folder


def _write(folder: Path, settings: dict[str, Any], workers: int, progress: bool) -> None:
    import trimesh

    seed, quality, views = settings["seed"], settings["quality"], settings["views"]
    make_tracer = partial(_make_tracer, seed, min(1.0, quality), settings["painted"], max(16, int(64 * quality)))
    cameras = orbit_cameras(views, settings["width"], settings["height"], CENTRE, seed)
    samples = 4 if quality <= 1 else 5
    tracer, rendered = _light_and_render(make_tracer, cameras, samples, workers, progress)

    evaluation = held_out(views)
    training = [i for i in range(views) if i not in evaluation]
    masks = coarse_masks([r.matte > 127 for r in rendered], seed, training)
    for name in ("images", "clean_plates", "gt_masks", "gt_parts", "coarse_masks"):
        (folder / name).mkdir()
    frames = []
    for i, (view, mask) in enumerate(zip(rendered, masks, strict=True)):
        stem = f"frame_{i + 1:05d}"
        paths = {
            "file_path": f"images/{stem}.jpg",
            "coarse_mask_path": f"coarse_masks/{stem}.png",
            "gt_mask_path": f"gt_masks/{stem}.png",
            "gt_parts_path": f"gt_parts/{stem}.png",
            "clean_plate_path": f"clean_plates/{stem}.jpg",
        }
        for path, picture in (
            (paths["file_path"], view.image),
            (paths["clean_plate_path"], view.clean_plate),
            (paths["gt_mask_path"], view.matte),
            (paths["gt_parts_path"], view.parts),
            (paths["coarse_mask_path"], mask.astype(np.uint8) * 255),
        ):
            write_image(folder / path, picture, JPEG_QUALITY)
        frames.append(paths)
    mesh = trimesh.Trimesh(tracer.front.vertices, tracer.front.faces, process=False)
    mesh.vertex_attributes["part"] = tracer.front.vertex_part
    mesh.export(folder / "gt_object.ply")
    xyz, rgb = sparse_points(tracer, cameras, rendered, seed, int(4000 * min(1, quality)))
    write_ply_points(folder / "sparse_pc.ply", xyz, rgb)
    names = [frame["file_path"] for frame in frames]
    content = transforms_content(_views(cameras), frames) | {
        "ply_file_path": "sparse_pc.ply",
        "part_names": tracer.part_names,
        "train_filenames": [names[i] for i in training],
        "val_filenames": [names[i] for i in evaluation],
        "test_filenames": [names[i] for i in evaluation],
    }
    write_json(folder / "transforms.json", content)
    write_json(folder / SETTINGS_FILE, settings)


def _views(cameras: list[Camera]) -> Views:
    """Cameras as plain arrays."""
    focal, cx, cy, width, height = (
        np.array([getattr(camera, name) for camera in cameras]) for name in ("focal", "cx", "cy", "width", "height")
    )
    distortion = np.array([[camera.k1, camera.k2, 0, 0, 0, 0] for camera in cameras])
    poses = np.stack([camera.camera_to_world for camera in cameras])
    return Views(poses, focal, focal, cx, cy, width, height, distortion)
