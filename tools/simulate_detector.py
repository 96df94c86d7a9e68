"""Copies of a capture with masks of a detector that is wrong about the same thing in many photos.

    surface-sos capture --objects --output objects
    python tools/simulate_detector.py objects --output simulated --object can --neighbour books
    ns-train surface-sos-lite --data simulated/neighbour_60

Writes true/ (the object's true masks), neighbour_30/, _60/, _80/ (masks that take the neighbour along in that share of
the photos) and part_50/, _70/, _90/ (masks that lack a part of the object in that share), each a capture of the one
object, and prints the masks' mean IoU with the truth. The part is what lies beyond a plane across the object's longest
axis, on the narrower side, chosen to have a tenth of the object's pixels. Photos are links to those of the capture.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import cv2
import numpy as np
import trimesh

from surface_sos_ns.capture.transforms import capture_source, read_transforms
from surface_sos_ns.capture.views import Views
from surface_sos_ns.demo.detector_masks import chosen_photos, noisy_outline, with_neighbour, without_part
from surface_sos_ns.utils.overlap import intersection_over_union

NEIGHBOUR, PART = (0.3, 0.6, 0.8), (0.5, 0.7, 0.9)
"""Shares of the photos."""


def part_images(views: Views, shown: list[np.ndarray], mesh: trimesh.Trimesh, share: float) -> list[np.ndarray]:
    """Per view (H, W) bool: the pixels of one end of the object, about `share` of all its pixels.

    Args:
        views: V views, frame of the mesh.
        shown: per view (H, W) bool, where the object is seen.
        mesh: of the object.
        share: in 0..1.
    """
    points = []
    for view, visible in enumerate(shown):
        rows, columns = np.nonzero(visible)
        directions = views.rays(view, np.stack([columns + 0.5, rows + 0.5], axis=1))
        origins = np.broadcast_to(views.centres()[view], directions.shape)
        hits, rays, _ = mesh.ray.intersects_location(origins, directions, multiple_hits=False)
        where = np.full((len(rows), 3), np.nan)
        where[rays] = hits
        points.append(where)
    every = np.concatenate(points)
    every = every[np.isfinite(every).all(axis=1)]
    axis = np.linalg.svd(every - every.mean(axis=0), full_matrices=False)[2][0]
    along = (every - every.mean(axis=0)) @ axis
    if np.percentile(along, 100) - np.percentile(along, 50) < np.percentile(along, 50) - np.percentile(along, 0):
        axis = -axis  # the end that reaches farther out
        along = -along
    beyond = np.percentile(along, 100 * (1 - share))
    images = []
    for visible, where in zip(shown, points, strict=True):
        image = np.zeros(visible.shape, bool)
        image[visible] = np.nan_to_num((where - every.mean(axis=0)) @ axis, nan=-np.inf) > beyond
        images.append(image)
    return images


def main() -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--object", default="can")
    parser.add_argument("--neighbour", default="books")
    parser.add_argument("--part-share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    capture, content = arguments.capture, json.loads((arguments.capture / "transforms.json").read_text())
    identity, other = (content["object_names"].index(name) + 1 for name in (arguments.object, arguments.neighbour))
    frames = content["frames"]
    images = [cv2.imread(str(capture / frame["gt_objects_path"]), cv2.IMREAD_UNCHANGED) for frame in frames]
    truths, neighbours = [image == identity for image in images], [image == other for image in images]
    mesh = trimesh.load(capture / "gt_meshes" / f"{arguments.object}.ply", process=False)
    parts = part_images(read_transforms(capture_source(capture)).views, truths, mesh, arguments.part_share)
    held_out = [i for i, frame in enumerate(frames) if frame["file_path"] in content["val_filenames"]]
    groups = [[i for i in range(len(frames)) if i not in held_out], held_out]
    kinds = {"true": None, "noisy": None} | {f"neighbour_{100 * s:.0f}": s for s in NEIGHBOUR}
    kinds |= {f"part_{100 * s:.0f}": s for s in PART}
    for name, share in kinds.items():
        chosen = set() if share is None else chosen_photos(groups, share, arguments.seed)
        masks = []
        for view, truth in enumerate(truths):
            rng = np.random.default_rng([arguments.seed, 111, view])
            if name == "true":
                masks.append(truth.astype(np.uint8) * 255)
            elif name == "noisy":
                masks.append(noisy_outline(truth, rng))
            elif name.startswith("part"):
                masks.append(without_part(truth, parts[view], view in chosen, rng))
            else:
                masks.append(with_neighbour(truth, neighbours[view], view in chosen, rng))
        write(capture, arguments.output / name, content, masks, truths)
        ious = np.array([intersection_over_union(m > 127, t) for m, t in zip(masks, truths, strict=True)])
        print(f"{name}: IoU {ious[groups[0]].mean():.3f} trained on, {ious[held_out].mean():.3f} held out")


def write(capture: Path, folder: Path, content: dict, masks: list[np.ndarray], truths: list[np.ndarray]) -> None:
    """Writes a capture of one object with these masks."""
    frames = []
    for frame, mask, truth in zip(content["frames"], masks, truths, strict=True):
        stem = Path(frame["file_path"]).stem
        for kind, picture in (("coarse_masks", mask), ("gt_masks", truth.astype(np.uint8) * 255)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / f"{stem}.png"), picture)
        dropped = ("gt_objects_path", "clean_plate_path", "plates_without")
        kept = {key: value for key, value in frame.items() if key not in dropped}
        paths = {"coarse_mask_path": f"coarse_masks/{stem}.png", "gt_mask_path": f"gt_masks/{stem}.png"}
        frames.append(kept | paths)
    for name in ("images", content["ply_file_path"]):
        if not (folder / name).exists():
            os.symlink((capture / name).resolve(), folder / name)
    kept = {key: value for key, value in content.items() if key != "object_names"}
    (folder / "transforms.json").write_text(json.dumps(kept | {"frames": frames}, indent=1))


if __name__ == "__main__":
    main()
