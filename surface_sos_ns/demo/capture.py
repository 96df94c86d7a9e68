"""Writes the demo capture: photos, poses, coarse masks, and the truth to score against, in nerfstudio's layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from surface_sos_ns.capture.ply import write_ply_points
from surface_sos_ns.capture.transforms import transforms_content
from surface_sos_ns.capture.views import Views
from surface_sos_ns.demo.coarse_masks import coarse_identities, coarse_masks
from surface_sos_ns.demo.path_tracer import Camera, Rendered, Tracer
from surface_sos_ns.demo.rendering import light_and_render
from surface_sos_ns.demo.scene import OBJECTS, build_scene
from surface_sos_ns.demo.shapes import rotation
from surface_sos_ns.demo.watering_can import CENTRE
from surface_sos_ns.utils.cores import usable_cores
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.extras import require_package
from surface_sos_ns.utils.files import atomic_folder, remove_leftovers, write_json
from surface_sos_ns.utils.image_io import write_image

SETTINGS_FILE = "demo_capture.json"
JPEG_QUALITY = 94
# The modules that decide what a capture looks like.
SOURCES = (
    *("shapes", "textures", "workbench", "room", "still_life", "watering_can", "scene"),
    *("path_tracer", "rendering", "coarse_masks", "capture"),
)
SIZE, SIZE_OF_SEVERAL = (200, 150), (320, 240)
"""Width and height of photos by default, pixels: of one object, and of several."""
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
    views: int,
    width: int,
    height: int,
    seed: int,
    quality: float,
    painted: bool = True,
    removed: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What a capture depends on: its parameters and the sources that draw it.

    `removed`: of several objects those with plates of their own; None for a capture of one object.
    """
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
        "removed": None if removed is None else list(removed),
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
    width: int | None = None,
    height: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    quality: float = 1.0,
    painted: bool = True,
    objects: bool = False,
    removed: Sequence[str] = OBJECTS,
) -> Path:
    """Renders the demo scene and writes it as a capture; returns the folder.

    The folder appears only when complete. One that holds this very capture already is left as it is. Several workers
    are fresh processes, so that a script calling this needs the usual `if __name__ == "__main__":`.

    With `objects` the things of `scene.OBJECTS` are objects of the capture. Coarse masks are identity images then, in
    which some objects are missed or have the number of another one. Truth beyond that of one object: identities in
    gt_objects/, a mesh of each in gt_meshes/, and photos of the held-out views without single objects in
    plates_without/NAME/. The true identities of the can's parts are left out.

    Args:
        folder: where the capture goes; transforms.json lies directly in it.
        views: number of photos, 8 at least; every 8th from the 5th on is held out.
        width, height: picture size in pixels; None: 200 x 150, with `objects` 320 x 240.
        seed: decides patterns, poses and mask errors; equal seeds give equal files, whatever the number of workers.
        workers: processes to render with; None: the usable CPUs, or OMP_NUM_THREADS where that is set.
        progress: show a bar with the time left.
        quality: mesh density, light rays and anti-aliasing, 1 for the demo; 0.4 is enough for tests.
        painted: False gives the whole can one colour, so that its parts cannot be told by their colours.
        objects: several objects instead of the watering can alone.
        removed: with `objects`, those in plates_without/; the light is gathered anew for each.

    Raises:
        UserError: a parameter is out of range, the folder exists and holds something else, or embreex is not installed.
    """
    folder = Path(folder)
    default = SIZE_OF_SEVERAL if objects else SIZE
    width, height = default[0] if width is None else width, default[1] if height is None else height
    if views < 8 or width < 32 or height < 24 or not 0.2 <= quality <= 2:
        raise UserError(
            f"A demo capture needs at least 8 views of 32 x 24 pixels and a quality of 0.2 to 2, "
            f"not {views} views of {width} x {height} at quality {quality}."
        )
    unknown = sorted(set(removed) - set(OBJECTS))
    if unknown:
        raise UserError(f"The demo has no object {unknown[0]!r} to remove; name some of {', '.join(OBJECTS)}.")
    settings = capture_settings(views, width, height, seed, quality, painted, removed if objects else None)
    if is_complete(folder, settings):
        return folder
    require_package("embreex", "Rendering the demo capture")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and does not hold this demo capture; name another folder or remove that one.")
    remove_leftovers(folder.parent)
    with atomic_folder(folder) as unfinished:
        _write(unfinished, settings, workers or usable_cores(), progress)
    return folder


def _make_tracer(
    seed: int, quality: float, painted: bool, several: bool, apart: Collection[str] | None = None
) -> Tracer:
    scene = build_scene(seed, min(1.0, quality), painted, several)
    return Tracer(scene, seed, max(16, int(64 * quality)), apart)


