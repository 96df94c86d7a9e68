"""Makes the README's moving picture from a run: `python docs/make_animation.py CONFIG PHOTO...`.

Each photo turns into its mask, the object cut out, and the scene without the object.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from surface_sos_ns import Run, load_run
from surface_sos_ns.utils.pictures import over_checkerboard, tinted

TARGET = Path(__file__).with_name("images") / "demo.webp"
FADE, HOLD = 5, 1100
"""Pictures between two states, and milliseconds that each state stays."""
STEP = 60
"""Milliseconds of a picture in between."""
MASK = (255, 120, 40)


def states(run: Run, photo: str) -> list[np.ndarray]:
    """(H, W, 3) uint8: the photo, its mask, the object cut out, the scene without it."""
    picture, matte, cutout = run.photo(photo), run.matte(photo), run.cutout(photo)
    plate = np.rint(np.clip(run.clean_plate(photo), 0, 1) * 255).astype(np.uint8)
    alone = over_checkerboard(255 * cutout[..., :3] * cutout[..., 3:], cutout[..., 3])
    return [picture, tinted(picture, matte, MASK, 0.6), alone, plate]


def animation(pictures: list[np.ndarray]) -> tuple[list[Image.Image], list[int]]:
    """Frames and their milliseconds: each state, then the way to the next one, the last of which is the first."""
    frames: list[Image.Image] = []
    times: list[int] = []
    for here, there in zip(pictures, [*pictures[1:], pictures[0]], strict=True):
        for number in range(FADE + 1):
            share = number / (FADE + 1)
            mixed = (1 - share) * here.astype(np.float32) + share * there.astype(np.float32)
            frames.append(Image.fromarray(np.rint(mixed).astype(np.uint8)))
            times.append(STEP if number else HOLD)
    return frames, times


def main() -> None:
    """Writes the picture and says where."""
    parser = argparse.ArgumentParser(description="Makes the README's moving picture from a run.")
    parser.add_argument("config", type=Path, help="the run's config.yml")
    parser.add_argument("photos", nargs="+", help="file names of photos")
    parser.add_argument("--target", type=Path, default=TARGET, help="the picture, .webp")
    given = parser.parse_args()
    run = load_run(given.config)
    frames, times = animation([state for photo in given.photos for state in states(run, photo)])
    frames[0].save(given.target, save_all=True, append_images=frames[1:], duration=times, loop=0, quality=72, method=6)
    print(f"{given.target}: {given.target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
