"""Makes the picture of the guide on several objects: `python docs/make_objects_picture.py CONFIG`.

CONFIG is the config.yml of a run on the capture that `surface-sos capture --objects` renders. Of some of its held-out
photos there is a row: the photo, the objects in their colours over it, one cut out, and the view without two of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from surface_sos_ns import load_run
from surface_sos_ns.utils.identity_colours import identity_bytes
from surface_sos_ns.utils.image_io import write_image
from surface_sos_ns.utils.pictures import over_checkerboard

IMAGE = Path(__file__).with_name("images") / "objects.jpg"
VIEWS = (1, 5)
"""Which of the held-out photos."""
CUT_OUT = "can"
REMOVED = ("can", "books")


def main() -> None:
    """Writes the picture and says where."""
    parser = argparse.ArgumentParser(description="Makes the picture of the guide on several objects.")
    parser.add_argument("config", type=Path, help="config.yml of the run")
    parser.add_argument("--image", type=Path, default=IMAGE, help="where the picture goes")
    given = parser.parse_args()
    run = load_run(given.config)
    colours = np.concatenate([np.zeros((1, 3), np.uint8), identity_bytes(len(run.objects))])
    held_out = [view for view in run.views if view.held_out]
    rows = []
    for view in (held_out[index] for index in VIEWS):
        photo, identities = run.photo(view), run.identities(view)
        tinted = np.where(identities[..., None] > 0, 0.35 * photo + 0.65 * colours[identities], photo)
        cutout = run.cutout(view, object=CUT_OUT) * 255
        alpha = cutout[..., 3] / 255
        tiles = [photo, tinted, over_checkerboard(cutout[..., :3] * alpha[..., None], alpha)]
        tiles += [run.without(view, name) * 255 for name in REMOVED]
        rows.append(np.concatenate([np.clip(tile, 0, 255).astype(np.uint8) for tile in tiles], axis=1))
    write_image(given.image, np.concatenate(rows), quality=80)
    print(f"{given.image}  {given.image.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