def _write(folder: Path, settings: dict[str, Any], workers: int, progress: bool) -> None:
    seed, quality, views, removed = (settings[key] for key in ("seed", "quality", "views", "removed"))
    several = removed is not None
    make_tracer = partial(_make_tracer, seed, quality, settings["painted"], several)
    render = partial(light_and_render, samples=4 if quality <= 1 else 5, workers=workers, show=progress)
    cameras = orbit_cameras(views, settings["width"], settings["height"], CENTRE, seed)
    title = f"Rendering {views} views of the demo scene"
    tracer, rendered = render(make_tracer, dict(enumerate(cameras)), title=title)

    evaluation = held_out(views)
    training = [i for i in range(views) if i not in evaluation]
    if several:
        masks = coarse_identities([view.objects for view in rendered], seed, training)
    else:
        masks = [mask * np.uint8(255) for mask in coarse_masks([r.matte > 127 for r in rendered], seed, training)]
    stems = [f"frame_{i + 1:05d}" for i in range(views)]
    frames: list[dict[str, Any]] = [
        _write_pictures(folder, stem, _pictures(view, mask, several))
        for stem, view, mask in zip(stems, rendered, masks, strict=True)
    ]
    for name in removed or ():
        # The same scene, where everything but the one object counts as surroundings: its clean plate lacks that one.
        title = f"Rendering {len(evaluation)} views without the {name}"
        alone = partial(make_tracer, apart=(name,))
        _, plates = render(alone, {i: cameras[i] for i in evaluation}, title=title)
        for i, view in zip(evaluation, plates, strict=True):
            written = _write_pictures(folder, stems[i], {name: (f"plates_without/{name}", ".jpg", view.clean_plate)})
            frames[i].setdefault("plates_without", {}).update(written)
    _write_meshes(folder, tracer, several)
    xyz, rgb = sparse_points(tracer, cameras, rendered, seed, int(4000 * min(1, quality)))
    write_ply_points(folder / "sparse_pc.ply", xyz, rgb)
    names = [frame["file_path"] for frame in frames]
    content = transforms_content(_views(cameras), frames) | {
        "ply_file_path": "sparse_pc.ply",
        **({"object_names": tracer.object_names} if several else {"part_names": tracer.part_names}),
        "train_filenames": [names[i] for i in training],
        "val_filenames": [names[i] for i in evaluation],
        "test_filenames": [names[i] for i in evaluation],
    }
    write_json(folder / "transforms.json", content)
    write_json(folder / SETTINGS_FILE, settings)


def _pictures(view: Rendered, mask: np.ndarray, several: bool) -> dict[str, tuple[str, str, np.ndarray]]:
    """The pictures of a view by their key in transforms.json: folder, suffix and pixels."""
    identities = ("gt_objects", ".png", view.objects) if several else ("gt_parts", ".png", view.parts)
    return {
        "file_path": ("images", ".jpg", view.image),
        "coarse_mask_path": ("coarse_masks", ".png", mask),
        "gt_mask_path": ("gt_masks", ".png", view.matte),
        f"{identities[0]}_path": identities,
        "clean_plate_path": ("clean_plates", ".jpg", view.clean_plate),
    }


def _write_pictures(folder: Path, stem: str, pictures: dict[str, tuple[str, str, np.ndarray]]) -> dict[str, str]:
    """Writes pictures as `_pictures` gives them; returns their paths below the folder by the same keys."""
    paths = {}
    for key, (kind, suffix, picture) in pictures.items():
        paths[key] = f"{kind}/{stem}{suffix}"
        (folder / kind).mkdir(parents=True, exist_ok=True)
        write_image(folder / paths[key], picture, JPEG_QUALITY)
    return paths


def _write_meshes(folder: Path, tracer: Tracer, several: bool) -> None:
    """gt_object.ply with a property `part`; of several objects with a property `object`, and a mesh of each."""
    import trimesh

    front = tracer.front
    mesh = trimesh.Trimesh(front.vertices, front.faces, process=False)
    if several:
        mesh.vertex_attributes["object"] = front.vertex_object
    else:
        mesh.vertex_attributes["part"] = front.vertex_part
    mesh.export(folder / "gt_object.ply")
    if not several:
        return
    (folder / "gt_meshes").mkdir()
    for identity, name in enumerate(tracer.object_names, start=1):
        faces = front.faces[front.vertex_object[front.faces[:, 0]] == identity]
        single = trimesh.Trimesh(front.vertices, faces, process=False)
        single.remove_unreferenced_vertices()
        single.export(folder / "gt_meshes" / f"{name}.ply")


def _views(cameras: list[Camera]) -> Views:
    """Cameras as plain arrays."""
    focal, cx, cy, width, height = (
        np.array([getattr(camera, name) for camera in cameras]) for name in ("focal", "cx", "cy", "width", "height")
    )
    distortion = np.array([[camera.k1, camera.k2, 0, 0, 0, 0] for camera in cameras])
    poses = np.stack([camera.camera_to_world for camera in cameras])
    return Views(poses, focal, focal, cx, cy, width, height, distortion)
